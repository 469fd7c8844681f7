"""Poses of particles read off a map, and a map from poses."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryogan.critics.matching.templates import Bank, Observed, Views, shift_grid
from cryogan.critics.matching.trainer import BANK_SHELL, CHUNK, NOISE_IMAGES, SHIFT_SPACING
from cryogan.critics.micro_batch import MicroBatch
from cryogan.fourier import Disc, radial_power, to_half_planes
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.volume import Volume
from cryogan.rotations import spread_rotations
from cryogan.run.build import build_simulator
from cryogan.run.plan import Plan

CANDIDATES = 4  # views of the bank, from which the particles climb at low frequencies
OUTLINE_SHELL = 4  # up to which a blob of ice looks like any molecule
COARSE_STEPS, FINE_STEPS = 3, 6  # at low frequencies, and the best two at all


@dataclass(frozen=True)
class Poses:
    """Of N particles."""

    rotations: Tensor  # (N, 3, 3), slice frame to volume frame
    shifts: Tensor  # (N, 2) x, y in A, the sign of _rlnOriginXAngst
    agreement: Tensor  # (N,) nats: log-likelihood ratio of the pose over "nothing but noise"
    margin: Tensor  # (N,) nats: to the best other pose found, or to noise
    amplitude: Tensor  # (N,) of the map's view in the particle, beyond the outline: 1 where it shows the map
    amplitude_deviation: Tensor  # (N,) its s.d. by the noise

    @classmethod
    def cat(cls, parts: list["Poses"]) -> "Poses":
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Posterior:
    """What is known of the poses of N particles: L poses each, with weights."""

    rotations: Tensor  # (N, L, 3, 3)
    shifts: Tensor  # (N, L, 2) x, y in A
    weights: Tensor  # (N, L)

    @classmethod
    def certain(cls, rotations: Tensor, shifts: Tensor) -> "Posterior":
        """Of known poses, (N, 3, 3) and (N, 2)."""
        return cls(rotations[:, None], shifts[:, None], torch.ones(len(shifts), 1, device=shifts.device))


class HalfSet:
    """The particles of one half, to be matched with maps.

    Args:
        plan: of the run.
        particles: the run folder's particle STAR.
        half: 1 or 2.
    """

    def __init__(self, plan: Plan, particles: Path, half: int) -> None:
        s = plan.settings
        seed = int(np.random.SeedSequence([s.seed, half]).generate_state(1)[0])  # nothing random is shared
        self.images, simulator = build_simulator(plan, plan.box, particles, half, seed)
        self.simulator, self._views, self._generator = simulator, s.orientations, simulator.generator
        self._width = plan.box * plan.pixel_size
        rows = simulator.sample(NOISE_IMAGES).particles
        self._noise_power = radial_power(simulator.noise.sample(rows, self._generator))
        self.volume = Volume(plan.box, plan.mask_radius / plan.pixel_size, s.symmetry, plan.device)
        self.back = BackProjector(simulator.projector, self.volume)
        self.micro_batch = MicroBatch(CHUNK)
        self._group = torch.from_numpy(self.volume.point_group).float().to(plan.device)

    def __len__(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def match(self, density: Tensor, cutoff: float, advance: Callable[[int], object] = lambda _: None) -> Poses:
        """The best pose of each particle against a map (D, D, D), by its frequencies below `cutoff` (a shell).

        The best views of a bank, apart from each other, are climbed from at low frequencies; the best of them
        at all. `advance` is told of each so many particles that are done.
        """
        box, max_shift = self.simulator.projector.box, self.simulator.max_shift
        spectrum = self.simulator.projector.transform(density)
        fine, coarse = (Disc(box, each, device=density.device) for each in (cutoff, min(BANK_SHELL, cutoff)))
        views, coarse_views = self._look(spectrum, fine), self._look(spectrum, coarse)
        rotations = spread_rotations(max(1, self._views // len(self._group)), self.volume.point_group, self._generator)
        spacing = float((8 * torch.pi**2 / (len(rotations) * len(self._group))) ** (1 / 3))
        bank = coarse_views.bank(rotations, shift_grid(max_shift, SHIFT_SPACING * self._width, density.device))
        beyond = (fine.shell > OUTLINE_SHELL).float()

        def best_poses(half_planes: Tensor, transfer: Tensor) -> Poses:
            images = Observed(coarse.take(half_planes), coarse.take(transfer))
            climbs = [
                coarse_views.climb(images, *start, steps=COARSE_STEPS, largest=spacing, max_shift=max_shift)
                for start in self._candidates(bank, images, spacing)
            ]
            turns, shifts, scores = (torch.stack(each) for each in zip(*climbs, strict=True))
            for i in range(1, CANDIDATES):  # those that have climbed to the same place count once
                for j in range(i):
                    scores[i] = torch.where(self._angle(turns[i], turns[j]) < spacing / 2, -torch.inf, scores[i])
            images = Observed(fine.take(half_planes), fine.take(transfer))
            each = torch.arange(len(images), device=density.device)
            best = scores.topk(2, dim=0).indices
            first, second = (
                views.climb(
                    images, turns[i, each], shifts[i, each], steps=FINE_STEPS, largest=spacing / 2, max_shift=max_shift
                )
                for i in best
            )
            same = self._angle(first[0], second[0]) < spacing / 4
            other = torch.where(same | scores[best[1], each].isinf(), 0.0, torch.minimum(first[2], second[2]))
            swap = second[2] > first[2]
            rotations_found = torch.where(swap[:, None, None], second[0], first[0])
            shifts_found = torch.where(swap[:, None], second[1], first[1])
            agreement = torch.maximum(first[2], second[2])
            view, matched = views.samples(rotations_found), views.matched(images, shifts_found)
            energy = (images.transfer * view).abs().square() @ (views.precision * beyond)
            amplitude = (view.conj() * matched).real @ beyond / energy.clamp(min=1e-9)
            margin = agreement - other
            deviation = energy.clamp(min=1e-9).rsqrt()
            return Poses(rotations_found, shifts_found, agreement, margin, amplitude, deviation)

        def in_parts(half_planes: Tensor, transfer: Tensor, size: int) -> Poses:
            parts = zip(torch.split(half_planes, size), torch.split(transfer, size), strict=True)
            return Poses.cat([best_poses(*part) for part in parts])

        found = []
        for batch in self._batches():
            found.append(self.micro_batch.run(partial(in_parts, *batch)))
            advance(len(batch[0]))
        return Poses.cat(found)

    @torch.no_grad()
    def draw(self, density: Tensor, poses: Poses, cutoff: float, count: int) -> Posterior:
        """`count` poses of each particle from its posterior about `poses`, given a map (D, D, D); else as `match`."""
        disc = Disc(self.simulator.projector.box, cutoff, device=density.device)
        views = self._look(self.simulator.projector.transform(density), disc)

        def of_batch(images: Observed, rotations: Tensor, shifts: Tensor, size: int) -> list[Tensor]:
            parts = zip(images.split(size), torch.split(rotations, size), torch.split(shifts, size), strict=True)
            with_shifts = self.simulator.max_shift > 0
            drawn = [views.draw(*part, count, self._generator, with_shifts=with_shifts) for part in parts]
            return [torch.cat(each) for each in zip(*drawn, strict=True)]

        found = []
        best = zip(torch.split(poses.rotations, CHUNK), torch.split(poses.shifts, CHUNK), strict=True)
        for (half_planes, transfer), each in zip(self._batches(), best, strict=True):
            images = Observed(disc.take(half_planes), disc.take(transfer))
            found.append(self.micro_batch.run(partial(of_batch, images, *each)))
        return Posterior(*(torch.cat(each) for each in zip(*found, strict=True)))

    @torch.no_grad()
    def fit(self, density: Tensor, posterior: Posterior, cutoff: float, steps: int) -> Tensor:
        """Towards the least-squares map of poses with weights, from a map (D, D, D), by conjugate gradients.

        Minimises the posterior's mean of sum |y - C S P x|^2, with the noise whitened, among masked and symmetric
        maps, by their frequencies below `cutoff` (a shell). Few steps leave alone what the particles hardly say.
        """
        disc = Disc(self.simulator.projector.box, cutoff, device=density.device)
        spectrum = self.simulator.projector.transform(density)
        views = self._look(spectrum, disc)
        count = posterior.weights.shape[1]
        shares = torch.split(posterior.weights, CHUNK)
        rotations = [part.flatten(0, 1) for part in torch.split(posterior.rotations, CHUNK)]
        powers = [disc.take(transfer).square() * views.precision for _, transfer in self._batches()]
        window = (cutoff - self.back.radius).clamp(0.0, 1.0) * (self.back.radius > 0.5)
        means = [part.sum(1) @ power for part, power in zip(shares, powers, strict=True)]
        inverse = window / self.back.curvature(disc, torch.stack(means).sum(0) / len(self), len(self))

        def gather(values: Iterable[Tensor]) -> Tensor:
            total = torch.zeros_like(spectrum)
            for turns, part in zip(rotations, values, strict=True):
                self.back.add(total, disc, turns, part)
            gathered: Tensor = torch.fft.irfftn(self.back.finish(total), s=density.shape)
            return gathered

        def weighted(share: Tensor, values: Tensor) -> Tensor:
            """Values (B, K) for each of the particles' poses, (B L, K)."""
            return (share[:, :, None] * values[:, None]).flatten(0, 1)

        def normal(volume: Tensor) -> Tensor:
            seen = self._look(self.simulator.projector.transform(volume), disc)
            return gather(
                weighted(share, power) * seen.samples(turns)
                for share, power, turns in zip(shares, powers, rotations, strict=True)
            )

        def precondition(gradient: Tensor) -> Tensor:
            moved = torch.fft.irfftn(torch.fft.rfftn(gradient * self.volume.mask) * inverse, s=density.shape)
            result: Tensor = self.volume.symmetrise(moved * self.volume.mask)
            return result

        def matched(half_planes: Tensor, transfer: Tensor, share: Tensor, shifts: Tensor) -> Tensor:
            repeated = (disc.take(each).repeat_interleave(count, 0) for each in (half_planes, transfer))
            return share.flatten()[:, None] * views.matched(Observed(*repeated), shifts.flatten(0, 1))

        known = zip(self._batches(), shares, torch.split(posterior.shifts, CHUNK), strict=True)
        residual = gather(matched(*batch, share, shifts) for batch, share, shifts in known) - normal(density)
        direction = preconditioned = precondition(residual)
        size = (residual * preconditioned).sum()
        for _ in range(steps):
            turned = normal(direction)
            rate = size / (direction * turned).sum()
            density = density + rate * direction
            residual = residual - rate * turned
            preconditioned = precondition(residual)
            before, size = size, (residual * preconditioned).sum()
            direction = preconditioned + size / before * direction
        return density

    def _look(self, spectrum: Tensor, disc: Disc) -> Views:
        return Views(self.simulator.projector, spectrum, disc, self._noise_power, self._width)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Half-planes and CTFs (B, D, D // 2 + 1) of all particles in their order."""
        for start in range(0, len(self), CHUNK):
            rows = torch.arange(start, min(start + CHUNK, len(self)))
            images = torch.from_numpy(self.images.batch(rows.numpy())).to(self._generator.device)
            yield to_half_planes(images), self.simulator.transfer(rows.to(self._generator.device))

    def _candidates(self, bank: Bank, images: Observed, spacing: float) -> Iterator[tuple[Tensor, Tensor]]:
        """The best views of a bank, each farther than two spacings from those before."""
        agreements, _ = bank.agreements(images)
        over_shifts, shift = agreements.max(1)  # (B, M)
        for _ in range(CANDIDATES):
            index = over_shifts.argmax(1)
            each = torch.arange(len(index))
            rotation = bank.rotations[index]
            yield rotation, bank.shifts[shift[each, index]]
            traces = torch.einsum("gij,bjk,mik->gbm", self._group, rotation, bank.rotations).amax(0)
            near = ((traces - 1) / 2).clamp(-1, 1).acos() < 2 * spacing
            over_shifts = torch.where(near, -torch.inf, over_shifts)

    def _angle(self, first: Tensor, second: Tensor) -> Tensor:
        """Radians (B,) between rotations (B, 3, 3), up to the point group."""
        traces = torch.einsum("gij,bjk,bik->gb", self._group, first, second).amax(0)
        return ((traces - 1) / 2).clamp(-1, 1).acos()
