"""What is in a particle file beside a plain CTF: what is corrected for, and what cannot be modelled."""

import numpy as np

from cryogan.errors import Finding
from cryogan.optics import wavelength
from cryogan.particles import findings
from cryogan.particles.aberrations import EXTRA_DEFAULTS
from cryogan.particles.table import ParticleTable

STRONG_PHASE = 45.0  # degrees, at the working Nyquist frequency
WEAK_PHASE = 4.5  # degrees; its cosine is 0.997
STRONG_GROWTH = 2.0  # of the CTF by a negative B-factor, at the working Nyquist frequency
_WARP_B_FACTOR = -10.0  # A^2; Warp and M write the dose's decay with a minus


def input_findings(
    table: ParticleTable, box: int, pixel_size: float, radius_A: float | None = None, invert: bool | None = None
) -> list[Finding]:
    """Return all findings on a particle file before a run: those of the table, and `unmodelled`.

    Args:
        table: the particles.
        box: working box, pixels.
        pixel_size: A, at the working box.
        radius_A: radius of the particle; half the box where it is not known.
        invert: whether the images will be inverted; it is compared with blob/sign of a .cs file.
    """
    return [*table.findings, *unmodelled(table, box, pixel_size, radius_A), *_sign(table, invert)]


def unmodelled(table: ParticleTable, box: int, pixel_size: float, radius_A: float | None = None) -> list[Finding]:
    """Return a finding for each effect in a particle file that a plain CTF has not.

    Effects that are taken into account are notes. Of the others those over 45 degrees of phase at the working Nyquist
    frequency are errors, those below a tenth of that notes, and the rest warnings.

    Args:
        table: the particles.
        box: working box, pixels.
        pixel_size: A, at the working box.
        radius_A: radius of the particle; half the box where it is not known.
    """
    nyquist = 1 / (2 * pixel_size)
    with np.errstate(all="ignore"):  # damaged values are large
        found = []
        if all(key in table.ctf for key in EXTRA_DEFAULTS):
            radius = box * pixel_size / 2 if radius_A is None else radius_A
            found += _modelled(table, radius / pixel_size, nyquist)
        return [*found, *_higher_orders(table, nyquist), *_b_factor(table, nyquist), *_helical(table)]


def _modelled(table: ParticleTable, radius_px: float, nyquist: float) -> list[Finding]:
    """Return notes on what is corrected in the images, or simulated."""
    c, file, found = table.ctf, str(table.source), []
    matrix = np.stack([c[f"magnification_{name}"] for name in ("00", "01", "10", "11")], axis=1).reshape(-1, 2, 2)
    stretch = float(np.linalg.norm(np.unique(matrix, axis=0) - np.eye(2), 2, axis=(1, 2)).max())
    if stretch > 0:
        found.append(findings.MAGNIFICATION(file=file, percent=100 * stretch, pixels=stretch * radius_px))
    tilt = np.hypot(c["beam_tilt_x"], c["beam_tilt_y"])
    if tilt.any():
        scale = 2e4 * np.pi * np.abs(c["spherical_aberration"]) * wavelength(c["voltage"]) ** 2
        degrees = float(np.degrees(tilt * scale).max() * nyquist**3)
        found.append(findings.BEAM_TILT(file=file, mrad=float(tilt.max()), degrees=degrees))
    trefoil = np.hypot(c["trefoil_x"], c["trefoil_y"])
    if trefoil.any():
        found.append(findings.TREFOIL(file=file, degrees=float(np.degrees(trefoil.max()) * nyquist**3)))
    flipped = int((c["phase_flipped"] != 0).sum())
    if flipped:
        found.append(findings.PHASE_FLIPPED(file=file, images=flipped, of=len(table)))
    return found


def _higher_orders(table: ParticleTable, nyquist: float) -> list[Finding]:
    found = []
    for column in dict.fromkeys(group.column for group in table.aberrations):
        groups = [group for group in table.aberrations if group.column == column]
        phases = [group.largest_phase(nyquist) for group in groups]
        worst = int(np.argmax(phases))
        kind = findings.ABERRATIONS
        if phases[worst] > STRONG_PHASE:
            kind = findings.ABERRATIONS_STRONG
        elif phases[worst] < WEAK_PHASE:
            kind = findings.ABERRATIONS_WEAK
        found.append(kind(file=str(table.source), column=column, degrees=phases[worst], group=groups[worst].group))
    return found


def _b_factor(table: ParticleTable, nyquist: float) -> list[Finding]:
    values = table.ctf["b_factor"]
    negative = values < 0
    if not negative.any():
        return []
    least = float(values.min())
    growth = float(np.exp(-least / 4 * nyquist**2))
    as_warp = negative.mean() > 0.5 and least < _WARP_B_FACTOR
    refused = as_warp or growth > STRONG_GROWTH
    kind = findings.B_FACTOR_OF_TILT_SERIES if refused else findings.B_FACTOR_NEGATIVE
    numbers = {"particles": int(negative.sum()), "of": len(table), "least_A2": least, "growth": growth}
    return [kind(file=str(table.source), **numbers)]


def _helical(table: ParticleTable) -> list[Finding]:
    if table.tubes is None:
        return []
    tubes = len(np.unique(table.tubes))
    return [findings.HELICAL_SEGMENTS(file=str(table.source), segments=len(table), tubes=tubes)]


def _sign(table: ParticleTable, invert: bool | None) -> list[Finding]:
    """Return what blob/sign of a .cs file says of the contrast."""
    sign = table.blob_sign
    if sign is None or invert is None:
        return []
    if (sign < 0) == invert:
        kind = findings.BLOB_SIGN
    else:
        kind = findings.BLOB_SIGN_DARK if sign < 0 else findings.BLOB_SIGN_BRIGHT
    return [kind(file=str(table.source), sign=sign, colour="bright" if sign > 0 else "dark")]
