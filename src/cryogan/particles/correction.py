"""Images freed of anisotropic magnification, beam tilt and trefoil when they are read.

Of the image I that equation (1) describes, a microscope with these aberrations makes one with the Fourier transform

    I(M k) exp(i phi(M k))
    phi(k) = -2 pi Cs lambda^2 |k|^2 (tilt . k) + trefoil_x (kx^3 - 3 kx ky^2) + trefoil_y (3 kx^2 ky - ky^3)

with the matrix M, the beam tilt in radians and k in 1/A; the columns of the particle table are those of
`aberrations.EXTRA_DEFAULTS`. Checked against RELION 3.1.3's `relion_reconstruct`. |exp(i phi)| is 1: white noise stays
white when the phase is taken out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryogan.grids import centred_axis, frequency_axis, interpolation_weights
from cryogan.optics import wavelength
from cryogan.particles.aberrations import EXTRA_DEFAULTS

MAGNIFICATION = ("magnification_00", "magnification_01", "magnification_10", "magnification_11")
ODD = ("beam_tilt_x", "beam_tilt_y", "trefoil_x", "trefoil_y")
CORRECTED = frozenset({*MAGNIFICATION, *ODD})

Columns = Mapping[str, NDArray[np.float64]]


def correct(images: NDArray[np.float32], ctf: Columns, pixel_size: float) -> NDArray[np.float32]:
    """Take the aberrations out of images.

    Args:
        images: (B, D, D), as in the file.
        ctf: columns (B,) of the images' rows; without any of `CORRECTED` the images are returned as they are. Where
            voltage or spherical aberration is NaN, as of background patches, the phase is left.
        pixel_size: A.

    Returns:
        (B, D, D) float32.
    """
    if not CORRECTED & ctf.keys():
        return images
    names = (*MAGNIFICATION, *ODD, "voltage", "spherical_aberration")
    optics, group = np.unique(_table(ctf, names), axis=0, return_inverse=True)
    corrected = np.empty_like(images)
    for number, values in enumerate(optics):
        rows, matrix = group.ravel() == number, values[:4].reshape(2, 2)
        part = images[rows]
        if not np.array_equal(matrix, np.eye(2)):
            part = undo_magnification(part, matrix)
        if values[4:8].any() and np.isfinite(values).all():
            part = undo_phase(part, odd_phase(images.shape[-1], pixel_size, *values[4:]))
        corrected[rows] = part
    return corrected


def _table(ctf: Columns, names: Sequence[str]) -> NDArray[np.float64]:
    """Put columns beside each other, (N, columns), absent ones with their defaults."""
    count = len(ctf["voltage"])
    columns = [ctf[name] if name in ctf else np.full(count, EXTRA_DEFAULTS[name]) for name in names]
    return np.stack(columns, axis=1)


def undo_magnification(images: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Resample images (B, D, D) whose transform is I(M k) to those whose transform is I(k).

    In real space the result at r is |det M| times the image at M^T r, from the centre pixel D // 2. M^T is written as
    two shears and two stretches, each of which acts along one axis and interpolates there exactly, as a trigonometric
    polynomial does: frequencies stay as they are but for those within |M - 1| of the Nyquist frequency.

    Args:
        images: D even.
        matrix: M, (2, 2), close to 1.
    """
    (a, b), (c, d) = matrix.T
    axis = centred_axis(images.shape[-1])
    images = _shift_lines(images, c / a * axis, axis=-2)  # at (x, y + c / a x)
    images = images @ _stretched(len(axis), a).T
    images = _stretched(len(axis), d - b * c / a) @ images
    images = _shift_lines(images, b / a * axis, axis=-1)  # at (x + b / a y, y)
    return images * np.float32(abs(np.linalg.det(matrix)))


def _shift_lines(images: NDArray[np.float32], places: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    """Sample the lines along an axis (-1: rows, -2: columns) of images (B, D, D) at their pixels + places (D,)."""
    box = images.shape[-1]
    phase = np.exp(2j * np.pi / box * np.outer(places, np.arange(box // 2 + 1))).astype(np.complex64)
    shifted: NDArray[np.float32] = fft.irfft(
        fft.rfft(images, axis=axis) * (phase if axis == -1 else phase.T), n=box, axis=axis
    )
    return shifted


def _stretched(box: int, step: float) -> NDArray[np.float32]:
    return interpolation_weights(box, box, step).astype(np.float32)


def odd_phase(
    box: int,
    pixel_size: float,
    beam_tilt_x: float,
    beam_tilt_y: float,
    trefoil_x: float,
    trefoil_y: float,
    voltage_kV: float,
    spherical_aberration_mm: float,
) -> NDArray[np.float64]:
    """Phase phi (D, D // 2 + 1), radians, of beam tilt (mrad) and trefoil (rad A^3); odd in k."""
    ky = frequency_axis(box, pixel_size)[:, None]
    kx = np.abs(frequency_axis(box, pixel_size)[: box // 2 + 1])
    coma = -2 * np.pi * spherical_aberration_mm * 1e7 * wavelength(voltage_kV) ** 2 * 1e-3
    tilt = coma * (kx**2 + ky**2) * (beam_tilt_x * kx + beam_tilt_y * ky)
    phase: NDArray[np.float64] = tilt + trefoil_x * (kx**3 - 3 * kx * ky**2) + trefoil_y * (3 * kx**2 * ky - ky**3)
    return phase


def undo_phase(images: NDArray[np.float32], phase: NDArray[np.float64]) -> NDArray[np.float32]:
    """Multiply the transforms of images (B, D, D) by exp(-i phase), phase (D, D // 2 + 1)."""
    box = images.shape[-1]
    corrected: NDArray[np.float32] = fft.irfft2(
        fft.rfft2(images) * np.exp(-1j * phase).astype(np.complex64), s=(box, box)
    )
    return corrected


def shifts_in_file(shifts: NDArray[np.float64], ctf: Columns) -> NDArray[np.float64]:
    """Shifts (N, 2) of the particles in the images as they are in the file, of those in the corrected images.

    S of equation (1) is exp(2 pi i k . s); in the file's image k is M k, so the shift is M^T s.
    """
    if not set(MAGNIFICATION) & ctf.keys():
        return shifts
    matrices = _table(ctf, MAGNIFICATION).reshape(-1, 2, 2)
    in_file: NDArray[np.float64] = np.einsum("nji,nj->ni", matrices, shifts)
    return in_file
