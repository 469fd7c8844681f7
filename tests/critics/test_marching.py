"""Frequency marching, from maps that are known."""

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from cryogan.critics.matching.marching import FrequencyMarching, fsc_weight
from cryogan.critics.matching.schedule import marching_steps
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.projector import FourierProjector
from cryogan.physics.volume import Volume
from cryogan.rotations import uniform_rotations
from cryogan.validation import fsc

if TYPE_CHECKING:
    from conftest import Experiment

BOX, MAX_SHIFT = 32, 6.0


def coarse(truth: Tensor) -> Tensor:
    k = torch.fft.fftfreq(BOX, 1 / BOX)
    radius = (k[:, None, None] ** 2 + k[:, None] ** 2 + k[: BOX // 2 + 1] ** 2).sqrt()
    return torch.fft.irfftn(torch.fft.rfftn(truth) * (radius < 6), s=(BOX,) * 3)


def test_truth_is_a_fixed_point(experiment: "Experiment") -> None:
    """At equal distributions the critic is zero but for the sampling noise, though it looks from wrong views."""
    training = experiment.trainer(FrequencyMarching, 2)
    training.volume.start_from(experiment.truth)
    record, *_ = training.run(until=1)
    assert record["critic_auc"] == pytest.approx(0.5, abs=0.06)
    assert record["map_change"] < 0.05

    other = experiment.trainer(FrequencyMarching, 2)
    other.volume.start_from(0.5 * experiment.truth.flip(2))
    record, *_ = other.run(until=1)
    assert record["map_change"] > 0.2


def test_marching_brings_a_coarse_map_to_the_nyquist_frequency(experiment: "Experiment") -> None:
    training = experiment.trainer(FrequencyMarching, marching_steps(BOX, 3))
    training.volume.start_from(coarse(experiment.truth))
    records = list(training.run())
    assert len(records) == 6
    curve = fsc(training.result().numpy(), experiment.truth.numpy())
    assert curve[1:15].min() > 0.9
    # In the unit of the images, too.
    scale = (training.result() * experiment.truth).sum() / experiment.truth.square().sum()
    assert scale == pytest.approx(1.0, abs=0.1)
    assert training.distance < 0


def test_preferred_views_and_small_shifts_are_learned(preferred: "Experiment") -> None:
    maps, aucs = {}, {}
    for learn in (False, True):
        training = preferred.trainer(FrequencyMarching, marching_steps(BOX, 7), learn_poses=learn)
        training.volume.start_from(coarse(preferred.truth))
        *_, record = training.run()
        maps[learn] = fsc(training.result().numpy(), preferred.truth.numpy())
        aucs[learn] = record["critic_auc"]
    assert (1 - maps[True][1:15]).sum() < 0.9 * (1 - maps[False][1:15]).sum()
    assert abs(aucs[True] - 0.5) < abs(aucs[False] - 0.5)
    views = training.simulator.views
    true = views.counts(preferred.phi.rotations, torch.eye(3)[None])
    assert torch.corrcoef(torch.stack([views.density, true]))[0, 1] > 0.8
    assert training.simulator.shift_width == pytest.approx(MAX_SHIFT / 2, rel=0.3)


def test_a_prior_of_another_run_is_turned_onto_a_mirrored_map(preferred: "Experiment") -> None:
    """The other run has other particles, a frame and a hand of its own."""
    random = torch.Generator().manual_seed(11)
    views, seen = PoseDistribution(torch.device("cpu")), preferred.phi.rotations[:, :, 2]
    others = seen[torch.randint(len(seen), (400,), generator=random)]
    half_turn = torch.tensor([1.0, -1.0, -1.0])  # what mirroring in x does to the directions
    turned = others @ uniform_rotations(1, random)[0].T
    views.prior = views.mixture(turned, torch.full((400,), torch.nan), torch.ones(400))

    def training() -> FrequencyMarching:
        made = preferred.trainer(FrequencyMarching, marching_steps(BOX, 1))
        made.simulator.views = PoseDistribution(torch.device("cpu"), views.prior)
        return made

    first, second = training(), training()
    first.volume.start_from(torch.roll(coarse(preferred.truth).flip(2), 1, 2))
    list(first.run(until=1))
    true = views.mixture(seen * half_turn, torch.full((len(seen),), torch.nan), torch.ones(len(seen)))
    found = first.simulator.views
    assert found is not None
    assert torch.corrcoef(torch.stack([views.prior, true]))[0, 1] < 0.6
    assert torch.corrcoef(torch.stack([found.density, true]))[0, 1] > 0.8
    assert found.prior_fit > 0.8
    second.load_state_dict(first.state_dict())
    assert second.simulator.views is not None
    assert torch.equal(second.simulator.views.density, found.density)
    list(first.run(until=2))
    list(second.run(until=2))
    assert torch.equal(first.result(), second.result())


@pytest.mark.parametrize(("box", "steps"), [(16, 4), (32, 7), (64, 10), (192, 15)])
def test_marching_ends_with_steps_at_the_nyquist_frequency(box: int, steps: int) -> None:
    assert marching_steps(box, 4) == steps


@pytest.mark.parametrize(("noise", "expected"), [(0.0, 1.0), (1.0, 2 / 3), (2.0**0.5, 1 / 2)])
def test_fsc_weight_is_the_share_of_signal_in_the_sum_of_two_halves(noise: float, expected: float) -> None:
    """A signal of power 1 and noise of power s^2 in each half: r = 1 / (1 + s^2), and 2 r / (1 + r) = 2 / (2 + s^2)."""
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    back = BackProjector(FourierProjector(BOX, device=cpu), Volume(BOX, 15, "C1", cpu))
    signal, *noises = (torch.fft.rfftn(torch.randn(BOX, BOX, BOX, generator=generator)) for _ in range(3))
    halves = [signal + noise * other for other in noises]
    weight = fsc_weight(*halves, back)
    assert weight.shape == back.shell.shape
    outer = (back.shell > 8) & (back.shell < 16)
    assert weight[outer].mean() == pytest.approx(expected, abs=0.02)
    assert not fsc_weight(halves[0], -halves[0], back).any()
