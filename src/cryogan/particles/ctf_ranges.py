"""CTF parameters that cannot be, because they are in another unit or a fit failed, and those that hardly can."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import Finding, InputError, Kind
from cryogan.particles import findings

Column = NDArray[np.float64]
Rows = NDArray[np.bool_]

_VOLTAGES = (20.0, 3000.0)  # kV
_CS_OF_NO_LENS = 100.0  # mm
_CS_DOUBTFUL = 10.0  # mm
_CS_IN_METRES = (5e-4, 9e-3)  # of 0.5 to 9 mm
_NEAR_FOCUS = 50.0  # A: 0.5 to 5 micrometres are 0.5 to 5
_WEAK_DEFOCUS = 2500.0  # A: 500 to 5000 nm are 500 to 5000
_STRONG_DEFOCUS = 1e5  # A
_NO_DEFOCUS = 1e6  # A
_MAGNIFICATION = 0.2  # of an element of the matrix from that of the identity
_ASTIGMATISM = 0.5  # of the defocus


class _Checker:
    """The columns of one file, and what is found in them."""

    def __init__(
        self, ctf: Mapping[str, Column], names: Mapping[str, str], source: Path, where: Callable[[int], str]
    ) -> None:
        self.ctf, self.names, self.source, self.where = ctf, names, source, where
        self.findings: list[Finding] = []

    def name(self, key: str) -> str:
        """Return what the file calls a column."""
        return self.names.get(key, key.replace("_", " "))

    def refuse(self, key: str, bad: Rows, problem: str, remedy: str) -> None:
        """Raise InputError with the first of the bad rows, its value and their number."""
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"{self.where(row)}: {self.name(key)} is {self.ctf[key][row]:g}{problem} "
                f"({bad.sum()} of {len(bad)} rows). {remedy}"
            )

    def doubt(self, kind: Kind, key: str, bad: Rows) -> None:
        """Note that the bad rows are doubtful."""
        if bad.any():
            row, values = int(bad.argmax()), self.ctf[key]
            self.findings.append(
                kind(
                    file=str(self.source),
                    column=self.name(key),
                    rows=int(bad.sum()),
                    of=len(bad),
                    first=self.where(row),
                    value=float(values[row]),
                )
            )


def check_ctf(
    ctf: Mapping[str, Column], names: Mapping[str, str], source: Path, where: Callable[[int], str]
) -> list[Finding]:
    """Refuse CTF parameters that cannot be, and doubt those that hardly can.

    Args:
        ctf: columns (N,), in the units of `ParticleTable`.
        names: what the file calls them.
        source: the file.
        where: place of a row, for messages.

    Returns:
        Warnings.

    Raises:
        InputError: a value is not finite, or can only be in another unit or of a failed fit.
    """
    checker = _Checker(ctf, names, source, where)
    for key, values in ctf.items():
        checker.refuse(key, ~np.isfinite(values), "", "Correct or remove that row.")
    _check_voltage(checker)
    _check_spherical_aberration(checker)
    _check_amplitude_contrast(checker)
    _check_defocus(checker)
    for key in ("magnification_00", "magnification_01", "magnification_10", "magnification_11"):
        if key in ctf:
            far = np.abs(ctf[key] - float(key[-2] == key[-1])) > _MAGNIFICATION
            checker.refuse(key, far, ", which is far from the identity matrix", "Correct it, or remove the column.")
    return checker.findings


def _check_voltage(checker: _Checker) -> None:
    volts = checker.ctf["voltage"]
    key, unit = "voltage", " kV, which no microscope has"
    checker.refuse(key, volts <= 0, " kV", "Correct that row.")
    in_volts = (volts / 1e3 >= _VOLTAGES[0]) & (volts / 1e3 <= _VOLTAGES[1])
    checker.refuse(key, in_volts, unit, f"It seems to be in volts: write {volts[in_volts.argmax()] / 1e3:g}.")
    checker.refuse(key, (volts < _VOLTAGES[0]) | (volts > _VOLTAGES[1]), unit, "Write it in kV, such as 300.")


def _check_spherical_aberration(checker: _Checker) -> None:
    key, cs = "spherical_aberration", checker.ctf["spherical_aberration"]
    remedy = "Write it in mm, such as 2.7."
    checker.refuse(key, cs < -_CS_DOUBTFUL, " mm, which no lens has", remedy)
    checker.refuse(
        key, np.abs(cs) > _CS_OF_NO_LENS, " mm, which no lens has", "It seems to be in another unit. " + remedy
    )
    checker.refuse(
        key, cs < -0.1, " mm, and only an aberration corrector makes it negative, by less than 0.1 mm", remedy
    )
    checker.doubt(findings.CS_NEGATIVE, key, cs < 0)
    checker.doubt(findings.CS_LARGE, key, cs > _CS_DOUBTFUL)
    small = (cs >= _CS_IN_METRES[0]) & (cs <= _CS_IN_METRES[1])
    checker.doubt(findings.CS_SMALL, key, small)


def _check_amplitude_contrast(checker: _Checker) -> None:
    key, contrast = "amplitude_contrast", checker.ctf["amplitude_contrast"]
    percent = (contrast > 1) & (contrast <= 100)
    value = contrast[percent.argmax()] / 100
    checker.refuse(key, percent, ", and a share is at most 1", f"It seems to be in percent: write {value:g}.")
    checker.refuse(key, (contrast < 0) | (contrast > 1), "", "Write a share from 0 to 1, such as 0.1.")


def _check_defocus(checker: _Checker) -> None:
    ctf = checker.ctf
    u, v = ctf["defocus_u"], ctf["defocus_v"]
    mean, key = (u + v) / 2, "defocus_u"
    for axis in ("defocus_u", "defocus_v"):
        far = np.abs(ctf[axis]) > _NO_DEFOCUS
        checker.refuse(
            axis,
            far,
            " A (over 100 micrometres)",
            "The CTF fit failed, or the unit is not A. Remove or correct such rows.",
        )
    plain = ctf["phase_shift"] == 0 if "phase_shift" in ctf else np.ones(len(u), dtype=np.bool_)
    # Images without any CTF are written as in focus, with an amplitude contrast of 1.
    plain = plain & ~((mean == 0) & (ctf["amplitude_contrast"] == 1))
    zero = plain & (u == 0) & (v == 0)
    if zero.all():
        checker.refuse(
            key,
            zero,
            " A, as of every particle",
            "The CTF was not estimated. Estimate it, and give the file that has it.",
        )
    checker.refuse(
        key, zero, " A, as where a CTF fit failed", "Remove such rows, or give a file of particles whose fit succeeded."
    )
    near = plain & (np.abs(mean) < _NEAR_FOCUS)
    checker.refuse(
        key,
        near if near.mean() > 0.5 else np.zeros_like(near),
        " A, so close to focus that nothing would be seen",
        "It seems to be in micrometres: multiply the defocus by 10,000.",
    )
    over = plain & (mean < 0)
    checker.refuse(
        key,
        over if over.mean() > 0.5 else np.zeros_like(over),
        " A, which is overfocus",
        "Underfocus is positive here, as in RELION and cryoSPARC: change the sign of the defocus.",
    )
    _doubt_defocus(checker, mean, plain, near & ~over, over)


def _doubt_defocus(checker: _Checker, mean: Column, plain: Rows, near: Rows, over: Rows) -> None:
    ctf, key = checker.ctf, "defocus_u"
    checker.doubt(findings.OVERFOCUS, key, over)
    checker.doubt(findings.NEAR_FOCUS, key, near)
    weak = plain & ~near & ~over & (mean < _WEAK_DEFOCUS)
    checker.doubt(findings.WEAK_DEFOCUS, key, weak if weak.mean() > 0.5 else np.zeros_like(weak))
    strong = np.abs(mean) > _STRONG_DEFOCUS
    checker.doubt(findings.STRONG_DEFOCUS, key, strong)
    split = np.abs(ctf["defocus_u"] - ctf["defocus_v"]) > _ASTIGMATISM * np.abs(mean)
    checker.doubt(findings.ASTIGMATIC, key, split & ~near)
