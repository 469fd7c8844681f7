"""Soft masks around a molecule, and the low-pass filter they are made with."""

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from cryogan.errors import InputError
from cryogan.grids import centred_radius, falling_cosine
from cryogan.validation.checks import Array, cubic, half_frequency, positive

FILTER_WIDTH = 0.4  # of the cut-off frequency: soft enough that a molecule's surface does not ring
NOISE_MULTIPLE = 3.0
PEAK_FRACTION = 0.05
SMALLEST_COMPONENT = 0.01  # of the largest: keeps the parts of a molecule, drops specks of noise
ROUNDING = 1e-3  # of a mask's values, by programs that filter it
SPHERE_EDGE = 0.1  # of the box


def low_pass(volume: npt.ArrayLike, pixel_size: float, resolution_A: float) -> Array:
    """Low-pass filter a map with a soft edge.

    The filter is a raised cosine in frequency: 1 up to 0.8 / `resolution_A`, 0.5 at 1 / `resolution_A`, 0
    from 1.2 / `resolution_A` on.

    Args:
        volume: (D, D, D).
        pixel_size: A.
        resolution_A: A.

    Returns:
        (D, D, D) float64.

    Raises:
        InputError: a length is not above 0, or the map is not cubic or not finite.
    """
    array = cubic(volume)
    box = array.shape[0]
    cutoff = box * positive(pixel_size, "pixel size") / positive(resolution_A, "low-pass resolution")
    window = falling_cosine(half_frequency(box), cutoff * (1 - FILTER_WIDTH / 2), cutoff * FILTER_WIDTH)
    return fft.irfftn(fft.rfftn(array) * window, s=array.shape, axes=(0, 1, 2))


def spherical_mask(box: int, pixel_size: float, radius_A: float, edge_A: float) -> npt.NDArray[np.float32]:
    """Make a ball around the centre voxel, with a raised-cosine edge outside its radius.

    Args:
        box: voxels.
        pixel_size: A.
        radius_A: the mask is 1 up to here.
        edge_A: width of the edge; the mask is 0 from `radius_A + edge_A` on.

    Returns:
        (box, box, box) in [0, 1].

    Raises:
        InputError: the radius or pixel size is not above 0, or the edge is below 0.
    """
    if not edge_A >= 0:
        raise InputError(f"The edge of the mask is {edge_A} A. Give 0 or more.")
    distance = centred_radius(box, axes=3) * positive(pixel_size, "pixel size")
    return falling_cosine(distance, positive(radius_A, "radius of the mask"), edge_A).astype(np.float32)


def check_mask(mask: npt.ArrayLike, box: int) -> Array:
    """Check that an array can be the mask of a map.

    Args:
        mask: (D, D, D).
        box: D of the map.

    Returns:
        The mask, float64.

    Raises:
        InputError: it has another box, values outside [0, 1], no voxel above 0, or is inverted: most of the space
            outside the inscribed sphere is in it, and less of that within.
    """
    array = cubic(mask, "mask")
    if array.shape[0] != box:
        raise InputError(f"The mask has {array.shape[0]} voxels a side, the map {box}. Resample one.")
    low, high = float(array.min()) + 0.0, float(array.max()) + 0.0  # no -0
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(f"The mask's values go from {low:g} to {high:g}. Scale it to 0 outside and 1 inside.")
    if high <= ROUNDING:
        raise InputError("The mask is empty, no voxel is above 0. Make it again, with a lower threshold.")
    outside = centred_radius(box, axes=3) > box / 2
    if array[outside].mean() > max(0.5, array[~outside].mean() + ROUNDING):
        raise InputError("The mask is larger in the corners of the box than within: it is inverted. Give 1 minus it.")
    return array


def soft_mask(
    volume: npt.ArrayLike,
    pixel_size: float,
    lowpass_A: float = 15.0,
    extend_voxels: float = 3.0,
    edge_voxels: float = 6.0,
) -> npt.NDArray[np.float32]:
    """Make a soft mask around the molecule of a map (usually the mean of two half maps).

    The map is low-pass filtered and its median, the solvent, subtracted. Its noise is the larger of the robust
    s.d. (1.4826 MAD) outside the inscribed sphere, which is 0 if the map was masked, and the r.m.s. of the
    negative values, which noise mirrors and protein lacks. The molecule is the density above the larger of 3 x
    noise and 5 % of the 99.9th percentile; of its connected components (26 neighbours) those of at least a
    hundredth of the largest stay, with their holes filled.

    If the largest component is smaller than a ball of radius `lowpass_A` (12 kDa at 15 A), as in noise or in
    an empty map, there is no molecule to follow: the result is a ball with an edge of a tenth of the box that
    ends at the box's side.

    Args:
        volume: map (D, D, D), protein bright.
        pixel_size: A.
        lowpass_A: resolution of the low-pass filter, A.
        extend_voxels: how far the mask goes beyond the molecule.
        edge_voxels: width of the raised-cosine edge outside that.

    Returns:
        (D, D, D) in [0, 1].

    Raises:
        InputError: the map is not cubic or not finite, or a length is negative.
    """
    array = cubic(volume)
    box = array.shape[0]
    if not (extend_voxels >= 0 and edge_voxels >= 0):
        raise InputError(f"Extension {extend_voxels} and edge {edge_voxels} of the mask must be 0 voxels or more.")
    density = low_pass(array, pixel_size, lowpass_A)
    molecule = _molecule(density, smallest=4 / 3 * np.pi * (lowpass_A / pixel_size) ** 3)
    if molecule is None:
        edge = SPHERE_EDGE * box * pixel_size
        return spherical_mask(box, pixel_size, box // 2 * pixel_size - edge, edge)
    distance = ndimage.distance_transform_edt(~molecule)
    return falling_cosine(distance, extend_voxels, edge_voxels).astype(np.float32)


def _molecule(density: Array, smallest: float) -> npt.NDArray[np.bool_] | None:
    """Find the voxels (D, D, D) of the molecule in a low-passed map; None if it has under `smallest` voxels."""
    density = density - np.median(density)
    outside = density[centred_radius(density.shape[0], axes=3) > density.shape[0] / 2]
    negative = density[density < 0]
    if not negative.size:
        return None
    noise = max(1.4826 * float(np.median(np.abs(outside))), float(np.sqrt(np.mean(negative**2))))
    threshold = max(NOISE_MULTIPLE * noise, PEAK_FRACTION * float(np.quantile(density, 0.999)))
    labels, _ = ndimage.label(density > threshold, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = sizes.max()
    if largest < smallest:
        return None
    kept: npt.NDArray[np.bool_] = (sizes >= SMALLEST_COMPONENT * largest)[labels]
    return ndimage.binary_fill_holes(kept)
