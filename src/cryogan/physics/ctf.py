"""The contrast transfer function C, equations (16) to (21), in RELION's sign: protein bright, underfocus positive."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields

import numpy as np
import torch
from torch import Tensor

from cryogan.fourier import frequencies
from cryogan.optics import ctf_phase, wavelength


@dataclass(frozen=True)
class CtfParameters:
    """CTF parameters of N particles; every field has shape (N,)."""

    defocus_u: Tensor  # A, positive = underfocus; may be smaller than defocus_v
    defocus_v: Tensor  # A
    defocus_angle: Tensor  # degrees, of the defocus_u axis, from x towards y
    voltage: Tensor  # kV
    spherical_aberration: Tensor  # mm
    amplitude_contrast: Tensor  # fraction, 0 to 1
    phase_shift: Tensor  # degrees
    b_factor: Tensor  # A^2, envelope exp(-B k^2 / 4)
    scale: Tensor
    phase_flipped: Tensor | None = None  # 1: the image was multiplied by the CTF's sign, so its factor is |CTF|; or 0

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, np.ndarray], *, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> "CtfParameters":
        """Take the parameters from the columns of a particle table, which have the names of the fields."""
        given = [f.name for f in fields(cls) if f.default is MISSING or f.name in columns]
        return cls(**{name: torch.as_tensor(columns[name], dtype=dtype, device=device) for name in given})

    def __len__(self) -> int:
        """Number N of particles."""
        return len(self.defocus_u)

    def __getitem__(self, rows: Tensor | slice) -> "CtfParameters":
        """Parameters of the particles `rows`."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return CtfParameters(**{name: values[rows] for name, values in columns.items() if values is not None})


def ctf(
    parameters: CtfParameters,
    box: int,
    pixel_size: float,
    *,
    envelope_at_nyquist: float = 1.0,
    aperture_cutoff: float = float("inf"),
) -> Tensor:
    """Compute CTFs on half-planes.

    With a = atan2(ky, kx), dz(a) = (U + V) / 2 + (U - V) / 2 cos 2 (a - a0) and
    g = -pi lambda dz k^2 + pi / 2 Cs lambda^3 k^4 - phase - atan(Q / sqrt(1 - Q^2)), the CTF is
    -sin(g) exp(-B k^2 / 4) scale. The paper's (19) is its negative, for dark protein; its (20) has 1/4
    lambda^3 where the literature and RELION have pi / 2 lambda^3. Of phase-flipped images it is the absolute value.

    Args:
        parameters: N rows.
        box: D, pixels.
        pixel_size: A.
        envelope_at_nyquist: value, in (0, 1], to which an additional envelope exp(-b k^2), equation (18),
            has fallen at k = 1 / (2 pixel_size).
        aperture_cutoff: 1/A; the objective aperture, equation (17), passes nothing beyond it.

    Returns:
        (N, D, D // 2 + 1), real.
    """
    p = parameters
    kx, ky = frequencies(box, pixel_size, device=p.defocus_u.device, dtype=p.defocus_u.dtype)
    k2 = kx.square() + ky.square()
    angle = torch.atan2(ky, kx)

    def column(values: Tensor) -> Tensor:
        return values[:, None, None]

    wave = column(wavelength(p.voltage))
    mean, difference = (p.defocus_u + p.defocus_v) / 2, (p.defocus_u - p.defocus_v) / 2
    defocus = column(mean) + column(difference) * torch.cos(2 * (angle - column(torch.deg2rad(p.defocus_angle))))
    amplitude = torch.asin(p.amplitude_contrast)  # = atan(Q / sqrt(1 - Q^2)), and finite at Q = 1
    constant = column(torch.deg2rad(p.phase_shift) + amplitude)
    gamma = ctf_phase(k2, wave, defocus, column(p.spherical_aberration), constant)
    envelope = torch.exp(-column(p.b_factor) / 4 * k2) * envelope_at_nyquist ** (k2 * (2 * pixel_size) ** 2)
    aperture = k2 <= aperture_cutoff**2
    transfer = -torch.sin(gamma) * envelope * aperture * column(p.scale)
    return transfer if p.phase_flipped is None else torch.where(column(p.phase_flipped > 0), transfer.abs(), transfer)


def objective_aperture_cutoff(diameter_um: float, focal_length_mm: float, voltage_kV: float) -> float:
    """Cut-off frequency of the objective aperture, 1/A: k = d / (f lambda), from omega = 2 pi k in equation (17)."""
    return diameter_um * 1e-3 / (focal_length_mm * wavelength(voltage_kV))
