"""Grids of images, volumes and their Fourier transforms, in NumPy: axes, radii, soft edges, cropped spectra.

Real space is measured in pixels from the centre pixel D // 2. Fourier space is laid out as `numpy.fft.fft` does, the
last axis of a *half spectrum* as `numpy.fft.rfft` does, D // 2 + 1 columns. Frequencies are in cycles per box, whole
numbers along an axis, unless a pixel size is given. `fourier.frequencies` makes them in PyTorch, on a device.
"""

import functools
import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

Complex = TypeVar("Complex", np.complex64, np.complex128)


def centred_axis(box: int) -> NDArray[np.int64]:
    """Coordinates (D,) of the pixels along an axis, from the centre pixel D // 2."""
    return np.arange(box) - box // 2


def centred_radius(box: int, axes: int = 2) -> NDArray[np.float64]:
    """Distances (D, D), or (D, D, D) for three axes, of the pixels from the centre pixel D // 2."""
    radius: NDArray[np.float64] = np.sqrt(squared_norm(*[centred_axis(box)] * axes))
    return radius


def frequency_axis(box: int, pixel_size: float | None = None) -> NDArray[np.float64]:
    """Frequencies (D,) along an axis, cycles per box; cycles per length if a pixel size (a length) is given."""
    # `fftfreq(box, 1 / box)` is not always whole.
    axis = np.fft.ifftshift(centred_axis(box)) if pixel_size is None else np.fft.fftfreq(box, pixel_size)
    return axis.astype(np.float64)


def frequency_radius(box: int, axes: int = 2, pixel_size: float | None = None) -> NDArray[np.float64]:
    """Frequencies |k| of a half spectrum, (D, D // 2 + 1) or (D, D, D // 2 + 1); units as for `frequency_axis`."""
    axis = frequency_axis(box, pixel_size)
    radius: NDArray[np.float64] = np.sqrt(squared_norm(*[axis] * (axes - 1), axis[: box // 2 + 1]))
    return radius


def squared_norm(*axes: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared lengths of the vectors of all combinations of coordinates; an array with one axis for each axis given."""
    squares: NDArray[np.float64] = functools.reduce(np.add.outer, [np.square(axis, dtype=np.float64) for axis in axes])
    return squares


def falling_cosine(distance: NDArray[np.float64], start: float, width: float) -> NDArray[np.float64]:
    """A soft edge: 1 up to `start`, 0 from `start + width` on, half a cosine period between; a step if width is 0."""
    if width == 0:
        return (distance <= start).astype(np.float64)
    edge: NDArray[np.float64] = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - start) / width, 0, 1))
    return edge


def interpolation_weights(box: int, new_box: int, step: float) -> NDArray[np.float64]:
    """Weights with which pixels along an axis are interpolated trigonometrically on another grid of the same centre.

    The frequencies below the Nyquist frequencies of both grids are interpolated exactly, others are left out.

    Args:
        box: pixels that there are; the line is taken to be periodic.
        new_box: pixels of the new grid.
        step: distance of the new pixels, in old ones.

    Returns:
        (new_box, box); the interpolated line is `weights @ line`.
    """
    distance = step * centred_axis(new_box)[:, None] - centred_axis(box)
    limit = box / 2 if step <= 1 else box / (2 * step)
    terms = 2 * math.ceil(limit) - 1  # frequencies below the limit, both signs and 0
    weights: NDArray[np.float64] = special.diric(2 * np.pi / box * distance, terms) * terms / box
    return weights


def fit_spectrum(spectrum: NDArray[Complex], box: int, axes: int = 2) -> NDArray[Complex]:
    """Crop a half spectrum to a smaller box, or pad it with zeros to a larger one.

    Values are copied; a change of scale, and what becomes of the Nyquist frequency of an even box, is the caller's.

    Args:
        spectrum: (..., D, D // 2 + 1), or (..., D, D, D // 2 + 1).
        box: D of the result.
        axes: number of axes of the image or volume, the last ones of `spectrum`.

    Returns:
        Half spectrum of the new box.
    """
    kept = min(spectrum.shape[-2], box)
    index = np.fft.ifftshift(centred_axis(kept))
    stack = spectrum.reshape(-1, *spectrum.shape[-axes:])
    keep = np.ix_(np.arange(len(stack)), *[index] * (axes - 1), np.arange(kept // 2 + 1))
    fitted = np.zeros((len(stack), *[box] * (axes - 1), box // 2 + 1), dtype=spectrum.dtype)
    fitted[keep] = stack[keep]
    return fitted.reshape(*spectrum.shape[:-axes], *fitted.shape[1:])
