"""A symmetric map in any frame is brought to RELION's."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_alignment import PIXEL, grid

from cryogan.errors import InputError
from cryogan.physics.symmetry import Symmetriser, point_group
from cryogan.validation import find_axes, fsc


def symmetric(name, rotation, shift):
    """Gaussians with a point group, turned and shifted: exact."""
    box = 32
    generator = np.random.default_rng(3)
    centres = generator.uniform(-0.2, 0.2, (5, 3)) * box
    heights = generator.uniform(0.5, 1.5, 5)
    points, volume = grid(box), np.zeros((box, box, box))
    for element in point_group(name):
        for centre, height in zip(centres @ element.T @ rotation.T + shift, heights, strict=True):
            volume += height * np.exp(-((points - centre) ** 2).sum(-1) / (2 * 1.5**2))
    return volume


@pytest.mark.parametrize("name", ["C3", "D2", "T", "I1"])
def test_axes_are_found_in_any_frame(name: str) -> None:
    rotation = Rotation.random(random_state=5).as_matrix()
    moved = symmetric(name, rotation, np.array([0.7, -1.1, 0.4]))
    found = find_axes(moved, PIXEL, name)
    assert found.correlation > 0.98
    placed = found.apply(moved, PIXEL)
    averaged = Symmetriser(name, 32, device=torch.device("cpu"), dtype=torch.float64)(
        torch.from_numpy(placed).double()
    ).numpy()
    # Averaged about wrong axes, little but a ball would be left.
    assert fsc(averaged, placed)[1:9].min() > 0.98


@pytest.mark.parametrize("name", ["C3", "D2"])
def test_nearest_axes_turn_a_map_back_that_has_turned_a_little(name: str) -> None:
    """Found anywhere, axes of C3 may be turned round, those of D2 exchanged."""
    turn = Rotation.from_rotvec([0.2, -0.3, 0.1]).as_matrix()
    moved = symmetric(name, turn, np.array([0.7, -1.1, 0.4]))
    found = find_axes(moved, PIXEL, name, seed=4, nearest=True)
    angle = Rotation.from_matrix(found.rotation).magnitude()
    # Some element of the group, or a turn about C3's axis, may turn less than the way back does.
    assert angle <= Rotation.from_matrix(turn).magnitude() + 0.05
    still = symmetric(name, np.eye(3), np.zeros(3))
    placed = found.apply(moved, PIXEL)
    if name != "C3":  # up to a turn about its axis
        assert np.corrcoef(still.ravel(), placed.ravel())[0, 1] > 0.98
    np.testing.assert_allclose(found.rotation[2, 2], np.cos(angle) if name == "C3" else found.rotation[2, 2], atol=1e-6)


def test_c1_stays_in_its_frame() -> None:
    found = find_axes(symmetric("C1", np.eye(3), np.zeros(3)), PIXEL, "C1")
    np.testing.assert_array_equal(found.rotation, np.eye(3))
    np.testing.assert_array_equal(found.shift_A, 0)


def test_a_map_without_the_symmetry_correlates_less() -> None:
    assert find_axes(symmetric("C1", np.eye(3), np.zeros(3)), PIXEL, "D2").correlation < 0.9


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(InputError, match="Unknown symmetry"):
        find_axes(np.ones((8, 8, 8)), PIXEL, "D0")
