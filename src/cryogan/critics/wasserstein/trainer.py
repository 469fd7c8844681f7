"""Algorithm 1: the critic and the volume learn in turns."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cryogan.config import Settings
from cryogan.critics.critic import Trainer
from cryogan.critics.micro_batch import MicroBatch
from cryogan.critics.read_ahead import Images
from cryogan.critics.records import Record
from cryogan.critics.sampler import Sampler
from cryogan.critics.wasserstein import schedules
from cryogan.critics.wasserstein.critic_input import View
from cryogan.critics.wasserstein.discriminator import Discriminator
from cryogan.critics.wasserstein.losses import critic_loss, gradient_penalty, interpolate, volume_loss
from cryogan.parallel.ranks import ALONE, Ranks
from cryogan.physics.noise import random_turns
from cryogan.physics.simulator import Simulator
from cryogan.physics.volume import Volume

GAP_MEMORY = 100  # steps


class Training(Trainer):
    """One half map's run at one box.

    Args:
        settings: of the run.
        steps: volume updates.
        images: the real particles of this half.
        simulator, volume, critic: what is trained; the simulator's particles are the rows of `images`.
        signal: s.d. of the particles' signal over that of their noise; over the box, about that of a voxel,
            it is the unit of the volume's learning rate.
        seed: of the order of the particles.
        span: volume updates over which the schedules run; default: `steps`.
        ranks: the processes that share each batch.
    """

    def __init__(
        self,
        settings: Settings,
        steps: int,
        images: Images,
        simulator: Simulator,
        volume: Volume,
        critic: Discriminator,
        signal: float,
        seed: int,
        span: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.settings, self.steps, self._span = settings, steps, span or steps
        self.ranks, self._part = ranks, ranks.part(settings.batch_size)
        self.simulator, self.volume, self.critic, self.signal = simulator, volume, critic, signal
        self.view = View(settings, simulator, critic.planes)
        device = simulator.generator.device
        self.particles = Sampler(images, settings.batch_size, torch.Generator().manual_seed(seed), device)
        adam: dict[str, Any] = {"betas": (0.5, 0.9), "eps": 1e-8, "fused": True}
        self.critic_optimiser = torch.optim.Adam(critic.parameters(), lr=settings.critic_rate, **adam)
        scales = [simulator.log_signal, simulator.log_noise] if settings.learn_scales else []
        groups = [
            {"params": [volume.density], "lr": settings.volume_rate * signal / volume.density.shape[0]},
            {"params": scales, "lr": settings.scale_rate},
        ]
        self.volume_optimiser = torch.optim.Adam(groups, **adam)
        self._optimisers = (self.critic_optimiser, self.volume_optimiser)
        self._full_rates = [[group["lr"] for group in o.param_groups] for o in self._optimisers]
        self.micro_batch = MicroBatch(settings.batch_size)
        self.step = 0
        self.critic_step = 0
        self.seconds = 0.0
        # Running mean of the critic's gap: an estimate of the distance of the distributions.
        self.distance: float | Tensor = 0.0

    def run(self, until: int | None = None) -> Iterator[Record]:
        """Train to step `until` (default: the end), yielding a record after each volume update."""
        s, simulator, critic = self.settings, self.simulator, self.critic
        while self.step < (self.steps if until is None else until):
            start = time.perf_counter()
            t = self.step / self._span
            clip = schedules.rising_clip((self.step + 1) / self._span, s.clip_ramp)
            self._set_rates(schedules.falling_rate(t, s.hold_rate, s.final_rate))
            self.view.smoothing = s.smoothing * schedules.falling_rate(t, 0.0, s.final_smoothing)

            with torch.no_grad():
                spectrum = simulator.projector.transform(self.volume())
            # A new critic knows nothing yet: the volume waits for it.
            for _ in range(s.critic_steps if self.step else s.critic_warmup):
                with torch.no_grad():
                    real, simulated = self._real(), self._simulate(spectrum)
                    penalised = self.critic_step % s.penalty_every == 0
                    between = interpolate(real, simulated, self._places()) if penalised else None
                real_scores, simulated_scores = self.micro_batch.run(
                    partial(self._critic_gradient, real, simulated, between)
                )
                self.ranks.sum_gradients(critic.parameters())
                nn.utils.clip_grad_norm_(critic.parameters(), clip * s.critic_clip)
                self.critic_optimiser.step()
                self.critic_step += 1

            before = self.volume.density.detach().clone()
            spectrum = simulator.projector.transform(self.volume())
            images = self._simulate(spectrum)
            critic.requires_grad_(False)
            gradient = self.micro_batch.run(partial(self._image_gradient, images.detach()))
            critic.requires_grad_(True)
            self.volume_optimiser.zero_grad()
            images.backward(gradient)  # type: ignore[no-untyped-call]
            self.ranks.sum_gradients(p for group in self.volume_optimiser.param_groups for p in group["params"])
            nn.utils.clip_grad_value_([self.volume.density], clip * s.volume_clip)
            if s.learn_scales and s.scale_clip is not None:
                nn.utils.clip_grad_value_([simulator.log_signal, simulator.log_noise], s.scale_clip)
            self.volume_optimiser.step()
            self.volume.clip(schedules.clip_depth(t, s.clip_depth))

            self.step += 1
            scores = self.ranks.gather(torch.stack([real_scores, simulated_scores]), s.batch_size)
            self.seconds += time.perf_counter() - start
            yield self._record(scores[0], scores[1], before)

    @torch.no_grad()
    def result(self) -> Tensor:
        """The map so far, (D, D, D): masked, symmetric, in the unit of the images."""
        result: Tensor = self.volume() * self.simulator.log_signal.exp()
        return result

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "step": self.step,
            "critic_step": self.critic_step,
            "seconds": self.seconds,
            "distance": float(self.distance),
            "volume": self.volume.state_dict(),
            "simulator": self.simulator.state_dict(),
            "critic": self.critic.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "particles": self.particles.state_dict(),
            "generator": self.simulator.generator.get_state(),
            "host_generator": self.simulator.host_generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.critic_step = state["step"], state["critic_step"]
        self.seconds, self.distance = state["seconds"], state["distance"]
        self.volume.load_state_dict(state["volume"])
        self.simulator.load_state_dict(state["simulator"])
        self.critic.load_state_dict(state["critic"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.particles.load_state_dict(state["particles"])
        self.simulator.generator.set_state(state["generator"].cpu())
        self.simulator.host_generator.set_state(state["host_generator"].cpu())

    def _critic_gradient(
        self, real: Tensor, simulated: Tensor, between: Tensor | None, size: int
    ) -> tuple[Tensor, Tensor]:
        """Leave these images' part of the gradient of (10) in the critic, `size` at a time; the scores, (B,) each."""
        s = self.settings
        self.critic_optimiser.zero_grad()
        scores: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(real), size):
            part = slice(start, start + size)
            with self._autocast():
                real_scores, simulated_scores = self.critic(real[part]), self.critic(simulated[part])
                loss = critic_loss(real_scores, simulated_scores)
                if between is not None:
                    loss = loss + s.penalty * s.penalty_every * gradient_penalty(self.critic, between[part])
            (loss * (len(real_scores) / s.batch_size)).backward()  # type: ignore[no-untyped-call]
            scores.append((real_scores.detach(), simulated_scores.detach()))
        first, second = zip(*scores, strict=True)
        return torch.cat(first), torch.cat(second)

    def _image_gradient(self, images: Tensor, size: int) -> Tensor:
        """Gradient of (13) with respect to the images, (B, D, D), by parts of `size`."""
        gradients = []
        for part in torch.split(images, size):
            part = part.detach().requires_grad_()
            with self._autocast():
                loss = volume_loss(self.critic(part)) * (len(part) / self.settings.batch_size)
            gradients.append(torch.autograd.grad(loss, part)[0])
        return torch.cat(gradients)

    def _real(self) -> Tensor:
        """This process's part of the next batch of particles, as the critic sees it."""
        return self.view(*self.particles.load(self.particles.rows(), self._part), self._turns())

    def _simulate(self, spectrum: Tensor) -> Tensor:
        """The same of a batch drawn from p(y|x)."""
        phi = self.simulator.sample(self.settings.batch_size)[self._part]
        return self.view(self.simulator(spectrum, phi), phi.particles, self._turns())

    def _turns(self) -> Tensor:
        return random_turns(self.settings.batch_size, self.simulator.generator)[self._part]

    def _places(self) -> Tensor:
        generator = self.simulator.generator
        return torch.rand(self.settings.batch_size, generator=generator, device=generator.device)[self._part]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.simulator.generator.device.type, torch.bfloat16, enabled=self.settings.bf16)

    def _set_rates(self, factor: float) -> None:
        for optimiser, rates in zip(self._optimisers, self._full_rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor

    def _record(self, real_scores: Tensor, simulated_scores: Tensor, before: Tensor) -> Record:
        density = self.volume.density.detach()
        gap = real_scores.mean() - simulated_scores.mean()
        self.distance = self.distance + (gap - self.distance) / min(self.step, GAP_MEMORY)
        return Record(
            self.step,
            self.seconds / 60.0,
            critic_gap=gap,
            critic_auc=(real_scores[:, None] > simulated_scores).float().mean(),
            signal_scale=self.simulator.log_signal.detach().exp(),
            noise_scale=self.simulator.log_noise.detach().exp(),
            map_change=(density - before).norm() / density.norm().clamp(min=1e-12),
        )
