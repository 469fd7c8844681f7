"""The density over view directions: what is drawn from it, what it leaves unseen, and how it is learned."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from cryogan.physics.pose_distribution import CELLS, PoseDistribution
from cryogan.physics.projector import FourierProjector
from cryogan.physics.symmetry import point_group
from cryogan.rotations import uniform_rotations
from cryogan.validation import flip_hand

if TYPE_CHECKING:
    from conftest import Gaussians

CPU, NOTHING = torch.device("cpu"), torch.eye(3)[None]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def seen_along(axis: list[float], degrees: float = 20.0) -> PoseDistribution:
    """Nine views in ten come from within so many degrees of an axis."""
    views = PoseDistribution(CPU)
    near = views.directions @ torch.nn.functional.normalize(torch.tensor(axis), dim=0) > np.cos(np.radians(degrees))
    views.density.copy_(torch.where(near, 0.9 / near.sum(), 0.1 / (~near).sum()) * len(near))
    return views


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


def test_views_of_an_even_density_are_uniform_rotations() -> None:
    rotations = PoseDistribution(CPU).sample(20000, generator())
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-5, rtol=0)
    # E R_ij R_kl = delta_ik delta_jl / 3 on SO(3).
    moments = torch.einsum("nij,nkl->ijkl", rotations, rotations) / len(rotations)
    expected = torch.einsum("ik,jl->ijkl", torch.eye(3), torch.eye(3)) / 3
    torch.testing.assert_close(moments, expected, atol=0.02, rtol=0)


def test_views_follow_the_density_and_in_plane_angles_are_uniform() -> None:
    views = seen_along([1.0, 2.0, 2.0])
    rotations = views.sample(20000, generator())
    inside = (views.density > 1)[views.cells(rotations[:, :, 2])].float().mean()
    assert inside == pytest.approx(0.9, abs=0.02)
    in_plane = torch.atan2(rotations[:, 2, 1], -rotations[:, 2, 0])
    assert abs(torch.exp(1j * in_plane).mean()) < 0.02


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2"])
def test_counts_are_the_same_for_equal_views(symmetry: str) -> None:
    group = torch.from_numpy(point_group(symmetry)).float()
    views, rotations = PoseDistribution(CPU), uniform_rotations(50, generator())
    for element in group:
        torch.testing.assert_close(views.counts(element @ rotations, group), views.counts(rotations, group))


def test_the_density_is_learned_from_views_that_are_off_by_degrees() -> None:
    true, learned, random = seen_along([1.0, 0.0, 1.0]), PoseDistribution(CPU), generator()

    def look(rotations: torch.Tensor) -> torch.Tensor:
        turns = 0.1 * torch.randn(len(rotations), 3, generator=random)
        return rotations @ torch.linalg.matrix_exp(
            torch.stack([torch.linalg.cross(turn.expand(3, 3), torch.eye(3)) for turn in turns])
        )

    for _ in range(5):
        learned.learn(look(true.sample(2000, random)), look(learned.sample(2000, random)), NOTHING)
    assert correlation(learned.density, true.density) > 0.9
    assert learned.density.mean() == pytest.approx(1.0, abs=1e-4)


def test_equal_views_change_nothing_but_what_is_smoothed() -> None:
    views, rotations = seen_along([0.0, 1.0, 0.0]), uniform_rotations(1000, generator())
    before = views.density.clone()
    views.learn(rotations, rotations, NOTHING)
    assert correlation(views.density, before) > 0.95
    even = PoseDistribution(CPU)
    even.learn(rotations, rotations, NOTHING)
    torch.testing.assert_close(even.density, torch.ones(768), atol=0.05, rtol=0)


def test_even_views_cover_every_frequency_alike() -> None:
    torch.testing.assert_close(PoseDistribution(CPU).coverage(), torch.ones(768))


def test_coverage_is_the_share_of_slices_that_hold_a_frequency() -> None:
    """Counted: the frequencies within 4 degrees of a drawn view's plane, over those of uniform views."""
    views = seen_along([0.0, 0.0, 1.0])
    frequencies = views.directions[::16]

    def share(rotations: torch.Tensor) -> torch.Tensor:
        return ((frequencies @ rotations[:, :, 2].T).abs() < np.sin(np.radians(4))).float().mean(1)

    counted = share(views.sample(20000, generator())) / share(uniform_rotations(20000, generator()))
    assert correlation(views.coverage()[::16], counted) > 0.97
    assert (views.coverage()[::16] - counted).abs().mean() < 0.2  # it is smooth


def test_a_mixture_has_its_components_weights_whatever_their_width() -> None:
    views = PoseDistribution(CPU)
    directions = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, 3.0], [-2.0, 1.0, 0.0]]), dim=1)
    for kappa in (30.0, 1e5):  # the second far narrower than a cell
        density = views.mixture(directions, torch.full((2,), kappa), torch.tensor([3.0, 1.0]))
        first = (views.directions @ directions.T).argmax(1) == 0
        assert density.mean() == pytest.approx(1.0, abs=1e-4)
        assert density[first].sum() / density.sum() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(
        views.mixture(directions, torch.full((2,), 1e-6), torch.ones(2)), torch.ones(CELLS), atol=1e-3, rtol=0
    )
    # exp(kappa cos), between 0 and 30 degrees of the axis.
    one = views.mixture(views.directions[:1], torch.full((1,), 5.0), torch.ones(1))
    cosine = views.directions @ views.directions[0]
    near = cosine > np.cos(np.radians(30))
    torch.testing.assert_close((one / one[0]).log()[near], 5 * (cosine - 1)[near], atol=1e-4, rtol=0)


def test_poses_without_a_concentration_are_smoothed_as_counts() -> None:
    views, rotations = PoseDistribution(CPU), seen_along([1.0, 1.0, 0.0]).sample(2000, generator())
    mixture = views.mixture(rotations[:, :, 2], torch.full((2000,), torch.nan), torch.ones(2000))
    assert correlation(mixture, views.counts(rotations, NOTHING)) > 0.99


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_a_prior_in_another_frame_is_turned_onto_the_views(symmetry: str) -> None:
    group, random = torch.from_numpy(point_group(symmetry)).float(), generator()
    seen = torch.cat([seen_along(axis).sample(400, random) for axis in ([1.0, 2.0, 3.0], [-2.0, 1.0, 0.5])])
    others = torch.cat([seen_along(axis).sample(400, random) for axis in ([1.0, 2.0, 3.0], [-2.0, 1.0, 0.5])])
    turn, views = uniform_rotations(1, random), PoseDistribution(CPU)
    views.prior = views.mixture((turn @ others)[:, :, 2], torch.full((800,), torch.nan), torch.ones(800))
    views.turn_prior(seen, uniform_rotations(800, random), group, random)
    true = views.counts(seen, group)
    assert correlation(views.prior, true) < 0.5
    assert correlation(views.density, true) > 0.9
    assert views.prior_fit > 0.9
    assert views.density.mean() == pytest.approx(1.0, abs=1e-4)


def test_mirrored_maps_need_no_mirrored_prior(gaussians: "Gaussians") -> None:
    """Equal images of a map and its mirror image: their directions differ by a half-turn, which is a rotation."""
    box, projector = 32, FourierProjector(32, device=CPU, dtype=torch.float64)
    volume = gaussians.volume(box)
    mirrored = torch.from_numpy(flip_hand(volume.numpy()).copy())
    rotations = uniform_rotations(5, generator(), torch.float64)
    mirror, seen_mirrored = (
        torch.diag(torch.tensor([-1.0, 1, 1])).double(),
        torch.diag(torch.tensor([1.0, 1, -1])).double(),
    )
    equal = mirror @ rotations @ seen_mirrored
    images = projector(volume, rotations)
    torch.testing.assert_close(projector(mirrored, equal), images, atol=0.02 * float(images.max()), rtol=0)
    assert (projector(mirrored, rotations) - images).abs().max() > 0.2 * images.max()
    half_turn = torch.diag(torch.tensor([1.0, -1, -1])).double()
    torch.testing.assert_close(equal[:, :, 2], rotations[:, :, 2] @ half_turn)
    assert torch.linalg.det(half_turn) == 1
