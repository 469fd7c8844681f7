"""What is in a particle file that the simulated images lack, or have only since this program models it."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import Finding
from cryogan.optics import wavelength
from cryogan.particles.aberrations import EXTRA_DEFAULTS
from cryogan.particles.table import ParticleTable

MODELLED = frozenset({"magnification", "phase-flipped", "beam-tilt", "trefoil"})
"""What is corrected in the images (`correction`) or simulated (phase-flipped images)."""

STRONG_PHASE = 45.0  # degrees, at the working Nyquist frequency
STRONG_DISPLACEMENT = 0.5  # working pixels, at the particle's edge
WEAK = 0.1  # of what is strong: cos 4.5 degrees is 0.997
STRONG_GROWTH = 2.0  # of the CTF by a negative B-factor, at the working Nyquist frequency
_WARP_B_FACTOR = -10.0  # A^2; Warp and M write the dose's decay with a minus

Rows = NDArray[np.bool_]


def input_findings(
    table: ParticleTable, box: int, pixel_size: float, radius_A: float | None = None, invert: bool | None = None
) -> list[Finding]:
    """Return all that is to be said of a particle file before a run: what is doubtful in it, and `unmodelled`.

    Args:
        table: the particles.
        box: working box, pixels.
        pixel_size: A, at the working box.
        radius_A: of the particle; half the box where it is not known.
        invert: whether the images will be inverted; it is compared with blob/sign of a .cs file.
    """
    return [*table.findings, *unmodelled(table, box, pixel_size, radius_A), *_sign(table, invert)]


def _sign(table: ParticleTable, invert: bool | None) -> list[Finding]:
    """Say what blob/sign of a .cs file says of the contrast."""
    sign = table.blob_sign
    if sign is None or invert is None:
        return []
    colour = "bright" if sign > 0 else "dark"
    text = f"{table.source}: blob/sign is {sign}, by which protein is {colour} in the images"
    if (sign < 0) == invert:
        return [Finding("blob-sign", "note", {"sign": sign}, f"{text}.")]
    remedy = "The map is kept positive, so add --invert." if sign < 0 else "Leave out --invert."
    return [Finding("blob-sign", "warning", {"sign": sign}, f"{text}. {remedy}")]


def unmodelled(
    table: ParticleTable,
    box: int,
    pixel_size: float,
    radius_A: float | None = None,
    modelled: Collection[str] = MODELLED,
) -> list[Finding]:
    """Return a finding for each effect in a particle file that a plain CTF has not.

    Effects that are modelled are notes. The others are errors where they are strong: over 45 degrees of phase at the
    working Nyquist frequency, or half a working pixel at the particle's edge. Below a tenth of that they are notes, and
    warnings in between.

    Args:
        table: the particles.
        box: working box, pixels.
        pixel_size: A, at the working box.
        radius_A: of the particle; half the box where it is not known.
        modelled: codes of the effects that the simulator has.
    """
    nyquist = 1 / (2 * pixel_size)
    radius = box * pixel_size / 2 if radius_A is None else radius_A
    findings = []
    if all(key in table.ctf for key in EXTRA_DEFAULTS):
        findings += _magnification(table, radius, pixel_size, modelled)
        findings += _odd(table, nyquist, modelled)
        findings += _phase_flipped(table, modelled)
    findings += _higher_orders(table, nyquist)
    findings += _b_factor(table, nyquist)
    findings += _helical(table)
    return findings


def _finding(code: str, strength: float, modelled: Collection[str], values: dict[str, object], text: str) -> Finding:
    """Return what to say of an effect, whose strength is 1 where it is too strong to be left out."""
    if code in modelled:
        return Finding(code, "note", values, f"{text}. That is taken into account.")
    if strength < WEAK:
        return Finding(code, "note", values, f"{text}, too little to matter.")
    if strength <= 1:
        return Finding(code, "warning", values, f"{text}. It is not modelled, and blurs the finest detail a little.")
    return Finding(
        code,
        "error",
        values,
        f"{text}. That is too strong to be left out, and it is not modelled. Correct it in the images, or give "
        "particles from before CTF refinement.",
    )


def _magnification(table: ParticleTable, radius: float, pixel_size: float, modelled: Collection[str]) -> list[Finding]:
    c = table.ctf
    matrix = np.stack([c[f"magnification_{name}"] for name in ("00", "01", "10", "11")], axis=1).reshape(-1, 2, 2)
    stretch = float(np.linalg.norm(np.unique(matrix, axis=0) - np.eye(2), 2, axis=(1, 2)).max())
    if stretch == 0:
        return []
    displaced = stretch * radius / pixel_size
    return [
        _finding(
            "magnification",
            displaced / STRONG_DISPLACEMENT,
            modelled,
            {"percent": 100 * stretch, "pixels": displaced},
            f"{table.source}: the magnification differs by up to {100 * stretch:.2g} % with the direction "
            f"({displaced:.2g} working pixels at the particle's edge)",
        )
    ]


def _odd(table: ParticleTable, nyquist: float, modelled: Collection[str]) -> list[Finding]:
    c, findings = table.ctf, []
    tilt = np.hypot(c["beam_tilt_x"], c["beam_tilt_y"])
    if tilt.any():
        scale = 2e4 * np.pi * np.abs(c["spherical_aberration"]) * wavelength(c["voltage"]) ** 2
        phase = float(np.degrees(tilt * scale).max() * nyquist**3)
        findings.append(
            _finding(
                "beam-tilt",
                phase / STRONG_PHASE,
                modelled,
                {"mrad": float(tilt.max()), "degrees": phase},
                f"{table.source}: a beam tilt of up to {tilt.max():.2g} mrad ({phase:.2g} degrees of phase at the "
                "working Nyquist frequency)",
            )
        )
    trefoil = np.hypot(c["trefoil_x"], c["trefoil_y"])
    if trefoil.any():
        phase = float(np.degrees(trefoil.max()) * nyquist**3)
        findings.append(
            _finding(
                "trefoil",
                phase / STRONG_PHASE,
                modelled,
                {"degrees": phase},
                f"{table.source}: a trefoil of up to {phase:.2g} degrees of phase at the working Nyquist frequency",
            )
        )
    return findings


def _phase_flipped(table: ParticleTable, modelled: Collection[str]) -> list[Finding]:
    count = int((table.ctf["phase_flipped"] != 0).sum())
    if not count:
        return []
    text = f"{table.source}: the phases of {count} of {len(table)} images were flipped"
    return [_finding("phase-flipped", np.inf, modelled, {"images": count}, text)]


def _higher_orders(table: ParticleTable, nyquist: float) -> list[Finding]:
    findings = []
    for column in dict.fromkeys(group.column for group in table.aberrations):
        groups = [group for group in table.aberrations if group.column == column]
        phases = [group.largest_phase(nyquist) for group in groups]
        worst = int(np.argmax(phases))
        findings.append(
            _finding(
                "higher-aberrations",
                phases[worst] / STRONG_PHASE,
                (),
                {"column": column, "degrees": phases[worst], "group": groups[worst].group},
                f"{table.source}: {column} has terms of up to {phases[worst]:.2g} degrees of phase at the working "
                f"Nyquist frequency that no defocus or tilt explains ({groups[worst].group})",
            )
        )
    return findings


def _b_factor(table: ParticleTable, nyquist: float) -> list[Finding]:
    values = table.ctf["b_factor"]
    negative = values < 0
    if not negative.any():
        return []
    least = float(values.min())
    growth = float(np.exp(-least / 4 * nyquist**2))
    as_warp = negative.mean() > 0.5 and least < _WARP_B_FACTOR
    numbers: dict[str, object] = {"particles": int(negative.sum()), "least_A2": least, "growth": growth}
    text = (
        f"{table.source}: the B-factor of the CTF is negative for {negative.sum()} of {len(table)} particles, down to "
        f"{least:g} A^2"
    )
    if as_warp or growth > STRONG_GROWTH:
        return [
            Finding(
                "negative-b-factor",
                "error",
                numbers,
                f"{text}, by which the CTF would grow {growth:.2g}-fold. Warp and M write decay with a minus, for the "
                "images of a tilt series, which are not supported. Give 2-D particles, or remove the column.",
            )
        ]
    return [
        Finding(
            "negative-b-factor",
            "warning",
            numbers,
            f"{text}, by which their CTF grows up to {growth:.2g}-fold. Remove the column if that is not meant.",
        )
    ]


def _helical(table: ParticleTable) -> list[Finding]:
    tubes = table.tubes
    if tubes is None:
        return []
    count = len(np.unique(tubes))
    return [
        Finding(
            "helical-segments",
            "warning",
            {"segments": len(table), "tubes": count},
            f"{table.source}: {len(table)} segments of {count} helical tubes. Their boxes overlap, and no helical "
            "symmetry is imposed.",
        )
    ]
