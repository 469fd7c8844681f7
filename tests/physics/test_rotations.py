"""Sets of rotations."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryogan.physics.symmetry import point_group
from cryogan.rotations import small_rotations, spread_rotations, super_fibonacci, uniform_rotations


def nearest(rotations: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Degrees from each of 1,000 random poses to the nearest of some rotations, or an equal one under the group."""
    poses = uniform_rotations(1000, torch.Generator().manual_seed(1), torch.float64).numpy()
    equal = np.einsum("gij,njk->gnik", group, rotations).reshape(-1, 9)
    traces = (poses.reshape(-1, 9) @ equal.T).max(axis=1)
    return np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


@pytest.mark.parametrize("count", [500, 4608])
def test_super_fibonacci_leaves_no_gap(count: int) -> None:
    rotations = super_fibonacci(count)
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (count, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    spacing = np.degrees((8 * np.pi**2 / count) ** (1 / 3))  # of a cubic grid
    distances = nearest(rotations, np.eye(3)[None])
    assert distances.mean() < 0.6 * spacing
    assert distances.max() < spacing


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "O", "I"])
def test_spread_rotations_cover_the_distinct_views(name: str) -> None:
    group = point_group(name)
    rotations = spread_rotations(600, group, torch.Generator().manual_seed(0)).double().numpy()
    assert len(rotations) == pytest.approx(600, rel=0.08)
    spacing = np.degrees((8 * np.pi**2 / (600 * len(group))) ** (1 / 3))
    distances = nearest(rotations, group)
    assert distances.mean() < 0.65 * spacing
    assert distances.max() < 1.3 * spacing


def test_spread_rotations_are_turned_at_random() -> None:
    first, again, other = (
        spread_rotations(100, point_group("C1"), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)


def test_small_rotations_are_scipys() -> None:
    vectors = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors[0] = 0
    expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    np.testing.assert_allclose(small_rotations(vectors.float()).numpy(), expected, atol=1e-6)
