"""Training against the view critic: a search from zero, and the sharpening of what it found.

The critic's parameter is a volume w. It looks at an image y from the views g of the current map x and scores

    f_w(y) = sum_g a_g(y) <C S P_g w, y>,    a = softmax of the agreements l_g(y) (`cryogan.adversarial.views`).

Real and simulated images pass through the same critic. With B(y) = sum_g a_g(y) P_g* S* C y, the mean score
is <w, E B>, and the penalty on its gradient, E |C P w|^2 / 2 = <w, H w> / 2, makes the best critic
w = H^-1 (E B(real) - E B(simulated)): it is computed instead of trained. The volume's gradient of the mean
score of simulated images, whose poses are the simulator's, is H w; preconditioned by H it is w. Equal
distributions give w = 0 whatever the attention is: an image that is looked at from a wrong view, real or
simulated, adds the same to both means.

Patches of micrographs (`cryogan.physics.crowd`) go through the same critic; it weights each with the probability that
there is a particle where it looks, and H counts the patches of which that is true.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cryogan.adversarial.micro_batch import MicroBatch
from cryogan.adversarial.training import Images, Record, Sampler
from cryogan.adversarial.views import Observed, Views, shift_grid
from cryogan.config import Settings
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.crowd import CrowdSimulator
from cryogan.physics.fourier import Disc, radial_power, to_half_planes
from cryogan.physics.poses import spread_rotations
from cryogan.physics.simulator import Simulator
from cryogan.physics.volume import Volume

SEARCH_SHELLS = (6.0, 9.0)  # cut-off at the start and the end of the search, cycles per box
SEARCH_RATE = 0.2
ATTENTION = (5.0, 250.0)  # sharpness of the attention at the start and the end of the search, over the signal's nats
CROWD_ATTENTION = (30.0, 250.0)  # the same of patches: the ball they are searched with is no empty map
BANK_SHELL = 11.0  # cut-off of the bank from which the sharpening climbs
CUTOFF_GROWTH = 1.25  # from one sharpening to the next
SHIFT_SPACING = 1 / 32  # of the box
NOISE_IMAGES = 1000
SIGNAL_IMAGES = 500
CHUNK = 128  # images at a time
RECORDED = 1000  # images of each stream whose scores are ranked


class ViewTraining(ABC):
    """One half map's run at one box against the view critic.

    Args:
        settings: of the run.
        steps: volume updates.
        images: the real particles of this half.
        simulator, volume: what is trained; the simulator's particles are the rows of `images`.
        signal: s.d. of the particles' signal over that of their noise.
        batch_size: images that are read at once.
        seed: of the order of the particles.
    """

    def __init__(
        self,
        settings: Settings,
        steps: int,
        images: Images,
        simulator: Simulator,
        volume: Volume,
        signal: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.settings, self.steps, self.simulator, self.volume, self.signal = settings, steps, simulator, volume, signal
        generator, box = simulator.generator, simulator.projector.box
        device = self._device = generator.device
        self.particles = Sampler(images, batch_size, torch.Generator().manual_seed(seed), device)
        self._count = len(images)
        self._width = box * simulator.pixel_size
        rows = simulator.draw(NOISE_IMAGES).particles
        self._noise_power = radial_power(simulator.noise.sample(rows, generator))
        self._shifts = shift_grid(simulator.max_shift, SHIFT_SPACING * self._width, device)
        self._back = BackProjector(simulator.projector, volume)
        self.micro_batch = MicroBatch(min(batch_size, CHUNK))
        self.step = 0
        self.seconds = 0.0
        self.distance = 0.0  # minus the particles' mean agreement: their Kullback-Leibler distance up to a constant

    @abstractmethod
    def _update(self) -> tuple[Tensor, Tensor]:
        """Move the volume; returns the agreements of some real and simulated images."""

    def run(self, until: int | None = None) -> Iterator[Record]:
        """Train to step `until` (default: the end), yielding a record after each volume update."""
        while self.step < (self.steps if until is None else until):
            start = time.perf_counter()
            before = self.volume.density.detach().clone()
            with torch.no_grad():
                real, simulated = self._update()
            self.step += 1
            self.seconds += time.perf_counter() - start
            yield self._record(real[:RECORDED], simulated[:RECORDED], before)

    @torch.no_grad()
    def result(self) -> Tensor:
        """The map so far, (D, D, D): masked, symmetric, in the unit of the images."""
        result: Tensor = self.volume()
        return result

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "distance": self.distance,
            "volume": self.volume.state_dict(),
            "particles": self.particles.state_dict(),
            "simulator": self.simulator.state_dict(),
            "generator": self.simulator.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.seconds, self.distance = state["step"], state["seconds"], state["distance"]
        self.volume.load_state_dict(state["volume"])
        self.particles.load_state_dict(state["particles"])
        self.simulator.load_state_dict(state["simulator"])
        self.simulator.generator.set_state(state["generator"].cpu())

    def _views(self, spectrum: Tensor, disc: Disc) -> Views:
        return Views(self.simulator.projector, spectrum, disc, self._noise_power, self._width)

    def _rotations(self, share: float = 1.0) -> Tensor:
        count = max(1, round(share * self.settings.views / len(self.volume.point_group)))
        return spread_rotations(count, self.volume.point_group, self.simulator.generator)

    def _real(self) -> tuple[Tensor, Tensor]:
        """Half-planes and CTFs (B, D, D // 2 + 1) of the next real images."""
        images, rows = next(self.particles)
        return to_half_planes(images), self.simulator.transfer(rows)

    def _simulated(self, spectrum: Tensor, count: int) -> tuple[Tensor, Tensor]:
        phi = self.simulator.draw(count)
        return to_half_planes(self.simulator(spectrum, phi)), self.simulator.transfer(phi.particles)

    def _move(self, direction: Tensor, cutoff: float, rate: float) -> None:
        """x <- x + rate w, for w in Fourier space; its mean stays, which no image tells from the background."""
        window = (cutoff - self._back.radius).clamp(0.0, 1.5) / 1.5 * (self._back.radius > 0.5)
        step = torch.fft.irfftn(direction * window, s=self.volume.density.shape)
        self.volume.density.add_(self.volume.symmetrise(step * self.volume.mask), alpha=rate)

    def _record(self, real: Tensor, simulated: Tensor, before: Tensor) -> Record:
        density = self.volume.density.detach()
        return {
            "step": self.step,
            "minutes": self.seconds / 60.0,
            "critic_gap": (real.mean() - simulated.mean()).item(),
            "critic_auc": (real[:, None] > simulated).float().mean().item(),
            "signal_scale": 1.0,
            "noise_scale": 1.0,
            "map_change": ((density - before).norm() / density.norm().clamp(min=1e-12)).item(),
        }


class Search(ViewTraining):
    """From zero to the lowest frequencies: small batches, attention that begins flat and becomes sharp."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        box = self.simulator.projector.box
        disc = Disc(box, min(box / 2, SEARCH_SHELLS[1]), device=self._device)
        images = disc.take(to_half_planes(self.particles.first(SIGNAL_IMAGES)[0]))
        precision = 2.0 / (self._noise_power[disc.shell] * box**2)
        # Nats by which a particle's signal stands out: what the agreement with the true view will be.
        nats = float(((images.abs().square() * precision).sum(1) / 2 - len(disc)).mean())
        crowd = isinstance(self.simulator, CrowdSimulator)
        if crowd:
            self._start_from_ball(disc, 2 * nats)
        attention = CROWD_ATTENTION if crowd else ATTENTION
        self._sharpness = tuple(min(1.0, each / max(nats, 1.0)) for each in attention)

    @torch.no_grad()
    def _start_from_ball(self, disc: Disc, power: float) -> None:
        """Patches look alike everywhere, on average: nothing of them is in zero's gradient. A ball as large as the mask
        begins to find the particles; its patches have the real ones' mean whitened `power` beyond the noise."""
        simulator, volume = self.simulator, self.volume
        volume.density.copy_((1 - volume.radius_fraction.square()) * volume.mask)
        clean = simulator.clean(simulator.projector.transform(volume()), simulator.draw(SIGNAL_IMAGES))
        precision = 2.0 / (self._noise_power[disc.shell] * clean.shape[-1] ** 2)
        unit = float((disc.take(to_half_planes(clean)).abs().square() * precision).sum(1).mean())
        volume.density.mul_(math.sqrt(max(power, 1.0) / unit))

    def _update(self) -> tuple[Tensor, Tensor]:
        box = self.simulator.projector.box
        cutoff = min(box / 2, search_cutoff(self.step, self.steps))
        flat, sharp = self._sharpness
        sharpness = flat * (sharp / flat) ** min(1.0, self.step / self.steps / 0.8)

        disc = Disc(box, cutoff, device=self._device)
        spectrum = self.simulator.projector.transform(self.volume())
        views = self._views(spectrum, disc)
        # As many views as the frequencies need.
        rotations = self._rotations((cutoff / min(box / 2, SEARCH_SHELLS[1])) ** 3)
        bank = views.bank(rotations, self._shifts, self.simulator.shown)
        gathered = torch.zeros(len(bank.rotations), len(disc), dtype=torch.complex64, device=self._device)
        agreements = []
        streams = (self._real(), 1.0), (self._simulated(spectrum, self.settings.search_batch), -1.0)
        for (half_planes, transfer), sign in streams:
            images = Observed(disc.take(half_planes), disc.take(transfer))
            total, agreement = self.micro_batch.run(partial(bank.attend, images, sharpness))
            gathered += sign * total
            agreements.append(agreement)
        real, simulated = torch.split(torch.cat(agreements), self.settings.search_batch)

        difference = torch.zeros_like(spectrum)
        self._back.add(difference, disc, bank.rotations, gathered)
        weights = images.transfer.square().mean(0) * views.precision
        shown = self.simulator.shown * self.settings.search_batch
        curvature = self._back.curvature(disc, weights, shown, self.simulator.views)
        self._move(self._back.finish(difference) / curvature, cutoff, SEARCH_RATE)
        self.volume.clip(0.0)
        self.distance += (-real.mean().item() - self.distance) / min(self.step + 1, 20)
        return real, simulated


class Sharpening(ViewTraining):
    """From the lowest frequencies to the last: large batches, attention on the best view, found by climbing.

    The critic is computed from either half of the images; for each shell their correlation r says what of
    it is signal, and 2 r / (1 + r) of it moves the map. A shell in which the critic has nothing left to say,
    or nothing yet, stays as it is.
    """

    def _update(self) -> tuple[Tensor, Tensor]:
        projector, box = self.simulator.projector, self.simulator.projector.box
        cutoff = sharpening_cutoff(self.step, box)
        disc = Disc(box, cutoff, device=self._device)
        coarse_disc = Disc(box, min(BANK_SHELL, cutoff), device=self._device)
        spectrum = projector.transform(self.volume())
        views, coarse_views = self._views(spectrum, disc), self._views(spectrum, coarse_disc)
        bank = coarse_views.bank(self._rotations(), self._shifts, self.simulator.shown)
        spacing = float((8 * torch.pi**2 / (len(bank.rotations) * len(self.volume.point_group))) ** (1 / 3))
        max_shift = self.simulator.max_shift

        def best_views(coarse: Observed, fine: Observed, size: int) -> tuple[Tensor, ...]:
            """Rotations, shifts and agreement of the images' best views, and the probability that they show one."""
            found = []
            for low, high in zip(coarse.split(size), fine.split(size), strict=True):
                *start, presence = bank.best(low)
                rotations, shifts, _ = coarse_views.climb(low, *start, steps=1, largest=spacing, max_shift=max_shift)
                climbed = views.climb(high, rotations, shifts, steps=2, largest=spacing / 2, max_shift=max_shift)
                found.append((*climbed, presence))
            return tuple(torch.cat(each) for each in zip(*found, strict=True))

        # Pairs of batches, so that both halves have as many images.
        batches = 2 * max(1, round(min(self._count, self.settings.sharpen_images) / (2 * CHUNK)))
        differences = [torch.zeros_like(spectrum) for _ in range(2)]
        power = torch.zeros(len(disc), device=self._device)
        agreements: dict[float, list[Tensor]] = {1.0: [], -1.0: []}
        poses: dict[float, list[tuple[Tensor, Tensor]]] = {1.0: [], -1.0: []}
        for batch in range(batches):
            for sign in (1.0, -1.0):
                half_planes, transfer = self._real() if sign > 0 else self._simulated(spectrum, CHUNK)
                coarse = Observed(coarse_disc.take(half_planes), coarse_disc.take(transfer))
                images = Observed(disc.take(half_planes), disc.take(transfer))
                rotations, shifts, agreement, presence = self.micro_batch.run(partial(best_views, coarse, images))
                matched = sign * presence * views.matched(images, shifts)
                self._back.add(differences[batch % 2], disc, rotations, matched)
                agreements[sign].append(agreement)
                poses[sign].append((rotations, shifts))
            power += images.transfer.square().mean(0) / batches

        first, second = (self._back.finish(difference) for difference in differences)
        shown = self.simulator.shown * batches * CHUNK
        curvature = self._back.curvature(disc, power * views.precision, shown, self.simulator.views)
        trust = self._trust(first, second)
        self._move((first + second) * trust / curvature, cutoff, 1.0)
        if self.settings.learn_poses:
            self._learn_poses(*([torch.cat(each) for each in zip(*poses[sign], strict=True)] for sign in (1.0, -1.0)))
        real, simulated = torch.cat(agreements[1.0]), torch.cat(agreements[-1.0])
        self.distance = -real.mean().item()
        return real, simulated

    def _learn_poses(self, real: list[Tensor], simulated: list[Tensor]) -> None:
        """Where the critic looks at either stream from, and how far off the centre, tells their distributions apart."""
        simulator = self.simulator
        assert simulator.views is not None
        group = torch.from_numpy(self.volume.point_group).float().to(self._device)
        simulator.views.learn(real[0], simulated[0], group)
        widths = [shifts.square().mean().sqrt() for _, shifts in (real, simulated)]
        ratio = (widths[0] / widths[1].clamp(min=1e-6)).clamp(0.5, 2.0)
        simulator.shift_width.mul_(ratio).clamp_(max=simulator.max_shift)

    def _trust(self, first: Tensor, second: Tensor) -> Tensor:
        """2 r / (1 + r) on the 3-D coefficients, with r the correlation of two volumes in each shell."""
        shell = self._back.shell.flatten()

        def by_shell(values: Tensor) -> Tensor:
            return torch.bincount(shell, weights=values.flatten().double())

        norm = (by_shell(first.abs().square()) * by_shell(second.abs().square())).sqrt()
        r = by_shell((first.conj() * second).real) / norm.clamp(min=1e-30)
        trust = (2 * r / (1 + r).clamp(min=1e-6)).clamp(0.0, 1.0).float()
        return trust[shell].view_as(self._back.shell)


def search_cutoff(step: int, steps: int) -> float:
    """Shell below which frequencies take part in a step of a search."""
    first, last = SEARCH_SHELLS
    return first + (last - first) * min(1.0, step / steps / 0.7)


def sharpening_cutoff(step: int, box: int) -> float:
    """The same of a sharpening."""
    return min(box / 2, SEARCH_SHELLS[1] * CUTOFF_GROWTH ** (step + 1))


def sharpening_steps(box: int, after: int) -> int:
    """Updates until the cut-off is at the Nyquist frequency of a box, and some after."""
    return max(0, math.ceil(math.log(box / 2 / SEARCH_SHELLS[1]) / math.log(CUTOFF_GROWTH))) + after
