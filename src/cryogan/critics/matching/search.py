"""The initial search: from a zero volume to the lowest frequencies."""

import math
from functools import partial

import torch
from torch import Tensor

from cryogan.critics.critic import TrainerInputs
from cryogan.critics.matching.critic import optimal_critic
from cryogan.critics.matching.schedule import SEARCH_SHELLS, inverse_temperature, search_cutoff, search_rate
from cryogan.critics.matching.templates import SHIFT_SPACING, Observed, precision, shift_grid
from cryogan.critics.matching.trainer import RECORDED, MatchingTrainer
from cryogan.fourier import Disc, to_half_planes

SIGNAL_IMAGES = 500  # from which the power of the signal is measured
DISTANCE_MEMORY = 40  # steps over which the distance is averaged
# Inverse temperature of the attention at the start and at the end, over the signal's log-likelihood ratio. Patches with
# particles anywhere are searched with a ball, which is no empty map.
CENTRED_ATTENTION = (5.0, 250.0)
UNPICKED_ATTENTION = (30.0, 250.0)


class InitialSearch(MatchingTrainer):
    """Small batches, and an attention that begins flat over all poses and ends at the likeliest ones.

    The search is made without symmetry: it finds a symmetric molecule more surely so.

    Args:
        inputs: Particles, simulator and stage.
    """

    def __init__(self, inputs: TrainerInputs) -> None:
        super().__init__(inputs, "C1", inputs.task.settings.search_batch)
        # Its steps are a part of w: none is too long for taking cut particles for whole ones; fewer shifts do.
        farthest = min(self.simulator.whole_radius_A, self.simulator.max_shift)
        self.shifts = shift_grid(farthest, SHIFT_SPACING * self.width_A, self.device)
        self.last_shell = min(self.box / 2, SEARCH_SHELLS[1])
        disc = Disc(self.box, self.last_shell, device=self.device)
        # What the log-likelihood ratio of the true pose will be, nats.
        signal = (self._power(self.particles.first(SIGNAL_IMAGES)[0], disc) / 2 - len(disc)).mean()
        nats = float(signal)
        if not self.simulator.centred:
            self._start_from_ball(disc, 2 * nats)
        attention = CENTRED_ATTENTION if self.simulator.centred else UNPICKED_ATTENTION
        self.flat, self.sharp = (min(1.0, factor / max(nats, 1.0)) for factor in attention)

    @torch.no_grad()
    def update(self) -> tuple[Tensor, Tensor]:
        """Move the map by a part of the critic's volume w, and keep it positive."""
        cutoff = min(self.box / 2, search_cutoff(self.step, self.steps))
        disc = Disc(self.box, cutoff, device=self.device)
        spectrum = self.simulator.projector.transform(self.volume())
        templates = self.templates(spectrum, disc)
        # As many rotations as the frequencies need.
        rotations = self.template_rotations((cutoff / self.last_shell) ** 3)
        bank = templates.bank(rotations, self.shifts, self.simulator.prior_whole)

        temperature = inverse_temperature(self.step, self.steps, self.flat, self.sharp)
        count = self.settings.search_batch
        part = self.ranks.part(count)
        rows, phi = self.particles.rows(), self.simulator.sample(count)[part]
        attended = torch.zeros(len(bank.rotations), len(disc), dtype=torch.complex64, device=self.device)
        scores = []
        for stream, sign in ((self.real(rows, part), 1.0), (self.simulated([spectrum], phi), -1.0)):
            images = Observed.on(disc, *stream)
            total, ratios = self.micro_batch.run(partial(bank.attend, images, temperature))
            attended += sign * total
            scores.append(ratios)
        real, simulated = self.ranks.gather(torch.stack(scores), count)

        difference = self.difference(disc, spectrum)
        difference.add(bank.rotations, attended)
        power = images.transfer.square().sum(0) / count
        self.ranks.sum(power)
        normal = self.normal_diagonal(templates, power, self.simulator.prior_whole * count)
        w = optimal_critic(difference.total(self.ranks), normal)
        self.volume.density.add_(self.band_limited(w, cutoff), alpha=search_rate(self.step, self.steps))
        self.volume.clip(0.0)
        self.average_distance(real.mean(), DISTANCE_MEMORY)
        return real[:RECORDED], simulated[:RECORDED]

    @torch.no_grad()
    def _start_from_ball(self, disc: Disc, power: float) -> None:
        """Start from a ball as large as the mask, whose patches have the real ones' mean `power` beyond the noise.

        Patches look alike everywhere, on average: nothing of them is in the gradient at zero. A ball begins to find
        the particles.
        """
        simulator, volume = self.simulator, self.volume
        volume.density.copy_((1 - volume.radius_fraction.square()) * volume.mask)
        clean = simulator.clean(simulator.projector.transform(volume()), simulator.sample(SIGNAL_IMAGES))
        volume.density.mul_(math.sqrt(max(power, 1.0) / float(self._power(clean, disc).mean())))

    def _power(self, images: Tensor, disc: Disc) -> Tensor:
        """Return the whitened power (B,) of images (B, D, D) on a disc."""
        coefficients = disc.take(to_half_planes(images))
        return (coefficients.abs().square() * precision(self.noise_power, disc, self.box)).sum(1)
