"""Training against the view critic: a search from zero, and the sharpening of what it found.

The critic's parameter is a volume w. It looks at an image y from the views g of the current map x and scores

    f_w(y) = sum_g a_g(y) <C S P_g w, y>,    a = softmax of the agreements l_g(y) (`templates.py`).

Real and simulated images pass through the same critic. With B(y) = sum_g a_g(y) P_g* S* C y, the mean score
is <w, E B>, and the penalty on its gradient, E |C P w|^2 / 2 = <w, H w> / 2, makes the best critic
w = H^-1 (E B(real) - E B(simulated)): it is computed instead of trained. The volume's gradient of the mean
score of simulated images, whose poses are the simulator's, is H w; preconditioned by H it is w. Equal
distributions give w = 0 whatever the attention is: an image that is looked at from a wrong view, real or
simulated, adds the same to both means.

With K classes the images show one of K maps x_k, with probability pi_k. The attention is over pairs of class and
view, and each class has a w_k of its own.

Patches of micrographs (`physics/unpicked.py`) go through the same critic; it weights each with the probability that
there is a particle where it looks, and H counts the patches that show a whole one. The sharpening looks beyond where
they are whole, and leaves out what it finds there.
"""

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor

from cryogan.config import Settings
from cryogan.critics.critic import ClassMaps, Trainer
from cryogan.critics.matching.templates import Observed, Views, shift_grid
from cryogan.critics.micro_batch import MicroBatch
from cryogan.critics.read_ahead import Images
from cryogan.critics.records import Record
from cryogan.critics.sampler import Sampler
from cryogan.fourier import Disc, radial_power, to_half_planes
from cryogan.parallel.ranks import ALONE, Ranks
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.simulator import Imaging, Simulator
from cryogan.physics.unpicked import UnpickedSimulator
from cryogan.physics.volume import Volume
from cryogan.rotations import spread_rotations

SEARCH_SHELLS = (6.0, 9.0)  # cut-off at the start and the end of the search, cycles per box
SEARCH_RATE = 0.2
ATTENTION = (5.0, 250.0)  # sharpness of the attention at the start and the end of the search, over the signal's nats
CROWD_ATTENTION = (30.0, 250.0)  # the same of patches: the ball they are searched with is no empty map
BANK_SHELL = 11.0  # cut-off of the bank from which the sharpening climbs
CUTOFF_GROWTH = 1.25  # from one sharpening to the next
SHIFT_SPACING = 1 / 32  # of the box
NOISE_IMAGES = 1000
SIGNAL_IMAGES = 500
COMPONENT_PASSES = 8  # of power iteration, for the principal component of a class's images
CLASS_STEP = 2.0  # largest factor on a class's weight in a step
LEAST_WEIGHT = 0.01
CHUNK = 128  # images at a time
RECORDED = 1000  # images of each stream whose scores are ranked

Looked = tuple[Observed, Tensor, Tensor, Tensor, Tensor]
Look = Callable[[Tensor, Tensor], Looked]


class ViewTraining(Trainer):
    """One half map's run at one box against the view critic.

    Args:
        settings: of the run.
        steps: volume updates.
        images: the real particles of this half.
        simulator, volume: what is trained; the simulator's particles are the rows of `images`.
        signal: s.d. of the particles' signal over that of their noise.
        batch_size: images that are read at once.
        seed: of the order of the particles.
        ranks: the processes that share the images.
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
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.settings, self.steps, self.simulator, self.volume, self.signal = settings, steps, simulator, volume, signal
        self.classes, self.weights = [volume], torch.ones(1, device=volume.mask.device)
        generator, box = simulator.generator, simulator.projector.box
        device = self._device = generator.device
        self.particles = Sampler(images, batch_size, torch.Generator().manual_seed(seed), device)
        self._count = len(images)
        self._width = box * simulator.pixel_size
        rows = simulator.sample(NOISE_IMAGES).particles
        self._noise_power = radial_power(simulator.noise.sample(rows, generator))
        self._shifts = shift_grid(simulator.max_shift, SHIFT_SPACING * self._width, device)
        self._back = BackProjector(simulator.projector, volume)
        self.micro_batch = MicroBatch(min(batch_size, CHUNK))
        self.step = 0
        self.seconds = 0.0
        # Minus the particles' mean agreement: their Kullback-Leibler distance up to a constant.
        self.distance: float | Tensor = 0.0

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
            "distance": float(self.distance),
            "volume": self.volume.state_dict(),
            "particles": self.particles.state_dict(),
            "simulator": self.simulator.state_dict(),
            "generator": self.simulator.generator.get_state(),
            "host_generator": self.simulator.host_generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.seconds, self.distance = state["step"], state["seconds"], state["distance"]
        self.volume.load_state_dict(state["volume"])
        self.particles.load_state_dict(state["particles"])
        self.simulator.load_state_dict(state["simulator"])
        self.simulator.generator.set_state(state["generator"].cpu())
        self.simulator.host_generator.set_state(state["host_generator"].cpu())

    def _views(self, spectrum: Tensor, disc: Disc) -> Views:
        return Views(self.simulator.projector, spectrum, disc, self._noise_power, self._width)

    def _rotations(self, share: float = 1.0) -> Tensor:
        count = max(1, round(share * self.settings.orientations / len(self.volume.point_group)))
        rotations = spread_rotations(count, self.volume.point_group, self.simulator.host_generator)
        return rotations.to(self._device, non_blocking=True)

    def _real(self, rows: Tensor, part: slice = slice(None), ahead: int = 1) -> tuple[Tensor, Tensor]:
        """Half-planes and CTFs (B, D, D // 2 + 1) of real images; arguments as of `Sampler.load`."""
        images, rows = self.particles.load(rows, part, ahead)
        return to_half_planes(images), self.simulator.transfer(rows)

    def _simulated(self, spectra: Tensor, phi: Imaging) -> tuple[Tensor, Tensor]:
        """The same of images of the classes' spectra (K, ...), each as often as its weight says."""
        shares = self.weights.cumsum(0).tolist() if len(spectra) > 1 else [1.0]
        parts = [slice(*each) for each in pairwise([0, *(round(len(phi) * share) for share in shares)])]
        images = [self.simulator(spectrum, phi[part]) for spectrum, part in zip(spectra, parts, strict=True)]
        return to_half_planes(torch.cat(images)), self.simulator.transfer(phi.particles)

    def _move(self, volume: Volume, direction: Tensor, cutoff: float, rate: float) -> None:
        """x <- x + rate w, for w in Fourier space."""
        volume.density.add_(self._map(direction, cutoff), alpha=rate)

    def _map(self, spectrum: Tensor, cutoff: float) -> Tensor:
        """The map (D, D, D) of a spectrum up to a cut-off, without its mean, which no image tells from background."""
        window = (cutoff - self._back.radius).clamp(0.0, 1.5) / 1.5 * (self._back.radius > 0.5)
        density = torch.fft.irfftn(spectrum * window, s=self.volume.density.shape)
        result: Tensor = self.volume.symmetrise(density * self.volume.mask)
        return result

    def _record(self, real: Tensor, simulated: Tensor, before: Tensor) -> Record:
        density = self.volume.density.detach()
        one = torch.ones((), device=self._device)
        return Record(
            self.step,
            self.seconds / 60.0,
            critic_gap=real.mean() - simulated.mean(),
            critic_auc=(real[:, None] > simulated).float().mean(),
            signal_scale=one,
            noise_scale=one,
            map_change=(density - before).norm() / density.norm().clamp(min=1e-12),
        )


class Search(ViewTraining):
    """From zero to the lowest frequencies: small batches, attention that begins flat and becomes sharp."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        box = self.simulator.projector.box
        # Its steps are a fifth: none is too long for taking particles that the edge cuts for whole; fewer shifts do.
        farthest = min(self.simulator.whole_radius_A, self.simulator.max_shift)
        self._shifts = shift_grid(farthest, SHIFT_SPACING * self._width, self._device)
        disc = Disc(box, min(box / 2, SEARCH_SHELLS[1]), device=self._device)
        images = disc.take(to_half_planes(self.particles.first(SIGNAL_IMAGES)[0]))
        precision = 2.0 / (self._noise_power[disc.shell] * box**2)
        # Nats by which a particle's signal stands out: what the agreement with the true view will be.
        nats = float(((images.abs().square() * precision).sum(1) / 2 - len(disc)).mean())
        crowd = isinstance(self.simulator, UnpickedSimulator)
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
        clean = simulator.clean(simulator.projector.transform(volume()), simulator.sample(SIGNAL_IMAGES))
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
        bank = views.bank(rotations, self._shifts, self.simulator.prior_whole)
        gathered = torch.zeros(len(bank.rotations), len(disc), dtype=torch.complex64, device=self._device)
        agreements = []
        count = self.settings.search_batch
        part = self.ranks.part(count)
        rows, phi = self.particles.rows(), self.simulator.sample(count)[part]
        streams = (self._real(rows, part), 1.0), (self._simulated(spectrum[None], phi), -1.0)
        for (half_planes, transfer), sign in streams:
            images = Observed(disc.take(half_planes), disc.take(transfer))
            total, agreement = self.micro_batch.run(partial(bank.attend, images, sharpness))
            gathered += sign * total
            agreements.append(agreement)
        real, simulated = self.ranks.gather(torch.stack(agreements), count)

        spectra = torch.zeros_like(spectrum)
        self._back.add(spectra, disc, bank.rotations, gathered)
        difference, power = self._back.finish(spectra), images.transfer.square().sum(0) / count
        self.ranks.sum(difference, power)
        curvature = self._back.curvature(
            disc, power * views.precision, self.simulator.prior_whole * count, self.simulator.views
        )
        self._move(self.volume, difference / curvature, cutoff, SEARCH_RATE)
        self.volume.clip(0.0)
        self.distance = self.distance + (-real.mean() - self.distance) / min(self.step + 1, 20)
        return real, simulated


class Sharpening(ViewTraining):
    """From the lowest frequencies to the last: large batches, attention on the best view, found by climbing.

    The critic is computed from either half of the images; for each shell their correlation r says what of
    it is signal, and 2 r / (1 + r) of it moves the map. A shell in which the critic has nothing left to say,
    or nothing yet, stays as it is.

    Several classes come from the search's map by division: the one that explains its images least becomes two, which
    settle for `class_steps` steps at the first cut-off; then the next, until there are as many as are asked for.
    `volume` is their weighted mean.
    """

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "classes": [volume.state_dict() for volume in self.classes],
            "weights": self.weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.weights = state["weights"]
        if len(self.weights) > 1:
            self.classes = [deepcopy(self.volume) for _ in self.weights]
            for volume, saved in zip(self.classes, state["classes"], strict=True):
                volume.load_state_dict(saved)

    @torch.no_grad()
    def class_maps(self) -> list[Tensor]:
        """The map of each class, (D, D, D), as `result`."""
        return [volume() for volume in self.classes]

    def class_result(self) -> ClassMaps | None:
        """Return the classes of the particles; None where there is one map."""
        if len(self.classes) == 1:
            return None
        return ClassMaps(self.class_maps(), self.weights, self.class_probabilities())

    @torch.no_grad()
    def class_probabilities(self) -> Tensor:
        """(N, K): how probable each class is for each particle of this half, in their order."""
        box = self.simulator.projector.box
        look, _, _ = self._look(sharpening_cutoff(self.step, box, held_steps(self.settings)))
        found = []
        for images, rows in self.particles.once():
            transfer = self.simulator.transfer(rows)
            _, _, _, agreement, _ = look(to_half_planes(images), transfer)
            found.append(agreement)
        return torch.softmax(self.weights.log() + torch.cat(found), dim=1)

    def _divide(self, cutoff: float) -> None:
        """Make two classes of the one that explains its images least: its map plus and minus how these vary most."""
        look, spectra, views = self._look(cutoff)
        disc, count = views[0].disc, len(views)
        power = torch.zeros(len(disc), device=self._device)
        # Of both streams: the classes' images, and minus the logarithm of their likelihood, in nats.
        totals = power.new_zeros(2, 2, count)
        # An image without weight: a process may have no batch.
        nothing = (
            power.new_zeros(1, count),
            power.new_zeros(1, count, len(disc), dtype=torch.complex64),
            power.new_zeros(1, count, 3, 3),
        )
        seen = [[nothing], [nothing]]
        for _, stream, (images, rotations, shifts, agreement, presence) in self._looks(look, spectra):
            share = torch.softmax(self.weights.log() + agreement, dim=1) * presence
            energy = (images.coefficients.abs().square() * views[0].precision).sum(1, keepdim=True) / 2
            totals[stream] += torch.stack([share, share * (energy - agreement)]).sum(1)
            residuals = [view.residual(images, rotations[:, k], shifts[:, k]) for k, view in enumerate(views)]
            seen[stream].append((share, torch.stack(residuals, dim=1), rotations))
            power += images.transfer.square().mean(0) / (2 * self._batches)
        self.ranks.sum(totals, power)
        counts, nats = totals[:, 0].clamp(min=1.0), totals[:, 1]
        of_real, of_simulated = nats / counts
        index = int((counts[0] * (of_real - of_simulated)).argmax())

        streams = [tuple(torch.cat(each)[:, index] for each in zip(*stream, strict=True)) for stream in seen]
        curvature = self._back.curvature(disc, power * views[0].precision, 1.0, self.simulator.views)
        component = self._component(disc, streams, counts[:, index], curvature)
        divided, weight = self.classes[index], self.weights[index] / 2
        self.classes = [*self.classes, deepcopy(divided)]
        self.classes[index] = deepcopy(divided)
        for k, sign in ((index, 1.0), (-1, -1.0)):
            self.classes[k].start_from(divided.density + sign * component)
        self.weights = torch.cat([self.weights, weight[None]])
        self.weights[index] = weight

    def _component(self, disc: Disc, streams: list[tuple[Tensor, ...]], counts: Tensor, curvature: Tensor) -> Tensor:
        """The principal component (D, D, D) of a class: how real images vary about its views, beyond simulated ones.

        It is found by power iteration and has the standard deviation as its length: each pass regresses what the
        views leave of the images on their scores, how far along the component they lie.

        Args:
            disc: of the coefficients.
            streams: of real and simulated images, their share in the class (B,), what the views leave of them (B, K),
                and the views' rotations (B, 3, 3).
            counts: (2,), sum of the shares, over all processes.
            curvature: H, of one image.
        """
        transform, device = self.simulator.projector.transform, self._device
        component = torch.randn(self.volume.density.shape, generator=self.simulator.generator, device=device)
        for _ in range(COMPONENT_PASSES):
            spectrum = transform(component)
            views, gathered, variance = self._views(spectrum, disc), torch.zeros_like(spectrum), counts.new_zeros(())
            for sign, count, (share, residual, rotations) in zip((1.0, -1.0), counts, streams, strict=True):
                samples = torch.cat([views.samples(part) for part in torch.split(rotations, CHUNK)])
                score = (residual.conj() * samples).real.sum(1)
                mean = (share * score).sum() / count
                self.ranks.sum(mean)
                score = score - mean
                self._back.add(gathered, disc, rotations, (sign * share / count * score)[:, None] * residual)
                if sign > 0:  # of the real images
                    variance = (share * score.square()).sum() / count
            covariance = self._back.finish(gathered)
            self.ranks.sum(covariance, variance)
            component = self._map(covariance / curvature, disc.last_shell) / variance.sqrt().clamp(min=1e-12)
        return component

    @property
    def _batches(self) -> int:
        """Of either stream in a step: pairs, so that both halves have as many images."""
        return 2 * max(1, round(min(self._count, self.settings.marching_images) / (2 * CHUNK)))

    def _looks(self, look: Look, spectra: Tensor) -> Iterator[tuple[int, int, Looked]]:
        """Look at this process's batches: yields the batch, 0 if it is real and 1 if simulated, and what is seen."""
        for batch in range(self._batches):
            rows, phi = self.particles.rows(), self.simulator.sample(CHUNK)  # in all processes alike
            if batch % self.ranks.count != self.ranks.index:
                continue
            streams = self._real(rows, ahead=self.ranks.count), self._simulated(spectra, phi)
            for stream, (half_planes, transfer) in enumerate(streams):
                yield batch, stream, look(half_planes, transfer)

    def _look(self, cutoff: float) -> tuple[Look, Tensor, list[Views]]:
        """How to look at images up to a cut-off: their best view of each class.

        Returns:
            A function of half-planes and CTFs that gives the images on the disc of the cut-off and the rotations
            (B, K, 3, 3), shifts (B, K, 2) and agreements (B, K) of their best views, and the probability (B, K) that
            they show one, 0 where its view is not counted; the classes' spectra; and their views.
        """
        projector, box = self.simulator.projector, self.simulator.projector.box
        disc = Disc(box, cutoff, device=self._device)
        coarse_disc = Disc(box, min(BANK_SHELL, cutoff), device=self._device)
        spectra = torch.stack([projector.transform(volume()) for volume in self.classes])
        views, coarse_views = ([self._views(each, part) for each in spectra] for part in (disc, coarse_disc))
        turns = self._rotations()
        banks = [each.bank(turns, self._shifts, self.simulator.prior_within_reach) for each in coarse_views]
        spacing = float((8 * torch.pi**2 / (len(turns) * len(self.volume.point_group))) ** (1 / 3))
        max_shift, whole = self.simulator.max_shift, self.simulator.whole_radius_A

        def best_views(coarse: Observed, fine: Observed, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            found = []
            for low, high in zip(coarse.split(size), fine.split(size), strict=True):
                of_classes = []
                for bank, low_views, high_views in zip(banks, coarse_views, views, strict=True):
                    *start, presence = bank.best(low)
                    near = low_views.climb(low, *start, steps=1, largest=spacing, max_shift=max_shift)[:2]
                    best = high_views.climb(high, *near, steps=2, largest=spacing / 2, max_shift=max_shift)
                    of_classes.append((*best, presence[:, 0] * (best[1].norm(dim=1) <= whole)))
                found.append([torch.stack(each, dim=1) for each in zip(*of_classes, strict=True)])
            rotations, shifts, agreement, presence = (torch.cat(each) for each in zip(*found, strict=True))
            return rotations, shifts, agreement, presence

        def look(half_planes: Tensor, transfer: Tensor) -> Looked:
            coarse = Observed(coarse_disc.take(half_planes), coarse_disc.take(transfer))
            images = Observed(disc.take(half_planes), disc.take(transfer))
            return images, *self.micro_batch.run(partial(best_views, coarse, images))

        return look, spectra, views

    def _update(self) -> tuple[Tensor, Tensor]:
        held, batches = held_steps(self.settings), self._batches
        cutoff = sharpening_cutoff(self.step, self.simulator.projector.box, held)
        if 0 < self.step < held and (self.step - 1) % self.settings.class_steps == 0:
            self._divide(cutoff)
        look, spectra, views = self._look(cutoff)
        disc = views[0].disc
        differences = [[torch.zeros_like(spectrum) for _ in range(2)] for spectrum in spectra]
        power = torch.zeros(len(disc), device=self._device)
        # Of both streams: agreements, shares of the classes, and the views found. What other processes find stays
        # zero, and is summed.
        agreements = torch.zeros(2, batches, CHUNK, device=self._device)
        shares, all_rotations, all_shifts = (
            agreements.new_zeros(*agreements.shape, *each) for each in ((len(spectra),), (3, 3), (2,))
        )
        for batch, stream, (images, rotations, shifts, agreement, presence) in self._looks(look, spectra):
            share = torch.softmax(self.weights.log() + agreement, dim=1)
            for k, of_class in enumerate(views):
                matched = (share * presence)[:, k, None] * of_class.matched(images, shifts[:, k])
                self._back.add(differences[k][batch % 2], disc, rotations[:, k], -matched if stream else matched)
            agreements[stream, batch], shares[stream, batch] = (share * agreement).sum(1), share
            best = torch.arange(len(images), device=self._device), share.argmax(1)
            all_rotations[stream, batch], all_shifts[stream, batch] = rotations[best], shifts[best]
            if stream:
                power += images.transfer.square().mean(0) / batches

        gathered = [[self._back.finish(half) for half in halves] for halves in differences]
        self.ranks.sum(*chain(*gathered), power, agreements, shares)
        counted = self.simulator.prior_whole * batches * CHUNK
        curvature = self._back.curvature(disc, power * views[0].precision, counted, self.simulator.views)
        share, simulated_share = shares.mean((1, 2)).clamp(min=LEAST_WEIGHT)
        for k, (volume, halves) in enumerate(zip(self.classes, gathered, strict=True)):
            # That a class is seen more often than it is simulated is for its weight to mend, not for its map.
            known = (simulated_share[k] - share[k]) / 2 * curvature * torch.fft.rfftn(volume())
            first, second = (half + known for half in halves)
            trust = self._trust(first, second)
            # The stream that shows the class more often bounds the step: a class that real images leave stays small.
            most = torch.maximum(share, simulated_share)[k]
            self._move(volume, (first + second) * trust / (most * curvature), cutoff, 1.0)
        ratio = (share / simulated_share).clamp(1 / CLASS_STEP, CLASS_STEP)
        weights = (self.weights * ratio).clamp(min=LEAST_WEIGHT)
        self.weights = weights / weights.sum()
        densities = torch.stack([volume.density for volume in self.classes])
        self.volume.density.copy_(torch.tensordot(self.weights, densities, dims=1))
        if self.simulator.views is not None:
            self.ranks.sum(all_rotations, all_shifts)
            self._learn_poses(all_rotations.flatten(1, 2), all_shifts.flatten(1, 2))
        real, simulated = agreements.flatten(1)
        self.distance = -real.mean()
        return real, simulated

    def _learn_poses(self, rotations: Tensor, shifts: Tensor) -> None:
        """Where the critic looks at either stream from, and how far off the centre, tells their distributions apart.

        Args:
            rotations, shifts: (2, N, 3, 3) and (2, N, 2), of real and simulated images.
        """
        simulator, views, learn = self.simulator, self.simulator.views, self.settings.learn_poses
        assert views is not None
        group = torch.from_numpy(self.volume.point_group).float().to(self._device, non_blocking=True)
        if views.prior is not None and not (learn and self.step):
            views.turn_prior(rotations[0], rotations[1], group, simulator.generator)
        elif learn:
            views.learn(rotations[0], rotations[1], group)
        if not learn:
            return
        widths = shifts.square().mean((1, 2)).sqrt()
        ratio = (widths[0] / widths[1].clamp(min=1e-6)).clamp(0.5, 2.0)
        simulator.shift_width.mul_(ratio).clamp_(max=simulator.max_shift)

    def _trust(self, first: Tensor, second: Tensor) -> Tensor:
        """2 r / (1 + r) on the 3-D coefficients, with r the correlation of two volumes in each shell."""
        shell = self._back.shell.flatten()

        def by_shell(values: Tensor) -> Tensor:
            sums = torch.zeros(self._back.shells, dtype=torch.float64, device=self._device)
            return sums.index_add(0, shell, values.flatten().double())

        norm = (by_shell(first.abs().square()) * by_shell(second.abs().square())).sqrt()
        r = by_shell((first.conj() * second).real) / norm.clamp(min=1e-30)
        trust = (2 * r / (1 + r).clamp(min=1e-6)).clamp(0.0, 1.0).float()
        return trust[shell].view_as(self._back.shell)


def search_cutoff(step: int, steps: int) -> float:
    """Shell below which frequencies take part in a step of a search."""
    first, last = SEARCH_SHELLS
    return first + (last - first) * min(1.0, step / steps / 0.7)


def sharpening_cutoff(step: int, box: int, held: int = 0) -> float:
    """The same of a sharpening that holds its first cut-off for so many steps."""
    return min(box / 2, SEARCH_SHELLS[1] * CUTOFF_GROWTH ** (max(0, step - held) + 1))


def held_steps(settings: Settings) -> int:
    """For which a sharpening holds its first cut-off, so that the classes come apart."""
    return 1 + settings.class_steps * (settings.classes - 1) if settings.classes > 1 else 0


def sharpening_steps(box: int, after: int, held: int = 0) -> int:
    """Updates until the cut-off is at the Nyquist frequency of a box, and some before and after."""
    return held + max(0, math.ceil(math.log(box / 2 / SEARCH_SHELLS[1]) / math.log(CUTOFF_GROWTH))) + after
