"""Checks of the maps and numbers that every measure here takes."""

import math

import numpy as np
import numpy.typing as npt

from cryogan.errors import InputError
from cryogan.grids import frequency_axis, squared_norm

Array = npt.NDArray[np.float64]


def cubic(volume: npt.ArrayLike, name: str = "volume") -> Array:
    """The map as float64 (D, D, D); `InputError` unless it is cubic, at least 4 voxels wide and finite."""
    array = np.asarray(volume, dtype=np.float64)
    if array.ndim != 3 or len(set(array.shape)) != 1 or array.shape[0] < 4:
        raise InputError(f"The {name} has shape {array.shape}. Give a cubic map of at least 4 voxels a side.")
    if not np.isfinite(array).all():
        raise InputError(f"The {name} holds values that are not finite. Replace them before measuring.")
    return array


def positive(value: float, name: str) -> float:
    """The value; `InputError` unless it is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"The {name} is {value}. Give a number above 0.")
    return float(value)


def half_frequency(box: int) -> Array:
    """(D, D, D//2+1) frequency |k| in shells, laid out as `numpy.fft.rfftn` does."""
    return np.sqrt(
        squared_norm(frequency_axis(box, 1.0) * box, frequency_axis(box, 1.0) * box, np.arange(box // 2 + 1))
    )
