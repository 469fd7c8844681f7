"""The posterior of the particles' poses, given a map."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cryogan.critics.matching.pose_optimiser import sample_poses
from cryogan.critics.matching.templates import Observed
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import Poses


@dataclass(frozen=True)
class Posterior:
    """What is known of the poses of N particles: L poses of each, with weights.

    Attributes:
        rotations: (N, L, 3, 3).
        shifts: (N, L, 2), x and y in A.
        weights: (N, L).
    """

    rotations: Tensor
    shifts: Tensor
    weights: Tensor

    @classmethod
    def certain(cls, rotations: Tensor, shifts: Tensor) -> "Posterior":
        """Return the posterior of known poses, (N, 3, 3) and (N, 2) in A."""
        return cls(rotations[:, None], shifts[:, None], torch.ones(len(shifts), 1, device=shifts.device))


@torch.no_grad()
def sample_posterior(half: HalfSet, density: Tensor, poses: Poses, cutoff: float, count: int) -> Posterior:
    """Sample poses of each particle from its posterior about the most likely pose.

    Args:
        half: Particles.
        density: Map (D, D, D).
        poses: Most likely poses.
        cutoff: Shell; frequencies below it are compared.
        count: Number of samples of each particle, L.
    """
    disc = half.disc(cutoff)
    templates = half.templates(half.projector.transform(density), disc)
    with_shifts = half.simulator.max_shift > 0

    def sampled(images: Observed, rotations: Tensor, shifts: Tensor, size: int) -> list[Tensor]:
        parts = zip(images.split(size), torch.split(rotations, size), torch.split(shifts, size), strict=True)
        samples = [sample_poses(templates, *part, count, half.generator, with_shifts=with_shifts) for part in parts]
        return [torch.cat(values) for values in zip(*samples, strict=True)]

    found = []
    best = zip(torch.split(poses.rotations, IMAGES_AT_ONCE), torch.split(poses.shifts, IMAGES_AT_ONCE), strict=True)
    for batch, (rotations, shifts) in zip(half.batches(), best, strict=True):
        images = Observed.on(disc, *batch)
        found.append(half.micro_batch.run(partial(sampled, images, rotations, shifts)))
    return Posterior(*(torch.cat(values) for values in zip(*found, strict=True)))
