"""Algorithm 1 of the paper: the convolutional critic and the volume are trained in turns."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cryogan.config import Settings
from cryogan.critics.read_ahead import Images
from cryogan.critics.trainer import IterativeTrainer
from cryogan.critics.wasserstein import schedules
from cryogan.critics.wasserstein.critic_input import CriticInput
from cryogan.critics.wasserstein.discriminator import Discriminator
from cryogan.critics.wasserstein.losses import critic_loss, gradient_penalty, interpolate, volume_loss
from cryogan.parallel.ranks import ALONE, Ranks
from cryogan.physics.noise import random_turns
from cryogan.physics.simulator import Simulator
from cryogan.physics.volume import Volume

GAP_MEMORY = 100  # steps over which the critic's gap is averaged


class WassersteinTrainer(IterativeTrainer):
    """Training of one half map at one box with the paper's critic.

    `distance` is the running mean of the critic's gap, an estimate of the Wasserstein distance.

    Args:
        settings: Settings of the run.
        steps: Number of volume updates.
        images: Real particles of this half.
        simulator: Simulator of images like them; its particles are the rows of `images`.
        volume: Volume that is learned.
        critic: Critic that is trained; any module from images (B, D, D) to scores (B,) with a number of `planes`.
        signal: Standard deviation of the particles' signal over that of their noise. Over the box, about that of a
            voxel, it is the unit of the volume's learning rate.
        seed: Seed of the order of the particles.
        span: Number of volume updates over which the schedules run; default: `steps`.
        ranks: Processes that share each batch.
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
        super().__init__(
            settings,
            steps,
            images,
            simulator,
            volume,
            signal=signal,
            batch_size=settings.batch_size,
            order_seed=seed,
            ranks=ranks,
        )
        self._span, self._part = span or steps, ranks.part(settings.batch_size)
        self.critic, self.critic_input = critic, CriticInput(settings, simulator, critic.planes)
        adam: dict[str, Any] = {"betas": (0.5, 0.9), "eps": 1e-8, "fused": True}
        self.critic_optimiser = torch.optim.Adam(critic.parameters(), lr=settings.critic_rate, **adam)
        self._scales = [simulator.log_signal, simulator.log_noise] if settings.learn_scales else []
        groups: list[dict[str, Any]] = [
            {"params": [volume.density], "lr": settings.volume_rate * signal / volume.density.shape[0]},
            {"params": self._scales, "lr": settings.scale_rate},
        ]
        self.volume_optimiser = torch.optim.Adam(groups, **adam)
        self._optimisers = (self.critic_optimiser, self.volume_optimiser)
        self._full_rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in self._optimisers]
        self.critic_step = 0

    def update(self) -> tuple[Tensor, Tensor]:
        """Make one pass of Algorithm 1: train the critic for some steps, then update the volume once."""
        s = self.settings
        progress = self.step / self._span
        clip = schedules.rising_clip((self.step + 1) / self._span, s.clip_ramp)
        self._set_rates(schedules.falling_rate(progress, s.hold_rate, s.final_rate))
        self.critic_input.smoothing = s.smoothing * schedules.falling_rate(progress, 0.0, s.final_smoothing)

        with torch.no_grad():
            spectrum = self.simulator.projector.transform(self.volume())
        # A new critic knows nothing yet: the volume waits for it.
        for _ in range(s.critic_steps if self.step else s.critic_warmup):
            scores = self._train_critic(spectrum, clip)
        self._train_volume(clip)
        self.volume.clip(schedules.clip_depth(progress, s.clip_depth))

        real, simulated = self.ranks.gather(torch.stack(scores), s.batch_size)
        gap = real.mean() - simulated.mean()
        self.distance = self.distance + (gap - self.distance) / min(self.step + 1, GAP_MEMORY)
        return real, simulated

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return super().state_dict() | {
            "critic_step": self.critic_step,
            "critic": self.critic.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        super().load_state_dict(state)
        self.critic_step = state["critic_step"]
        self.critic.load_state_dict(state["critic"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)

    def _train_critic(self, spectrum: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """Descend (10) by one step; returns the scores of this process's real and simulated images, (B,) each."""
        with torch.no_grad():
            real, simulated = self._real(), self._simulated(spectrum)
            penalised = self.critic_step % self.settings.penalty_every == 0
            between = interpolate(real, simulated, self._places()) if penalised else None
        scores = self.micro_batch.run(partial(self._critic_gradient, real, simulated, between))
        self.ranks.sum_gradients(self.critic.parameters())
        nn.utils.clip_grad_norm_(self.critic.parameters(), clip * self.settings.critic_clip)
        self.critic_optimiser.step()
        self.critic_step += 1
        return scores

    def _train_volume(self, clip: float) -> None:
        """Descend (13) by one step of volume and scales."""
        s = self.settings
        images = self._simulated(self.simulator.projector.transform(self.volume()))
        self.critic.requires_grad_(False)
        gradient = self.micro_batch.run(partial(self._image_gradient, images.detach()))
        self.critic.requires_grad_(True)
        self.volume_optimiser.zero_grad()
        images.backward(gradient)  # type: ignore[no-untyped-call]
        self.ranks.sum_gradients(self._volume_parameters())
        nn.utils.clip_grad_value_([self.volume.density], clip * s.volume_clip)
        if self._scales and s.scale_clip is not None:
            nn.utils.clip_grad_value_(self._scales, s.scale_clip)
        self.volume_optimiser.step()

    def _critic_gradient(
        self, real: Tensor, simulated: Tensor, between: Tensor | None, size: int
    ) -> tuple[Tensor, Tensor]:
        """Leave these images' part of the gradient of (10) in the critic, `size` at a time; returns the scores."""
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
        """Return the gradient of (13) with respect to the images, (B, D, D), computed `size` at a time."""
        gradients = []
        for part in torch.split(images, size):
            part = part.detach().requires_grad_()
            with self._autocast():
                loss = volume_loss(self.critic(part)) * (len(part) / self.settings.batch_size)
            gradients.append(torch.autograd.grad(loss, part)[0])
        return torch.cat(gradients)

    def _real(self) -> Tensor:
        """Return this process's part of the next batch of particles, as the critic sees it."""
        return self.critic_input(*self.particles.load(self.particles.rows(), self._part), self._turns())

    def _simulated(self, spectrum: Tensor) -> Tensor:
        """Return this process's part of a batch sampled from p(y|x), as the critic sees it."""
        phi = self.simulator.sample(self.settings.batch_size)[self._part]
        return self.critic_input(self.simulator(spectrum, phi), phi.particles, self._turns())

    def _turns(self) -> Tensor:
        return random_turns(self.settings.batch_size, self.simulator.generator)[self._part]

    def _places(self) -> Tensor:
        return torch.rand(self.settings.batch_size, generator=self.simulator.generator, device=self.device)[self._part]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16)

    def _volume_parameters(self) -> Iterable[Tensor]:
        return (parameter for group in self.volume_optimiser.param_groups for parameter in group["params"])

    def _set_rates(self, factor: float) -> None:
        for optimiser, rates in zip(self._optimisers, self._full_rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor


Training = WassersteinTrainer  # its public name, `cryogan.Training`
