"""The volume: from zero, masked, symmetric, clipped."""

import pytest
import torch
from torch import Tensor

from cryogan.physics.volume import Volume

CPU = torch.device("cpu")
BOX, RADIUS = 16, 6.0


def distance() -> Tensor:
    axis = torch.arange(BOX, dtype=torch.float32) - BOX // 2
    return (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()


def filled(group: str = "C1") -> Volume:
    volume = Volume(BOX, RADIUS, group, CPU)
    with torch.no_grad():
        volume.density.copy_(torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(4)))
    return volume


def test_starts_at_zero_and_is_learned() -> None:
    volume = Volume(BOX, RADIUS, "D2", CPU)
    assert not volume().any()
    assert [parameter.shape for parameter in volume.parameters()] == [(BOX, BOX, BOX)]


def test_is_zero_outside_the_sphere_and_untouched_inside() -> None:
    volume = filled()
    map = volume().detach()
    assert not map[distance() > RADIUS].any()
    inside = distance() <= RADIUS
    torch.testing.assert_close(map[inside], volume.density.detach()[inside])


def test_no_gradient_reaches_voxels_outside_the_sphere() -> None:
    volume = filled("D2")
    volume().square().sum().backward()
    assert volume.density.grad is not None
    assert not volume.density.grad[distance() > RADIUS].any()
    assert volume.density.grad[distance() <= RADIUS].any()


def test_is_symmetric_under_its_group() -> None:
    map = filled("D2")().detach()[1:, 1:, 1:]  # without the edge planes, the half turns are flips
    for axes in ((1, 2), (0, 2), (0, 1)):
        torch.testing.assert_close(map.flip(axes), map)


def test_clip_at_depth_0_is_positivity() -> None:
    volume = filled()
    before = volume.density.detach().clone()
    volume.clip(0.0)
    torch.testing.assert_close(volume.density.detach(), before.clamp(min=0) * (distance() <= RADIUS))


@pytest.mark.parametrize("depth", [0.1, 0.5])
def test_clip_bound_rises_from_the_centre_to_the_border(depth: float) -> None:
    volume = filled()
    with torch.no_grad():
        volume.density.fill_(-100.0)
        volume.density[8, 8, 10] = 3.0  # the maximum
    volume.clip(depth)
    density = volume.density.detach()
    assert density[8, 8, 10] == 3.0
    assert density[8, 8, 8].item() == pytest.approx(-depth * 3)
    assert density[8, 8, 5].item() == pytest.approx(-depth * 3 * 0.5)  # half way
    assert density[8, 2, 8].item() == pytest.approx(0, abs=1e-6)  # on the border
    assert not density[distance() > RADIUS].any()
    expected = -depth * 3 * (1 - distance() / RADIUS).clamp(min=0)
    expected[8, 8, 10] = 3.0
    torch.testing.assert_close(density, expected)


def test_clip_leaves_what_is_above_the_bound() -> None:
    volume = filled()
    volume.start_from(volume.density.detach())  # zero outside the sphere, as in a run
    volume.clip(0.2)
    once = volume.density.detach().clone()
    volume.clip(0.2)
    torch.testing.assert_close(volume.density.detach(), once, atol=0, rtol=0)


def test_clip_of_a_map_without_positive_density_gives_zero() -> None:
    volume = Volume(BOX, RADIUS, "C1", CPU)
    with torch.no_grad():
        volume.density.fill_(-1.0)
    volume.clip(0.3)
    assert not volume.density.any()


def test_start_from_takes_a_map_within_the_mask() -> None:
    volume = Volume(BOX, RADIUS, "C1", CPU)
    map = torch.rand(BOX, BOX, BOX, generator=torch.Generator().manual_seed(1))
    volume.start_from(map)
    torch.testing.assert_close(volume().detach(), map * (distance() <= RADIUS))
    assert volume.density.requires_grad


def soft_ball() -> Tensor:
    """1 to a radius of 3 pixels, 0 from 5 on, where the sphere of 6 is still 1."""
    return ((5 - distance()) / 2).clamp(0, 1)


def test_a_mask_bounds_the_map_in_place_of_the_sphere() -> None:
    volume = Volume(BOX, RADIUS, "D2", CPU, mask=soft_ball())
    with torch.no_grad():
        volume.density.copy_(torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(4)))
    map = volume().detach()
    assert not map[distance() >= 5].any()
    assert map[distance() < 5].all()
    torch.testing.assert_close(map, volume.symmetrise(volume.density.detach() * soft_ball()))


def test_a_soft_mask_is_multiplied_in_once_however_often_the_map_is_clipped() -> None:
    volume = Volume(BOX, RADIUS, "C1", CPU, mask=soft_ball())
    map = torch.rand(BOX, BOX, BOX, generator=torch.Generator().manual_seed(1))
    volume.start_from(map)
    for _ in range(5):
        volume.clip(0.1)
    torch.testing.assert_close(volume().detach(), map * soft_ball())


def test_a_mask_that_is_the_sphere_changes_no_bit() -> None:
    sphere, masked = filled("D2"), Volume(BOX, RADIUS, "D2", CPU, mask=(distance() <= RADIUS).float())
    masked.start_from(sphere.density.detach())
    for volume in (sphere, masked):
        volume.clip(0.1)
    torch.testing.assert_close(masked(), sphere(), atol=0, rtol=0)
