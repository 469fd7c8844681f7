"""Averages of particles by view."""

import numpy as np
import pytest
import torch

from cryogan.fourier import to_half_planes
from cryogan.models.phantom import phantom
from cryogan.physics.projector import FourierProjector
from cryogan.physics.shifts import shift
from cryogan.physics.symmetry import point_group
from cryogan.refinement.view_averages import REACH, ViewAverages, spread_views, turned_in_plane
from cryogan.rotations import small_rotations, uniform_rotations

BOX, PIXEL = 32, 4.0
CPU = torch.device("cpu")
D2 = torch.from_numpy(point_group("D2")).float()


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(np.corrcoef(first.flatten(), second.flatten())[0, 1])


def test_a_quarter_turn_brings_x_to_y() -> None:
    image = torch.zeros(1, 16, 16)
    image[0, 8, 12] = 1  # at x = 4
    turned = turned_in_plane(image, torch.tensor([torch.pi / 2]))
    assert turned[0, 12, 8] == pytest.approx(1, abs=1e-5)
    assert turned.sum() == pytest.approx(1, abs=1e-4)


def test_views_are_far_from_each_other_up_to_symmetry() -> None:
    views = spread_views(uniform_rotations(500, torch.Generator().manual_seed(0)), D2, 6)
    cosines = torch.einsum("vi,gij,wj->gvw", views[..., 2], D2, views[..., 2]).amax(0) - 2 * torch.eye(6)
    assert cosines.max() < np.cos(REACH)


def test_shifted_and_turned_images_of_symmetric_views_average_to_the_projection() -> None:
    generator = torch.Generator().manual_seed(1)
    volume = torch.from_numpy(phantom(BOX, PIXEL, 1)).float()
    projector = FourierProjector(BOX, device=CPU)
    views = spread_views(uniform_rotations(100, generator), D2, 4)
    averages = ViewAverages(views, D2, 2, BOX, PIXEL)
    count = 40
    psi = torch.rand(count, generator=generator) * 2 * torch.pi
    axis = torch.stack([0 * psi, 0 * psi, psi], 1)
    view = torch.arange(count) % 4
    near = small_rotations(torch.randn(count, 3, generator=generator) * 0.03)
    rotations = D2[torch.arange(count) % 3] @ views[view] @ near @ small_rotations(axis)
    shifts = 8 * torch.rand(count, 2, generator=generator)
    transfer = torch.full((count, BOX, BOX // 2 + 1), -0.5)
    half_planes = shift(to_half_planes(projector(volume, rotations)), shifts, PIXEL) * transfer
    averages.add(half_planes, transfer, rotations, shifts, torch.arange(count) // (count // 2))
    assert averages.counts.sum() == count
    assert (averages.counts == count // 8).all()
    projections = projector(volume, views)
    expected = averages.expected(projections, 12.0)
    for of_set in averages.images(12.0):
        for image, model in zip(of_set, expected, strict=True):
            assert correlation(image, model) > 0.97
            assert float(image.std()) == pytest.approx(float(model.std()), rel=0.1)
    assert correlation(expected[0], expected[1]) < 0.9  # the views do differ


def test_images_of_far_views_and_averages_of_few_images_are_left_out() -> None:
    view = torch.eye(3)[None]
    averages = ViewAverages(view, torch.eye(3)[None], 1, BOX, PIXEL)
    far = small_rotations(torch.tensor([[REACH + 0.05, 0.0, 0.0], [REACH - 0.05, 0.0, 0.0]]))
    ones = torch.ones(2, BOX, BOX // 2 + 1)
    averages.add(ones + 0j, ones, far, torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))
    assert averages.counts.item() == 1
    assert not averages.images(12.0).any()
