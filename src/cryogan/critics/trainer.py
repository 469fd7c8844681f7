"""What the trainers of all critics share: the loop over volume updates, its records, and the state of a checkpoint."""

import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cryogan.config import Settings
from cryogan.critics.critic import Trainer
from cryogan.critics.micro_batch import MicroBatch
from cryogan.critics.read_ahead import Images
from cryogan.critics.records import Record
from cryogan.critics.sampler import Sampler
from cryogan.parallel.ranks import ALONE, Ranks
from cryogan.physics.simulator import Simulator
from cryogan.physics.volume import Volume


class IterativeTrainer(Trainer):
    """Training of one half map at one stage, one volume update after the other; derived classes give `update`.

    What `update` depends on besides volume, simulator and particles has to be added to `state_dict`.

    Args:
        settings: Settings of the run.
        steps: Number of volume updates.
        images: Real particles of this half.
        simulator: Simulator of images like them; its particles are the rows of `images`.
        volume: Volume that is learned.
        signal: Standard deviation of the particles' signal over that of their noise.
        batch_size: Number of images that are read at once.
        images_at_once: Number of images that are processed at once, as long as memory lasts; default: `batch_size`.
        order_seed: Seed of the order of the particles.
        ranks: Processes that share the images.
    """

    def __init__(
        self,
        settings: Settings,
        steps: int,
        images: Images,
        simulator: Simulator,
        volume: Volume,
        *,
        signal: float,
        batch_size: int,
        order_seed: int,
        images_at_once: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.settings, self.steps, self.ranks = settings, steps, ranks
        self.simulator, self.volume, self.signal = simulator, volume, signal
        self.device = simulator.generator.device
        self.particles = Sampler(images, batch_size, torch.Generator().manual_seed(order_seed), self.device)
        self.micro_batch = MicroBatch(images_at_once or batch_size)
        self.step = 0
        self.seconds = 0.0
        self.distance: float | Tensor = 0.0

    @abstractmethod
    def update(self) -> tuple[Tensor, Tensor]:
        """Update the volume once, and `distance` with it.

        Returns:
            The critic's scores of real and of simulated images, (B,) each, for the record.
        """

    def run(self, until: int | None = None) -> Iterator[Record]:
        """Train to step `until` (default: the end), yielding a record after each volume update."""
        last = self.steps if until is None else until
        while self.step < last:
            start = time.perf_counter()
            before = self.volume.density.detach().clone()
            real, simulated = self.update()
            self.step += 1
            self.seconds += time.perf_counter() - start
            yield self._record(real, simulated, before)

    @torch.no_grad()
    def result(self) -> Tensor:
        """Return the current map (D, D, D): masked, symmetric, in the unit of the images."""
        result: Tensor = self.volume() * self.simulator.log_signal.exp()
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "distance": float(self.distance),
            "volume": self.volume.state_dict(),
            "particles": self.particles.state_dict(),
            "simulator": self.simulator.state_dict(),
            "generator": self.simulator.generator.get_state(),
            "host_generator": self.simulator.host_generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        self.step, self.seconds, self.distance = state["step"], state["seconds"], state["distance"]
        self.volume.load_state_dict(state["volume"])
        self.particles.load_state_dict(state["particles"])
        self.simulator.load_state_dict(state["simulator"])
        self.simulator.generator.set_state(state["generator"].cpu())
        self.simulator.host_generator.set_state(state["host_generator"].cpu())

    def _record(self, real: Tensor, simulated: Tensor, before: Tensor) -> Record:
        density = self.volume.density.detach()
        return Record(
            self.step,
            self.seconds / 60.0,
            critic_gap=real.mean() - simulated.mean(),
            critic_auc=(real[:, None] > simulated).float().mean(),
            signal_scale=self.simulator.log_signal.detach().exp(),
            noise_scale=self.simulator.log_noise.detach().exp(),
            map_change=(density - before).norm() / density.norm().clamp(min=1e-12),
        )
