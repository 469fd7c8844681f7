"""The most likely pose of each particle, given a map."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from cryogan.critics.matching.pose_optimiser import RefinedPoses, refine_poses
from cryogan.critics.matching.templates import Observed, angular_spacing
from cryogan.refinement.half_set import HalfSet

CANDIDATES = 4  # templates of the bank, from which the poses are refined at low frequencies
COARSE_STEPS, FINE_STEPS = 3, 6  # of Gauss-Newton at low frequencies, and of the best two at all


@dataclass(frozen=True)
class Poses:
    """The most likely poses of N particles, and how sure they are.

    Attributes:
        rotations: (N, 3, 3), slice frame to volume frame.
        shifts: (N, 2), x and y in A, the sign of _rlnOriginXAngst.
        log_likelihood_ratio: (N,), nats: of the pose over "nothing but noise".
        margin: (N,), nats: to the best other pose that was found, or to noise.
    """

    rotations: Tensor
    shifts: Tensor
    log_likelihood_ratio: Tensor
    margin: Tensor

    @classmethod
    def cat(cls, parts: list["Poses"]) -> "Poses":
        """Concatenate the poses of several sets of particles."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@torch.no_grad()
def search_poses(
    half: HalfSet,
    density: Tensor,
    cutoff: float,
    advance: Callable[[int], object] = lambda _: None,
    images: Iterable[tuple[Tensor, Tensor]] | None = None,
) -> Poses:
    """Find the most likely pose of each particle of a half, or of other images.

    Args:
        half: Particles.
        density: Map (D, D, D).
        cutoff: Shell; frequencies below it are compared.
        advance: Called with the number of particles of each batch that is done.
        images: Half-planes and CTFs (B, D, D // 2 + 1) in batches; None: those of the particles.
    """
    search, found = PoseSearch(half, density, cutoff), []
    for half_planes, transfer in half.batches() if images is None else images:
        found.append(half.micro_batch.run(partial(search, half_planes, transfer)))
        advance(len(half_planes))
    return Poses.cat(found)


class PoseSearch:
    """Search of poses against one map: a bank of templates, then Gauss-Newton at low and at all frequencies.

    The best templates of the bank, apart from each other, are refined at low frequencies, and the best two of them
    at all.

    Args:
        half: Particles.
        density: Map (D, D, D).
        cutoff: Shell; frequencies below it are compared.
    """

    def __init__(self, half: HalfSet, density: Tensor, cutoff: float) -> None:
        self._group, max_shift = half.group, half.simulator.max_shift
        spectrum = half.projector.transform(density)
        self._fine, self._coarse = (
            half.templates(spectrum, half.disc(shell)) for shell in (cutoff, min(half.bank_shell, cutoff))
        )
        self._bank = half.bank(self._coarse)
        self._spacing = angular_spacing(len(self._bank.rotations), len(half.group))
        self._refine_coarse = partial(
            refine_poses, self._coarse, steps=COARSE_STEPS, max_turn=self._spacing, max_shift=max_shift
        )
        self._refine_fine = partial(
            refine_poses, self._fine, steps=FINE_STEPS, max_turn=self._spacing / 2, max_shift=max_shift
        )

    def __call__(self, half_planes: Tensor, transfer: Tensor, size: int) -> Poses:
        """Find the poses of images with half-planes and CTFs (B, D, D // 2 + 1), `size` images at a time."""
        parts = zip(torch.split(half_planes, size), torch.split(transfer, size), strict=True)
        return Poses.cat([self._poses(*part) for part in parts])

    def _poses(self, half_planes: Tensor, transfer: Tensor) -> Poses:
        rotations, shifts, ratios = self._low_frequency_poses(Observed.on(self._coarse.disc, half_planes, transfer))
        images = Observed.on(self._fine.disc, half_planes, transfer)
        image = torch.arange(len(images), device=ratios.device)
        best = ratios.topk(2, dim=0).indices
        first, second = (self._refine_fine(images, rotations[i, image], shifts[i, image]) for i in best)
        same = self._angle(first.rotations, second.rotations) < self._spacing / 4
        ratio = torch.maximum(first.log_likelihood_ratio, second.log_likelihood_ratio)
        other = torch.minimum(first.log_likelihood_ratio, second.log_likelihood_ratio)
        other = torch.where(same | ratios[best[1], image].isinf(), 0.0, other)
        swap = second.log_likelihood_ratio > first.log_likelihood_ratio
        rotations = torch.where(swap[:, None, None], second.rotations, first.rotations)
        shifts = torch.where(swap[:, None], second.shifts, first.shifts)
        return Poses(rotations, shifts, ratio, ratio - other)

    def _low_frequency_poses(self, images: Observed) -> RefinedPoses:
        """Return the refined candidates, stacked; of those that meet at one pose all but the first are at -inf."""
        refined = [self._refine_coarse(images, *start) for start in self._candidates(images)]
        rotations, shifts, ratios = (torch.stack(values) for values in zip(*refined, strict=True))
        for i in range(1, CANDIDATES):
            for j in range(i):
                near = self._angle(rotations[i], rotations[j]) < self._spacing / 2
                ratios[i] = torch.where(near, -torch.inf, ratios[i])
        return RefinedPoses(rotations, shifts, ratios)

    def _candidates(self, images: Observed) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the best templates of the bank, each farther than two spacings from those before."""
        bank = self._bank
        ratios, _ = bank.log_likelihood_ratios(images)
        over_shifts, shift = ratios.max(1)  # (B, M)
        for _ in range(CANDIDATES):
            index = over_shifts.argmax(1)
            image = torch.arange(len(index))
            rotation = bank.rotations[index]
            yield rotation, bank.shifts[shift[image, index]]
            traces = torch.einsum("gij,bjk,mik->gbm", self._group, rotation, bank.rotations).amax(0)
            near = ((traces - 1) / 2).clamp(-1, 1).acos() < 2 * self._spacing
            over_shifts = torch.where(near, -torch.inf, over_shifts)

    def _angle(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the angles (B,), radians, between rotations (B, 3, 3), up to the point group."""
        traces = torch.einsum("gij,bjk,bik->gb", self._group, first, second).amax(0)
        return ((traces - 1) / 2).clamp(-1, 1).acos()
