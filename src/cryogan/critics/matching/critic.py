"""Equation (iii) of docs/method.md: the critic that is computed instead of trained.

The critic's one parameter is a volume w. It attends to the poses g of the current map x at which an image y is likely,
and scores the image by its projections there: f_w(y) = sum_g a_g(y) <C S P_g w, y>. Its maximum under a penalty on its
gradient is

    w = H^-1 [ E B(real) - E B(simulated) ],    B(y) = sum_g a_g(y) P_g* S* C y,    H = E P* C^2 P

`StreamDifference` is the bracket, summed image by image: P_g* of what `templates.py` attends to. `normal_diagonal` is
H, diagonal by the slice theorem. `optimal_critic` is w, by which the map moves, up to a rate. The initial search,
frequency marching and the division of classes all take their steps from here. Equal distributions give w = 0 whatever
the attention is: an image at a wrong pose, real or simulated, adds the same to both means.
"""

import torch
from torch import Tensor

from cryogan.critics.matching.templates import Templates
from cryogan.fourier import Disc
from cryogan.parallel.ranks import Ranks
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.volume import Volume

WINDOW_SHELLS = 1.5  # over which the frequencies below the cut-off fade out


def optimal_critic(difference: Tensor, normal_diagonal: Tensor) -> Tensor:
    """Compute the critic's volume w: equation (iii) of docs/method.md, H^-1 [E B(real) - E B(simulated)].

    Args:
        difference: Sum of B(real) - B(simulated) over N images of each stream, (D, D, D // 2 + 1), from
            `StreamDifference`.
        normal_diagonal: H summed over N images, (D, D, D // 2 + 1), from `normal_diagonal`.

    Returns:
        w in Fourier space, (D, D, D // 2 + 1).
    """
    return difference / normal_diagonal


class StreamDifference:
    """Sum of B(real) - B(simulated) of (iii) over images; real images are added, simulated ones with a minus sign.

    Args:
        back: Back-projection P*.
        disc: Coefficients of the images that take part, K of them.
        spectrum: Transform of a map, for the sum's shape.
    """

    def __init__(self, back: BackProjector, disc: Disc, spectrum: Tensor) -> None:
        self._back, self._disc, self._sum = back, disc, torch.zeros_like(spectrum)

    def add(self, rotations: Tensor, attended: Tensor) -> None:
        """Add P_g* of a_g S* C y, (B, K) complex, at rotations (B, 3, 3)."""
        self._back.add(self._sum, self._disc, rotations, attended)

    def total(self, ranks: Ranks) -> Tensor:
        """Return the sum over the images of all processes, masked and symmetric, (D, D, D // 2 + 1)."""
        total = self._back.finish(self._sum)
        ranks.sum(total)
        return total


def normal_diagonal(
    back: BackProjector, templates: Templates, power: Tensor, images: float, poses: PoseDistribution | None
) -> Tensor:
    """Return H of (iii) summed over images, (D, D, D // 2 + 1).

    Args:
        back: Back-projection P*.
        templates: Templates of the map, for their disc and the noise.
        power: Mean of C^2 over images, (K,).
        images: Number of images that show a particle.
        poses: Distribution of the view directions; None: uniform.
    """
    return back.normal_diagonal(templates.disc, power * templates.precision, images, poses)


def band_limited(spectrum: Tensor, cutoff: float, back: BackProjector, volume: Volume) -> Tensor:
    """Return the map (D, D, D) of a spectrum below a cut-off, masked and symmetric.

    Its mean is left out: no image tells it from background.
    """
    window = (cutoff - back.radius).clamp(0.0, WINDOW_SHELLS) / WINDOW_SHELLS * (back.radius > 0.5)
    density = torch.fft.irfftn(spectrum * window, s=volume.density.shape)
    result: Tensor = volume.symmetrise(density * volume.mask)
    return result
