"""Maps on other grids, and of the other hand."""

import numpy as np
import numpy.typing as npt
from scipy import signal

from cryogan.errors import InputError
from cryogan.grids import centred_axis, interpolation_weights
from cryogan.validation.checks import Array, cubic, positive

WHOLE = 0.01  # voxels: a new box that is this near to a whole number of old voxels is cropped to it


def resample(volume: npt.ArrayLike, pixel_size: float, box: int, new_pixel_size: float) -> Array:
    """Resample a map onto a grid of another box and pixel size, centre voxel on centre voxel.

    If the new box is a whole number of old voxels wide, the map is cropped or zero-padded to it in space, and then its
    transform is cropped or zero-padded. Else the map is interpolated by its Fourier series, without the frequencies
    that the new grid cannot hold. Both are exact up to the lower Nyquist frequency; densities keep their values.

    Args:
        volume: (D, D, D).
        pixel_size: A, of the map.
        box: box of the new grid, voxels.
        new_pixel_size: A, of the new grid.

    Returns:
        (box, box, box); 0 where the old box does not reach.

    Raises:
        InputError: a box under 4, a pixel size not above 0, or a map that is not cubic or not finite.
    """
    array = cubic(volume)
    ratio = positive(new_pixel_size, "new pixel size") / positive(pixel_size, "pixel size")
    width = box * ratio
    if box < 4 or width < 4:
        raise InputError(
            f"A map of {pixel_size} A/px cannot be put on {box} voxels of {new_pixel_size} A. Choose a box of 4 or "
            f"more voxels, both new and old (it is {width:.2f})."
        )
    if abs(width - round(width)) <= WHOLE:
        array = np.fft.ifftshift(fit_box(array, round(width)))
        for axis in range(3):
            array = signal.resample(array, box, axis=axis)
        return np.fft.fftshift(array)
    weights = _fourier_weights(array.shape[0], box, ratio)
    for _ in range(3):  # each contraction puts the axis that it makes last
        array = np.tensordot(array, weights, axes=(0, 1))
    return array


def _fourier_weights(size: int, box: int, ratio: float) -> Array:
    """Weights (box, size) of the old voxels along an axis for the new ones, `ratio` old voxels apart."""
    place = centred_axis(box) * ratio
    weights = interpolation_weights(size, box, ratio)
    if size % 2 == 0 and ratio <= 1:  # an even box's Nyquist frequency, which the new grid holds
        weights += np.cos(np.pi * (place[:, None] - centred_axis(size))) / size
    weights[(place < -(size // 2)) | (place > (size - 1) // 2)] = 0
    return weights


def fit_box(volume: Array, box: int) -> Array:
    """Crop or zero-pad a map to (box, box, box) around its centre voxel."""
    size = volume.shape[0]
    start = size // 2 - box // 2
    source = slice(max(start, 0), min(start + box, size))
    place = slice(source.start - start, source.stop - start)
    fitted = np.zeros((box, box, box))
    fitted[place, place, place] = volume[source, source, source]
    return fitted


def flip_hand(volume: npt.ArrayLike) -> Array:
    """Mirror a map (D, D, D): x to -x about voxel D // 2, as `relion_image_handler --invert_hand` does."""
    array = cubic(volume)
    flipped = array[:, :, ::-1]
    return np.roll(flipped, 1, axis=2) if len(array) % 2 == 0 else flipped
