"""The best pose of each image under each class: in a bank of templates, then by Gauss-Newton."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cryogan.critics.matching.pose_optimiser import refine_poses
from cryogan.critics.matching.templates import Observed, TemplateBank, Templates
from cryogan.critics.micro_batch import MicroBatch


@dataclass(frozen=True)
class BestPoses:
    """The best poses of B images under K classes.

    Attributes:
        images: The images, on the disc of the cut-off.
        rotations: (B, K, 3, 3).
        shifts: (B, K, 2), A.
        log_likelihood_ratios: (B, K), nats.
        p_particle: (B, K), the probability that the image shows a whole particle at that pose.
    """

    images: Observed
    rotations: Tensor
    shifts: Tensor
    log_likelihood_ratios: Tensor
    p_particle: Tensor


@dataclass(frozen=True)
class PoseMatcher:
    """Finds the best poses of images under the maps of K classes.

    Attributes:
        spectra: Transforms of the maps, K of them.
        coarse: Templates of each map at low frequencies.
        banks: Bank of `coarse` templates of each map.
        fine: Templates of each map up to the cut-off.
        spacing: Angle between the rotations of the banks, radians.
        max_shift: Bound of each shift, A.
        whole_radius_A: Largest shift at which a particle is whole, A; beyond it `p_particle` is 0.
        micro_batch: Number of images that are processed at once.
    """

    spectra: Sequence[Tensor]
    coarse: Sequence[Templates]
    banks: Sequence[TemplateBank]
    fine: Sequence[Templates]
    spacing: float
    max_shift: float
    whole_radius_A: float
    micro_batch: MicroBatch

    def __call__(self, half_planes: Tensor, transfer: Tensor) -> BestPoses:
        """Find the best poses of images with half-planes and CTFs (B, D, D // 2 + 1)."""
        coarse = Observed.on(self.coarse[0].disc, half_planes, transfer)
        fine = Observed.on(self.fine[0].disc, half_planes, transfer)
        return BestPoses(fine, *self.micro_batch.run(partial(self._in_parts, coarse, fine)))

    def _in_parts(self, coarse: Observed, fine: Observed, size: int) -> list[Tensor]:
        parts = [
            [torch.stack(values, dim=1) for values in zip(*self._of_classes(*pair), strict=True)]
            for pair in zip(coarse.split(size), fine.split(size), strict=True)
        ]
        return [torch.cat(values) for values in zip(*parts, strict=True)]

    def _of_classes(self, low: Observed, high: Observed) -> list[tuple[Tensor, ...]]:
        """Return rotations, shifts, log-likelihood ratios and p_particle of each class."""
        found: list[tuple[Tensor, ...]] = []
        refine = partial(refine_poses, max_shift=self.max_shift)
        for bank, coarse, fine in zip(self.banks, self.coarse, self.fine, strict=True):
            rotations, shifts, p_particle = bank.best(low)
            near = refine(coarse, low, rotations, shifts, steps=1, max_turn=self.spacing)
            best = refine(fine, high, near.rotations, near.shifts, steps=2, max_turn=self.spacing / 2)
            found.append((*best, p_particle[:, 0] * (best.shifts.norm(dim=1) <= self.whole_radius_A)))
        return found
