"""The initial search for molecules with the symmetry of a polyhedron (T, O, I): with it, and to finer detail.

Such molecules are nearly balls at the frequencies of `InitialSearch`: all views look alike there, and what real images
have beyond map and noise (their contrast and background vary) is taken for views. Four things differ here. The volume
has its symmetry from zero. Its density is positive in the first steps only: without them most trials end in maps that
explain the images nearly as well as the right one, and with them to the end the map cannot follow the images. The noise
of each shell is what the map leaves of the images, if that is more than the noise of the background. And each step is
one of expectation-maximisation over all images: in (iii) of docs/method.md the simulated images are replaced by what is
expected of them at the poses of the real ones, sum_g a_g C^2 P_g* P_g x.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cryogan.critics.critic import TrainerInputs
from cryogan.critics.matching.critic import optimal_critic
from cryogan.critics.matching.schedule import symmetric_cutoff, symmetric_share
from cryogan.critics.matching.templates import (
    Observed,
    TemplateBank,
    Templates,
    precision,
    rounded_products,
    rows_in_cache,
    shift_grid,
    softmax,
)
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE, RECORDED, MatchingTrainer
from cryogan.fourier import Disc

FIRST_SHELL = 6  # below, images differ more by contrast and background than views do: left out of the attention
SHIFTS = 3.0  # in-plane shifts that are tried in a wave of the cut-off
MOMENTUM = 0.5
POSITIVE = 0.25  # of a trial's steps, in which negative density is set to zero
DISTANCE_MEMORY = 6  # steps over which the distance is averaged
TRIAL_IMAGES = 2000  # of a step of a trial, at most


class SymmetricSearch(MatchingTrainer):
    """Expectation-maximisation over all poses of a bank, from random poses, or from a map whose frequencies rise.

    Args:
        inputs: Particles, simulator and stage.
        rises: Whether the cut-off rises, from a map that a trial has found.
    """

    def __init__(self, inputs: TrainerInputs, *, rises: bool = False) -> None:
        super().__init__(inputs, inputs.task.settings.symmetry, IMAGES_AT_ONCE)
        images = min(len(inputs.images), self.settings.marching_images if rises else TRIAL_IMAGES)
        self.batches = max(1, round(images / IMAGES_AT_ONCE))
        self.rises, self.background_power = rises, self.noise_power.clone()
        self.velocity = torch.zeros_like(self.volume.density)

    @torch.no_grad()
    def update(self) -> tuple[Tensor, Tensor]:
        """Move the map by w, and measure the noise anew."""
        cutoff = symmetric_cutoff(self.step, self.steps, self.box, rises=self.rises)
        disc = Disc(self.box, cutoff, device=self.device)
        spectrum = self.simulator.projector.transform(self.volume())
        templates = self.templates(spectrum, disc)
        shifts = shift_grid(self.simulator.max_shift, self.width_A / (SHIFTS * disc.last_shell), self.device)
        bank = templates.bank(self.template_rotations(symmetric_share(cutoff)), shifts)
        from_zero = self.step == 0 and not self.rises
        seen, expected = bank.from_shell(FIRST_SHELL), _Expected(bank, self.batches)
        for batch in range(self.batches):
            rows = self.particles.rows()
            start = self._random_poses(bank) if from_zero else None  # in all processes alike
            if batch % self.ranks.count == self.ranks.index:
                images = Observed.on(disc, *self.real(rows, ahead=self.ranks.count))
                expected.add(batch, images, *self.micro_batch.run(partial(_attend, seen, images, start)))
        self.ranks.sum(*expected.sums)

        count = self.batches * IMAGES_AT_ONCE
        difference = self.difference(disc, spectrum)
        if self.ranks.first:  # the sums are those of all processes
            difference.add(bank.rotations, expected.difference(bank))
        normal = self.normal_diagonal(templates, expected.transfer / count, count)
        w = optimal_critic(difference.total(self.ranks), normal)
        if self.step > 0 or from_zero:  # with a map, the first step measures the noise
            self.velocity = MOMENTUM * self.velocity + self.band_limited(w, cutoff)
            self.volume.density.add_(self.velocity)
            if not self.rises and self.step < POSITIVE * self.steps:
                self.volume.clip(0.0)
        if not from_zero:
            left = disc.mean_by_shell(expected.residual_power(bank) / (2 * count))[1:]
            power = self.noise_power.clone()
            power[1 : disc.last_shell + 1] *= left
            self.noise_power = torch.maximum(power, self.background_power)
        scores = expected.scores.flatten()
        noise = self._noise_log_likelihood(templates, expected.seen / count)
        self.average_distance(scores.mean() + noise, DISTANCE_MEMORY)
        return scores[:RECORDED], scores.new_zeros(1)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return super().state_dict() | {"noise_power": self.noise_power, "velocity": self.velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        super().load_state_dict(state)
        self.noise_power, self.velocity = state["noise_power"], state["velocity"]

    def _noise_log_likelihood(self, templates: Templates, seen: Tensor) -> Tensor:
        """Return the mean log-likelihood ratio, nats, of "noise as measured" over "noise of the background".

        Together with that of "map" over "noise" it compares maps that leave different noise.

        Args:
            templates: Templates with the noise as measured.
            seen: Mean |y|^2, whitened by it, (K,).
        """
        ratio = templates.precision / precision(self.background_power.float(), templates.disc, self.box)
        ratios = ratio.log() + seen / 2 * (1 / ratio - 1)
        return ratios[templates.disc.shell >= FIRST_SHELL].sum()

    def _random_poses(self, bank: TemplateBank) -> Tensor:
        """Return an index (B, 1) of a template for each image of a batch."""
        count = len(bank.shifts) * len(bank.rotations)
        generator = self.simulator.generator
        return torch.randint(count, (IMAGES_AT_ONCE, 1), generator=generator, device=self.device)


def _attend(seen: TemplateBank, images: Observed, start: Tensor | None, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Attend to all poses of a bank.

    Args:
        seen: The bank, in the frequencies that tell views apart.
        images: Images, B.
        start: Index (B, 1) of the one template that each image is given to; None: the posterior.
        size: Number of images that are processed at once.

    Returns:
        For each rotation the sums over images of a_g S* C y, (M, 2 K), and of a_g C^2, whitened, (M, K); and the
        log-likelihood ratio of each image, its pose integrated out, (B,).
    """
    count, width = len(seen.rotations), len(seen.disc)
    gathered, power, scores = images.transfer.new_zeros(count, 2 * width), images.transfer.new_zeros(count, width), []
    starts = [None] * len(images) if start is None else torch.split(start[: len(images)], size)
    for part, chosen in zip(images.split(size), starts, strict=False):
        ratios, matched = seen.log_likelihood_ratios(part)
        attention = ratios.flatten(1)
        if chosen is not None:
            attention.zero_().scatter_(1, chosen, 1.0)
            scores.append(attention.new_zeros(len(part)))
        else:
            for image in rows_in_cache(attention):
                scores.append(torch.logsumexp(attention[image], 1) - math.log(attention.shape[1]))
                attention[image] = softmax(attention[image])
        with rounded_products(seen.rounded):
            gathered += ratios.flatten(0, 1).T @ matched.flatten(0, 1)
            power += ratios.sum(1).T @ (part.transfer.square() * seen.precision)
    return gathered, power, torch.cat(scores)


class _Expected:
    """What a step needs of the posterior over poses, summed over the images of all processes.

    Attributes:
        gathered: Sum of a_g S* C y, (M, 2 K).
        power: Sum of a_g C^2, whitened, (M, K).
        transfer: Sum of C^2, (K,).
        seen: Sum of |y|^2, whitened, (K,).
        scores: Log-likelihood ratio of each image, (batches, B).
    """

    def __init__(self, bank: TemplateBank, batches: int) -> None:
        count, width, like = len(bank.rotations), len(bank.disc), bank.precision
        self._precision = bank.precision
        self.gathered, self.power = like.new_zeros(count, 2 * width), like.new_zeros(count, width)
        self.transfer, self.seen = like.new_zeros(width), like.new_zeros(width)
        self.scores = like.new_zeros(batches, IMAGES_AT_ONCE)

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """All of it."""
        return self.gathered, self.power, self.transfer, self.seen, self.scores

    def add(self, batch: int, images: Observed, gathered: Tensor, power: Tensor, scores: Tensor) -> None:
        """Add what `_attend` returned for the images of a batch."""
        self.gathered += gathered
        self.power += power
        self.transfer += images.transfer.square().sum(0)
        self.seen += (images.coefficients.abs().square() * self._precision).sum(0)
        self.scores[batch] = scores

    def difference(self, bank: TemplateBank) -> Tensor:
        """Return the sum over images of a_g (S* C y - C^2 P x), (M, K) complex: what is to be back-projected."""
        return torch.view_as_complex(self.gathered.view(len(self.gathered), -1, 2)) - self.power * bank.projections

    def residual_power(self, bank: TemplateBank) -> Tensor:
        """Return the expected |y - C S P x|^2, whitened, summed over images, (K,)."""
        x = bank.projections
        matched = torch.view_as_complex(self.gathered.view(len(self.gathered), -1, 2)) * x.conj()
        return self.seen - 2 * matched.real.sum(0) + (self.power * x.abs().square()).sum(0)
