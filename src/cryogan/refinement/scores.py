"""How well each particle shows a map at its pose."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.critics.matching.templates import Observed
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import Poses

OUTLINE_SHELL = 4  # up to which a blob of ice looks like any molecule
DETAIL_SHELL = 12  # up to which the signal of anything in the image stands out of the noise
TOLERANCE = 0.2  # of the projection's power, by which a particle may differ from it: maps are not perfect


@dataclass(frozen=True)
class Scores:
    """How well N particles show a map.

    Attributes:
        amplitude: (N,), of the map's projection in the particle: 1 where it shows the map, about 0 in noise.
        outline: (N,), logarithm of the power that the projection leaves in the shells of the outline, beyond what is
            tolerated: high where there is something else, such as ice.
        detail: (N,), the same in the shells beyond: high where there is more than one molecule.
    """

    amplitude: Tensor
    outline: Tensor
    detail: Tensor


@torch.no_grad()
def score_particles(half: HalfSet, density: Tensor, poses: Poses, cutoff: float) -> Scores:
    """Compare the particles of a half with a map at their poses.

    Args:
        half: Particles.
        density: Map (D, D, D).
        poses: Poses of the particles.
        cutoff: Shell; the map is compared below it.
    """
    disc = half.disc(min(max(cutoff, DETAIL_SHELL + 0.5), half.projector.box / 2))
    templates = half.templates(half.projector.transform(density), disc)
    compared = (disc.shell < cutoff).float()
    outline = (disc.shell <= OUTLINE_SHELL).float()
    detail = (disc.shell <= DETAIL_SHELL).float() - outline
    scores = []
    at_poses = zip(torch.split(poses.rotations, IMAGES_AT_ONCE), torch.split(poses.shifts, IMAGES_AT_ONCE), strict=True)
    for batch, pose in zip(half.batches(), at_poses, strict=True):
        model, residual, _ = templates.residual(Observed.on(disc, *batch), *pose)
        overlap = (model.conj() * (model + residual)).real @ compared
        power = model.abs().square()
        left = residual.abs().square() + TOLERANCE * power
        amplitude = overlap / (power @ compared).clamp(min=1e-9)
        scores.append(torch.stack([amplitude, (left @ outline).log(), (left @ detail).log()]))
    return Scores(*torch.cat(scores, dim=1))
