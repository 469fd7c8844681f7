"""Trainers and simulators that are built from a plan."""

from pathlib import Path

import numpy as np
import pytest
import torch

from builders import tiny
from cryogan.run.build import build_trainer
from cryogan.run.inputs import read_inputs


@pytest.mark.parametrize("noise", [True, False])
def test_the_seed_and_the_half_decide_the_map(critic: str, noise: bool, particles: Path) -> None:
    star, patches = particles / "particles.star", particles / "noise.star" if noise else None

    def map_of(half: int, seed: int) -> np.ndarray:
        plan, *_ = read_inputs(star, patches, None, tiny(critic, seed=seed))
        training = build_trainer(plan, 0, star, half)
        assert not training.volume.density.any()  # from zero
        assert len(list(training.run(until=3))) == 3
        return training.result().numpy()

    one = map_of(1, 0)
    np.testing.assert_array_equal(one, map_of(1, 0))
    assert not np.allclose(one, map_of(1, 1))
    assert not np.allclose(one, map_of(2, 0))


def test_critics_start_alike_only_if_asked(particles: Path) -> None:
    for shared in (True, False):
        plan, *_ = read_inputs(
            particles / "particles.star", None, None, tiny("wasserstein", shared_critic_start=shared)
        )
        critics = [build_trainer(plan, 0, plan.particles, half).critic for half in (1, 2)]
        weights = [torch.cat([p.flatten() for p in critic.parameters()]) for critic in critics]
        assert torch.equal(*weights) == shared
