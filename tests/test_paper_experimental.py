"""The recipe of the real-data experiment: a map without shifts, then only what is finer than it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan.config import resolve
from cryogan.critics import Stage
from cryogan.critics.wasserstein.trainer import Training
from cryogan.errors import InputError
from cryogan.run.build import build_trainer, start_from
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan
from cryogan.validation import fsc

FEW: dict[str, object] = {"critic_width": 4, "symmetry": "D2", "max_shift": 4.0, "free_beyond": 20.0, "threads": 1}


def planned(particles: Path, **changes: object) -> Plan:
    settings = resolve("paper-experimental", None, FEW | changes)
    return read_inputs(particles / "particles.star", particles / "noise.star", None, settings)[0]


def trained(plan: Plan, particles: Path, index: int, until: int | None = None) -> Training:
    training = build_trainer(plan, index, particles / "particles.star", 1)
    assert isinstance(training, Training)
    list(training.run(until))
    return training


def test_two_stages_of_8_and_12_epochs(particles: Path) -> None:
    plan = planned(particles)
    epoch = 200 / (8 * 4)  # of a half of 200 particles, a batch of 8 and 4 critic steps
    assert plan.stages == (Stage(32, round(8 * epoch), "stable"), Stage(32, round(12 * epoch), "convolutional"))
    shortened = planned(particles, steps=30)
    assert [stage.steps for stage in shortened.stages] == [20, 30]


def test_schedules_fall_a_share_every_epoch_in_both_stages(particles: Path) -> None:
    """8 epochs of 8 % and 2 %, then 12, each stage from the full values."""
    plan = planned(particles, steps=12)  # an epoch a step
    for index, epochs in ((0, 8), (1, 12)):
        training = build_trainer(plan, index, particles / "particles.star", 1)
        assert isinstance(training, Training)
        rates = training.critic_optimiser.param_groups[0]
        seen = [(rates["lr"], training.critic_input.smoothing) for _ in training.run()]
        assert len(seen) == epochs
        np.testing.assert_allclose([rate for rate, _ in seen], 1e-3 * 0.92 ** np.arange(epochs))
        np.testing.assert_allclose([width for _, width in seen], 2.548 * 0.98 ** np.arange(epochs))


def test_shifts_begin_with_the_second_stage_and_the_coarse_map_stays(particles: Path) -> None:
    plan = planned(particles, steps=12)
    stable = trained(plan, particles, 0)
    assert not stable.simulator.sample(50).shifts.any()
    fine = build_trainer(plan, 1, particles / "particles.star", 1)
    assert isinstance(fine, Training)
    start_from(fine, stable)
    assert 2 < fine.simulator.sample(50).shifts.abs().max() <= 4
    before = fine.result() / fine.simulator.log_signal.exp().detach()
    torch.testing.assert_close(before, stable.volume().detach(), atol=1e-5 * float(before.abs().max()), rtol=0)
    list(fine.run())
    after = fine.result() / fine.simulator.log_signal.exp().detach()
    curve = fsc(before.numpy(), after.numpy())
    shell = 32 * 4.0 / 20.0  # of 20 A
    np.testing.assert_allclose(curve[1 : int(shell)], 1, atol=1e-4)
    assert curve[int(shell) + 1 : 14].min() < 0.99
    # The state has the map that is kept: a resumed run goes on from it.
    again = build_trainer(plan, 1, particles / "particles.star", 1)
    again.load_state_dict(fine.state_dict())
    torch.testing.assert_close(again.result(), fine.result(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": "matching", "learn_scales": False}, "--smoothing needs --critic wasserstein"),
        ({"stable_epochs": 0.0}, "--free-beyond needs --stable-epochs"),
        ({"free_beyond": 7.0}, r"nothing finer than 8\.00 A\. Give a larger --box"),
    ],
)
def test_what_cannot_be_kept_apart_is_refused(changes: dict[str, object], message: str, particles: Path) -> None:
    with pytest.raises(InputError, match=message):
        planned(particles, **changes)
