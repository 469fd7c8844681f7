"""The base of all trainers, with a critic as a user would write it: an `update`, and what it depends on."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cryogan.config import Settings
from cryogan.critics.read_ahead import HeldImages
from cryogan.critics.trainer import IterativeTrainer
from cryogan.physics.volume import Volume

if TYPE_CHECKING:
    from conftest import Experiment

BOX = 32


class MeanPower(IterativeTrainer):
    """A critic that scores an image by its power near the centre; the map's power follows the particles'."""

    def __init__(self, experiment: "Experiment", seed: int = 0) -> None:
        simulator, volume = experiment.simulator(600, seed + 1), Volume(BOX, 15, "C1", torch.device("cpu"))
        images = HeldImages(experiment.images.numpy())
        settings = Settings(batch_size=20)
        super().__init__(settings, 6, images, simulator, volume, signal=1.0, batch_size=20, order_seed=seed)
        volume.start_from(0.3 * experiment.truth)
        self.rate = 0.2

    def update(self) -> tuple[Tensor, Tensor]:
        real, _ = self.particles.load(self.particles.rows())
        with torch.no_grad():
            spectrum = self.simulator.projector.transform(self.volume())
            simulated = self.simulator(spectrum, self.simulator.sample(len(real)))
            scores = real.square().mean((1, 2)), simulated.square().mean((1, 2))
            gap = scores[0].mean() - scores[1].mean()
            self.volume.density.mul_(1 + self.rate * gap.clamp(-1, 1))
            self.rate *= 0.9
        self.distance = gap.abs()
        return scores

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rate": self.rate}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rate = state["rate"]


def test_a_trainer_is_its_update(experiment: "Experiment") -> None:
    trainer = MeanPower(experiment)
    first = float(trainer.result().square().sum())
    records = list(trainer.run())
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[0]["critic_auc"] > 0.9
    assert records[-1]["critic_gap"] < records[0]["critic_gap"]
    assert float(trainer.result().square().sum()) > first
    assert all(np.isfinite(value) for record in records for value in record.values())
    assert trainer.class_result() is None
    assert list(trainer.run()) == []


def test_a_trainer_continues_from_its_state(experiment: "Experiment") -> None:
    whole, first, second = MeanPower(experiment), MeanPower(experiment), MeanPower(experiment, seed=5)
    list(whole.run())
    list(first.run(until=2))
    second.load_state_dict(first.state_dict())
    assert second.step == 2
    list(second.run())
    assert torch.equal(whole.result(), second.result())
    assert whole.distance == second.distance
