"""Electron optics that both the simulated and the real images need; works on NumPy arrays and PyTorch tensors."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", float, NDArray[np.float64], "Tensor")


def wavelength(voltage_kV: Values) -> Values:
    """Relativistic electron wavelength in A (0.0196876 at 300 kV)."""
    volt = voltage_kV * 1e3
    wave: Values = 12.2643247 / (volt * (1.0 + volt * 0.978466e-6)) ** 0.5
    return wave
