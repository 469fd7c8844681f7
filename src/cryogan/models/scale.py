"""The scale of a model's volume, and the check of its sizes."""

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError


def unit_maximum(volume: NDArray[np.float64]) -> NDArray[np.float32]:
    """The volume (D, D, D), scaled to a maximum of 1."""
    scaled: NDArray[np.float32] = (volume / volume.max()).astype(np.float32)
    return scaled


def require_positive(**sizes: float) -> None:
    """Check that every size is positive.

    Raises:
        InputError: a size is zero, negative or not a number; the message has its name.
    """
    for name, value in sizes.items():
        if not value > 0:
            raise InputError(f"{name} is {value}, but a size must be positive. Give a value above 0.")
