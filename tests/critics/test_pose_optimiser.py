"""Poses refined and sampled, against poses that are known."""

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from cryogan.critics.matching.pose_optimiser import refine_poses, sample_poses
from cryogan.critics.matching.templates import Templates, shift_grid
from cryogan.rotations import super_fibonacci

if TYPE_CHECKING:
    from conftest import Experiment, Observe

BOX, PIXEL, MAX_SHIFT = 32, 4.0, 6.0


def degrees(first: Tensor, second: Tensor) -> Tensor:
    """Angles between rotations (B, 3, 3)."""
    traces = torch.einsum("bij,bij->b", first.double(), second.double())
    return ((traces - 1) / 2).clamp(-1, 1).acos().rad2deg()


def test_bank_and_optimiser_find_the_pose_of_an_image(experiment: "Experiment", observe: "Observe") -> None:
    count = 100
    coarse, images = observe(count, 9.0)
    bank = coarse.bank(torch.from_numpy(super_fibonacci(4608)).float(), shift_grid(MAX_SHIFT, 4.0, torch.device("cpu")))
    rotations, shifts, _ = bank.best(images)
    true = experiment.phi.rotations[:count], experiment.phi.shifts[:count]
    assert degrees(rotations, true[0]).median() < 10
    fine, images = observe(count, 16.0)
    refined, moved, ratio = refine_poses(fine, images, rotations, shifts, steps=8, max_turn=0.2, max_shift=MAX_SHIFT)
    right = degrees(refined, true[0]) < 3
    assert right.float().mean() > 0.9
    assert (moved - true[1])[right].abs().max() < 0.3 * PIXEL
    start = refine_poses(fine, images, rotations, shifts, steps=0, max_turn=0.2, max_shift=MAX_SHIFT)
    assert torch.equal(start[0], rotations)
    assert (ratio >= start[2]).all()


def test_poses_stay_where_the_map_is_empty(experiment: "Experiment", observe: "Observe") -> None:
    templates, images = observe(5, 9.0)
    projector = templates.projector
    empty = torch.zeros_like(projector.transform(experiment.truth))
    blank = Templates(projector, empty, templates.disc, torch.ones(BOX // 2 + 1), BOX * PIXEL)
    start = experiment.phi.rotations[:5], experiment.phi.shifts[:5]
    rotations, shifts, ratio = refine_poses(blank, images, *start, steps=3, max_turn=0.2, max_shift=MAX_SHIFT)
    assert torch.equal(rotations, start[0])
    assert torch.equal(shifts, start[1])
    assert not ratio.any()


def test_samples_are_as_far_from_the_best_pose_as_the_truth_is(experiment: "Experiment", observe: "Observe") -> None:
    # Three angles and two shifts: for a posterior like a Gaussian, the mean of both is 5 / 2 nats.
    count, samples = 100, 20
    templates, images = observe(count, 16.0)
    true = experiment.phi.rotations[:count], experiment.phi.shifts[:count]
    rotations, shifts, best = refine_poses(templates, images, *true, steps=8, max_turn=0.2, max_shift=2 * MAX_SHIFT)

    def ratio(rotations: Tensor, shifts: Tensor) -> Tensor:
        return refine_poses(templates, images, rotations, shifts, steps=0, max_turn=0.2, max_shift=MAX_SHIFT)[2]

    generator = torch.Generator().manual_seed(0)
    turned, moved, weights = sample_poses(templates, images, rotations, shifts, samples, generator, with_shifts=True)
    torch.testing.assert_close(weights.sum(1), torch.ones(count))
    beside = torch.stack([best - ratio(turned[:, i], moved[:, i]) for i in range(samples)], 1)
    assert (best - ratio(*true)).mean() == pytest.approx(2.5, abs=0.6)
    assert (weights * beside).sum(1).mean() == pytest.approx(2.5, abs=0.4)
    _, moved, _ = sample_poses(templates, images, rotations, shifts, samples, generator, with_shifts=False)
    assert torch.equal(moved, shifts[:, None].expand(-1, samples, -1))


def test_shifts_are_bounded(experiment: "Experiment", observe: "Observe") -> None:
    templates, images = observe(50, 12.0)
    start = experiment.phi.rotations[:50], torch.zeros(50, 2)
    _, shifts, _ = refine_poses(templates, images, *start, steps=3, max_turn=0.1, max_shift=1.0)
    assert shifts.abs().max() == pytest.approx(1.0)
    _, shifts, _ = refine_poses(templates, images, *start, steps=3, max_turn=0.1, max_shift=0.0)
    assert not shifts.any()
