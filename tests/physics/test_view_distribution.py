"""The density over view directions: what is drawn from it, what it leaves unseen, and how it is learned."""

import numpy as np
import pytest
import torch

from cryogan.physics.poses import uniform_rotations
from cryogan.physics.symmetry import point_group
from cryogan.physics.view_distribution import ViewDistribution

CPU, NOTHING = torch.device("cpu"), torch.eye(3)[None]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def seen_along(axis: list[float], degrees: float = 20.0) -> ViewDistribution:
    """Nine views in ten come from within so many degrees of an axis."""
    views = ViewDistribution(CPU)
    near = views.directions @ torch.nn.functional.normalize(torch.tensor(axis), dim=0) > np.cos(np.radians(degrees))
    views.density.copy_(torch.where(near, 0.9 / near.sum(), 0.1 / (~near).sum()) * len(near))
    return views


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


def test_views_of_an_even_density_are_uniform_rotations() -> None:
    rotations = ViewDistribution(CPU).draw(20000, generator())
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-5, rtol=0)
    # E R_ij R_kl = delta_ik delta_jl / 3 on SO(3).
    moments = torch.einsum("nij,nkl->ijkl", rotations, rotations) / len(rotations)
    expected = torch.einsum("ik,jl->ijkl", torch.eye(3), torch.eye(3)) / 3
    torch.testing.assert_close(moments, expected, atol=0.02, rtol=0)


def test_views_follow_the_density_and_in_plane_angles_are_uniform() -> None:
    views = seen_along([1.0, 2.0, 2.0])
    rotations = views.draw(20000, generator())
    inside = (views.density > 1)[views.cells(rotations[:, :, 2])].float().mean()
    assert inside == pytest.approx(0.9, abs=0.02)
    in_plane = torch.atan2(rotations[:, 2, 1], -rotations[:, 2, 0])
    assert abs(torch.exp(1j * in_plane).mean()) < 0.02


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2"])
def test_counts_are_the_same_for_equal_views(symmetry: str) -> None:
    group = torch.from_numpy(point_group(symmetry)).float()
    views, rotations = ViewDistribution(CPU), uniform_rotations(50, generator())
    for element in group:
        torch.testing.assert_close(views.counts(element @ rotations, group), views.counts(rotations, group))


def test_the_density_is_learned_from_views_that_are_off_by_degrees() -> None:
    true, learned, random = seen_along([1.0, 0.0, 1.0]), ViewDistribution(CPU), generator()

    def look(rotations: torch.Tensor) -> torch.Tensor:
        turns = 0.1 * torch.randn(len(rotations), 3, generator=random)
        return rotations @ torch.linalg.matrix_exp(
            torch.stack([torch.linalg.cross(turn.expand(3, 3), torch.eye(3)) for turn in turns])
        )

    for _ in range(5):
        learned.learn(look(true.draw(2000, random)), look(learned.draw(2000, random)), NOTHING)
    assert correlation(learned.density, true.density) > 0.9
    assert learned.density.mean() == pytest.approx(1.0, abs=1e-4)


def test_equal_views_change_nothing_but_what_is_smoothed() -> None:
    views, rotations = seen_along([0.0, 1.0, 0.0]), uniform_rotations(1000, generator())
    before = views.density.clone()
    views.learn(rotations, rotations, NOTHING)
    assert correlation(views.density, before) > 0.95
    even = ViewDistribution(CPU)
    even.learn(rotations, rotations, NOTHING)
    torch.testing.assert_close(even.density, torch.ones(768), atol=0.05, rtol=0)


def test_even_views_cover_every_frequency_alike() -> None:
    torch.testing.assert_close(ViewDistribution(CPU).coverage(), torch.ones(768))


def test_coverage_is_the_share_of_slices_that_hold_a_frequency() -> None:
    """Counted: the frequencies within 4 degrees of a drawn view's plane, over those of uniform views."""
    views = seen_along([0.0, 0.0, 1.0])
    frequencies = views.directions[::16]

    def share(rotations: torch.Tensor) -> torch.Tensor:
        return ((frequencies @ rotations[:, :, 2].T).abs() < np.sin(np.radians(4))).float().mean(1)

    counted = share(views.draw(20000, generator())) / share(uniform_rotations(20000, generator()))
    assert correlation(views.coverage()[::16], counted) > 0.97
    assert (views.coverage()[::16] - counted).abs().mean() < 0.2  # it is smooth
