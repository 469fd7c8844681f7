"""Point groups in RELION's setting."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from cryogan.errors import InputError
from cryogan.physics.symmetry import Symmetriser, least_turn, point_group

if TYPE_CHECKING:
    from conftest import Gaussians

CPU = torch.device("cpu")
ORDERS = {
    "C1": 1, "C2": 2, "C5": 5, "C12": 12, "D1": 2, "D2": 4, "D7": 14,
    "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I3": 60, "I4": 60,
}  # fmt: skip
EXACT = ("C1", "C2", "C4", "D1", "D2", "D4", "O")
INTERPOLATED = ("C3", "C5", "D7", "T", "I")


def found(element: np.ndarray, group: np.ndarray, atol: float = 1e-6) -> bool:
    return bool(np.isclose(group, element, atol=atol).all(axis=(1, 2)).any())


def turned(volume: Tensor, rotation: np.ndarray, order: Literal[0, 3]) -> np.ndarray:
    """The volume (z, y, x) turned about voxel D // 2; SciPy's interpolation, not the package's."""
    matrix = rotation[::-1, ::-1]
    centre = np.full(3, volume.shape[0] // 2)
    return np.asarray(ndimage.affine_transform(volume.numpy(), matrix, centre - matrix @ centre, order=order))


def ball(box: int) -> Tensor:
    """A mask that stays clear of the edge planes, which a turn takes out of an even box."""
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    return (axis[:, None, None].square() + axis[:, None].square() + axis.square() < (box // 2 - 1) ** 2).double()


@pytest.mark.parametrize("name", ORDERS)
def test_group_has_its_order_and_is_a_group_of_rotations(name: str) -> None:
    group = point_group(name)
    assert group.shape == (ORDERS[name], 3, 3)
    np.testing.assert_array_equal(group[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(group), 1, atol=1e-9)
    np.testing.assert_allclose(group @ group.transpose(0, 2, 1), np.broadcast_to(np.eye(3), group.shape), atol=1e-9)
    assert all(found(a @ b, group) for a in group for b in group)
    assert len(np.unique(group.round(6) + 0.0, axis=0)) == len(group)


@pytest.mark.parametrize(("name", "same"), [("d2", "D2"), (" C3 ", "C3"), ("i", "I2")])
def test_names_are_read_with_tolerance(name: str, same: str) -> None:
    np.testing.assert_allclose(point_group(name), point_group(same), atol=1e-9)


@pytest.mark.parametrize("name", [*ORDERS, "D3"])
def test_least_turn_brings_the_same_axes_to_the_group_s_and_does_not_depend_on_which_turn_is_given(name: str) -> None:
    group, rotation = point_group(name), Rotation.random(random_state=2).as_matrix()
    least = least_turn(rotation, name)
    assert np.linalg.det(least) == pytest.approx(1)
    for element in rotation.T @ group @ rotation:
        assert found(least @ element @ least.T, group)
    for element in group:  # the group is in its normaliser
        np.testing.assert_allclose(least_turn(element @ rotation, name), least, atol=1e-9)
        assert np.trace(least) >= np.trace(element @ rotation) - 1e-9


@pytest.mark.parametrize(("name", "larger"), [("D2", "O"), ("D3", "D6"), ("D4", "D8")])
def test_least_turn_exchanges_axes_that_are_alike(name: str, larger: str) -> None:
    for element in point_group(larger):
        np.testing.assert_allclose(least_turn(element, name), np.eye(3), atol=1e-9)


@pytest.mark.parametrize("name", ["", "C0", "D0", "C", "X7", "D2h", "C-1", "I5", "O2", "C1.5", "C100"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"Unknown symmetry .* Give C1, Cn, Dn, T, O, I"):
        point_group(name)


@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed (Debian package relion)")
@pytest.mark.parametrize("name", ["C5", "D2", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_group_is_relions(name: str, tmp_path: Path) -> None:
    command = ["relion_refine", "--print_symmetry_ops", "--sym", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    matrices = [
        np.array([float(number) for number in part.split()[:9]]).reshape(3, 3)
        for part in re.split(r"R\(\d+\)=", done.stdout)[1:]
    ]
    group = point_group(name)
    assert len(matrices) == len(group)
    assert all(found(matrix, group, atol=1e-4) for matrix in matrices)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("box", [12, 13])
def test_symmetrised_volume_is_invariant_exactly_where_voxels_are_permuted(name: str, box: int) -> None:
    volume = torch.randn(box, box, box, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * ball(box)
    symmetric = Symmetriser(name, box, device=CPU, dtype=torch.float64)(volume)
    for rotation in point_group(name):
        np.testing.assert_allclose(turned(symmetric, np.rint(rotation), 0), symmetric.numpy(), atol=1e-12)


@pytest.mark.parametrize("name", [*EXACT, "C3", "I"])
def test_symmetriser_is_the_mean_over_the_group(name: str, gaussians: "Gaussians") -> None:
    volume = gaussians.volume(32)
    symmetric = Symmetriser(name, 32, device=CPU, dtype=torch.float64)(volume).numpy()
    expected = np.mean([turned(volume, rotation, 3) for rotation in point_group(name)], axis=0)
    assert np.linalg.norm(symmetric - expected) < 0.04 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", INTERPOLATED)
def test_symmetrised_volume_is_invariant_within_interpolation(name: str, gaussians: "Gaussians") -> None:
    volume = gaussians.volume(32)
    symmetric = Symmetriser(name, 32, device=CPU, dtype=torch.float64)(volume)
    for rotation in point_group(name)[1:6]:
        again = turned(symmetric, rotation, 3)
        assert np.linalg.norm(again - symmetric.numpy()) < 0.04 * symmetric.norm().item()
    assert (symmetric - volume).norm() > 0.2 * volume.norm()  # it was not symmetric before


def test_c1_changes_nothing() -> None:
    volume = torch.randn(9, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Symmetriser("C1", 9, device=CPU)(volume), volume, atol=0, rtol=0)
