"""The voxel grid every measure here shares: cubic maps, axes z, y, x, centre voxel D//2."""

import math

import numpy as np
import numpy.typing as npt

from cryogan.errors import InputError

Array = npt.NDArray[np.float64]


def cubic(volume: npt.ArrayLike, name: str = "volume") -> Array:
    """The map as float64 (D, D, D); `InputError` unless it is cubic, at least 4 voxels wide and finite."""
    array = np.asarray(volume, dtype=np.float64)
    if array.ndim != 3 or len(set(array.shape)) != 1 or array.shape[0] < 4:
        raise InputError(f"The {name} has shape {array.shape}: give a cubic map of at least 4 voxels a side.")
    if not np.isfinite(array).all():
        raise InputError(f"The {name} holds values that are not finite: replace them before measuring.")
    return array


def positive(value: float, name: str) -> float:
    """The value; `InputError` unless it is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"The {name} is {value}: give a number above 0.")
    return float(value)


def radius(box: int) -> Array:
    """(D, D, D) distance from the centre voxel D//2, in voxels."""
    axis = np.arange(box) - box // 2
    squared = axis**2
    distance: Array = np.sqrt(squared[:, None, None] + squared[:, None] + squared)
    return distance


def half_frequency(box: int) -> Array:
    """(D, D, D//2+1) frequency |k| in shells, laid out as `numpy.fft.rfftn` does."""
    squared = (np.fft.fftfreq(box) * box) ** 2
    last = np.arange(box // 2 + 1) ** 2
    frequency: Array = np.sqrt(squared[:, None, None] + squared[:, None] + last)
    return frequency


def falling_cosine(distance: Array, start: float, width: float) -> Array:
    """1 up to `start`, 0 from `start + width` on, half a cosine period between (a step where width is 0)."""
    if width == 0:
        return (distance <= start).astype(np.float64)
    edge: Array = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - start) / width, 0, 1))
    return edge


def flip_hand(volume: npt.ArrayLike) -> Array:
    """The mirror image of a map (D, D, D), x to -x about voxel D // 2: `relion_image_handler --invert_hand`."""
    array = cubic(volume)
    flipped = array[:, :, ::-1]
    return np.roll(flipped, 1, axis=2) if len(array) % 2 == 0 else flipped
