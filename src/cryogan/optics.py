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


def ctf_phase(k2: Values, wavelength_A: Values, defocus_A: Values, cs_mm: Values, constant: Values) -> Values:
    """Phase g of the CTF, -sin(g): equation (16) with the sign of `physics.ctf.ctf`.

    Args:
        k2: squared spatial frequency, 1/A^2.
        wavelength_A: wavelength of the electrons.
        defocus_A: defocus in the direction of k, positive is underfocus.
        cs_mm: spherical aberration.
        constant: phase shift and asin(amplitude contrast), radians.
    """
    cs = cs_mm * 1e7
    phase: Values = -np.pi * wavelength_A * defocus_A * k2 + np.pi / 2 * cs * wavelength_A**3 * (k2 * k2) - constant
    return phase
