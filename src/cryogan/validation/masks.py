"""Soft masks around a molecule, and the low-pass filter they are made with."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cryogan.errors import InputError
from cryogan.grids import centred_radius, falling_cosine
from cryogan.validation.checks import Array, cubic, half_frequency, positive

FILTER_WIDTH = 0.4  # of the cut-off frequency: soft enough that a molecule's surface does not ring
NOISE_MULTIPLE = 3.0
PEAK_FRACTION = 0.05
SMALLEST_COMPONENT = 0.01  # of the largest: keeps the parts of a molecule, drops specks of noise
SPHERE_EDGE = 0.1  # of the box


def low_pass(volume: npt.ArrayLike, pixel_size: float, resolution_A: float) -> Array:
    """The map (D, D, D) under a soft low-pass filter, float64.

    The filter is a raised cosine in frequency: 1 up to 0.8 / `resolution_A`, 0.5 at 1 / `resolution_A`, 0
    from 1.2 / `resolution_A` on (`pixel_size` and `resolution_A` in A). Raises `InputError` unless both are
    above 0.
    """
    array = cubic(volume)
    box = array.shape[0]
    cutoff = box * positive(pixel_size, "pixel size") / positive(resolution_A, "low-pass resolution")
    window = falling_cosine(half_frequency(box), cutoff * (1 - FILTER_WIDTH / 2), cutoff * FILTER_WIDTH)
    return np.fft.irfftn(np.fft.rfftn(array) * window, s=array.shape, axes=(0, 1, 2))


def spherical_mask(box: int, pixel_size: float, radius_A: float, edge_A: float) -> npt.NDArray[np.float32]:
    """Ball around the centre voxel (box, box, box): 1 up to `radius_A`, a raised cosine to 0 at `radius_A +
    edge_A`.

    Lengths in A. Raises `InputError` if the radius or pixel size is not above 0 or the edge is below 0.
    """
    if not edge_A >= 0:
        raise InputError(f"The edge of the mask is {edge_A} A: give 0 or more.")
    distance = centred_radius(box, axes=3) * positive(pixel_size, "pixel size")
    return falling_cosine(distance, positive(radius_A, "radius of the mask"), edge_A).astype(np.float32)


def soft_mask(
    volume: npt.ArrayLike,
    pixel_size: float,
    lowpass_A: float = 15.0,
    extend_voxels: float = 3.0,
    edge_voxels: float = 6.0,
) -> npt.NDArray[np.float32]:
    """Soft mask (D, D, D) in [0, 1] around the molecule of a map (usually the mean of two half maps).

    The map, protein bright, is low-passed to `lowpass_A` and its median, the solvent, taken off. Its noise is
    the larger of the robust s.d. (1.4826 MAD) outside the inscribed sphere, which is 0 where a map was
    masked, and the r.m.s. of the negative values, which noise mirrors and protein lacks. Density above the
    larger of 3 x noise and 5 % of the 99.9th percentile counts; of its connected components (26 neighbours)
    those of at least a hundredth of the largest stay, with their holes filled. They are extended by
    `extend_voxels` and fall to 0 over `edge_voxels`.

    If the largest component is smaller than a ball of radius `lowpass_A` (12 kDa at 15 A), as in noise or in
    an empty map, there is no molecule to follow: the result is a ball whose edge of a tenth of the box ends
    at the box's.

    `pixel_size` and `lowpass_A` in A. Raises `InputError` if the map is not cubic or not finite, or for a
    negative length.
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
    """Voxels (D, D, D) of the molecule in a low-passed map; None if none is larger than `smallest` voxels."""
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
