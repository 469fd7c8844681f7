"""What a map has beside its outline: numbers that say how round it is, how empty its border, and which way up."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.stats import skew

from cryogan.grids import centred_radius, frequency_radius
from cryogan.validation.checks import Array, cubic
from cryogan.validation.masks import low_pass

OUTLINE_A, OUTLINE_SHARE, DENSEST = 30.0, 0.25, 0.999  # the molecule's outline, and the quantile that is its density
COARSE_WAVES = 1.5  # cycles per box
BORDER = 0.9  # of the mask's radius: beyond is its border


@dataclass(frozen=True)
class Shape:
    """How round a map is, how much of it is at the border of the sphere that it was made in, and which way up it is.

    Attributes:
        radial_share: Share of the map's variance within the sphere that its radial average explains: 1 for a ball or a
            hollow shell.
        border: Root mean square at the border of the sphere, over that within the molecule's mask.
        skewness: Third standardised moment of the density in the box, without its coarsest waves: positive for a
            molecule, a small, dense part of its box; negative for inverted contrast, a hole in a ball.
    """

    radial_share: float
    border: float
    skewness: float


def radial_average(volume: npt.ArrayLike) -> Array:
    """Return the mean of a map (D, D, D) over the sphere at each radius about the centre voxel, (D, D, D)."""
    array = cubic(volume)
    radius = centred_radius(len(array), axes=3)
    shell = np.rint(radius).astype(int).ravel()
    mean = np.bincount(shell, array.ravel()) / np.bincount(shell).clip(min=1)
    return np.asarray(np.interp(radius, np.arange(len(mean)), mean))


def molecule_diameter(volume: npt.ArrayLike, pixel_size: float) -> float:
    """Return the diameter, A, of a ball of the molecule's volume: of what is over a quarter of the densest, at 30 A.

    A mask is wider: it holds the surface as the half maps' noise lets it be seen, and its soft edge.

    Args:
        volume: (D, D, D).
        pixel_size: A.

    Raises:
        InputError: If the map is not cubic or not finite.
    """
    density = low_pass(volume, pixel_size, max(OUTLINE_A, 2 * pixel_size))
    voxels = np.count_nonzero(density > OUTLINE_SHARE * np.quantile(density, DENSEST))
    return float((6 / np.pi * voxels) ** (1 / 3) * pixel_size)


def shape_of(
    volume: npt.ArrayLike, pixel_size: float, resolution_A: float, mask: npt.ArrayLike, radius_A: float
) -> Shape:
    """Return how round a map is, how empty its border, and which way up it is.

    Args:
        volume: (D, D, D).
        pixel_size: A.
        resolution_A: Finer detail is left out.
        mask: Soft mask around the molecule, (D, D, D).
        radius_A: Radius of the sphere that the map was made in.

    Raises:
        InputError: If the map is not cubic or not finite.
    """
    density = low_pass(volume, pixel_size, max(resolution_A, 2 * pixel_size))
    inside, weight = centred_radius(len(density), axes=3) * pixel_size <= radius_A, cubic(mask, "mask")
    border = inside & (centred_radius(len(density), axes=3) * pixel_size > BORDER * radius_A)
    average = radial_average(density)[inside]
    explained = np.corrcoef(density[inside], average)[0, 1] ** 2
    background = float(np.median(density[inside & (weight < 0.5)])) if (inside & (weight < 0.5)).any() else 0.0
    signal = np.sqrt(np.average((density - background) ** 2, weights=weight))
    at_border = np.sqrt(np.mean((density[border] - background) ** 2)) / signal
    return Shape(float(explained), float(at_border), float(skew(_without_ball(density), axis=None)))


def _without_ball(density: Array) -> Array:
    """Return a map without its shells 0 and 1: the sphere that it was made in, filled or empty."""
    spectrum = fft.rfftn(density) * (frequency_radius(len(density), axes=3) >= COARSE_WAVES)
    return fft.irfftn(spectrum, s=density.shape, axes=(0, 1, 2))
