"""Aberrations that CTF refinement found: what the physics models of them, and what it cannot.

RELION (3.1 and later) writes the phase of an aberration as a series of Zernike polynomials Z(n, m) of the spatial
frequency in 1/A, radians: even n to `_rlnEvenZernike` (0,0), (2,-2), (2,0), (2,2), (4,-4), ..., odd n to
`_rlnOddZernike` (1,-1), (1,1), (3,-3), (3,-1), (3,1), (3,3), ... The even phase is added to the phase g of the CTF
(docs/conventions.md), so its terms up to (4,0) are a change of defocus, astigmatism, phase shift and spherical
aberration, which is exact and is made here. Of the odd ones (1,m) move the image, which shifts take up; (3,-1) and
(3,1) are that and a beam tilt, by TiltHelper of RELION: the phase of a tilt (x, y mrad) is
-2 pi 1e-3 Cs lambda^2 (x kx + y ky) k^2. (3,-3) and (3,3) are the trefoil.

cryoSPARC's fields are lengths: `ctf/tilt_A` is Cs times the tilt (as in csparc2star of pyem), `ctf/trefoil_A` has the
phase 2 pi / 3 lambda^2 k^3 (t0 cos 3a + t1 sin 3a), and `ctf/tetra_A` that of 2 pi lambda^3 k^4 times the first two for
cos 2a and sin 2a, pi / 2 lambda^3 k^4 times the last two for cos 4a and sin 4a (prefactors of cryoSPARC's own
newctf.py, as other readers of its files give them). The sign of the trefoil is taken to be that of the tilt.
`ctf/anisomag` is the matrix less the identity; like RELION's `_rlnMagMat00` ... it acts on spatial frequencies.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryogan.optics import wavelength

Column = NDArray[np.float64]

EXTRA_DEFAULTS = {
    "magnification_00": 1.0,
    "magnification_01": 0.0,
    "magnification_10": 0.0,
    "magnification_11": 1.0,
    "phase_flipped": 0.0,
    "beam_tilt_x": 0.0,
    "beam_tilt_y": 0.0,
    "trefoil_x": 0.0,
    "trefoil_y": 0.0,
}
"""Columns of `ParticleTable.ctf` that are there only if one of them is not what is written here.

magnification: a matrix on spatial frequencies; phase_flipped: 1 where the images' phases were flipped; beam_tilt: mrad,
in RELION's sign; trefoil: radians A^3, the coefficients of k^3 cos 3a (x) and k^3 sin 3a (y).
"""

_EVEN = [(0, 0), (2, -2), (2, 0), (2, 2), (4, -4), (4, -2), (4, 0), (4, 2), (4, 4)]
_ODD = [(1, -1), (1, 1), (3, -3), (3, -1), (3, 1), (3, 3)]
_DIRECTIONS = 96  # multiples of 3.75 degrees: the largest of cos 4 a, sin 4 a and their sums are among them


@dataclass(frozen=True)
class Aberrations:
    """The phase in an optics group that nothing in the table accounts for.

    Attributes:
        group: its name.
        column: what the file calls the terms.
        terms: coefficients, radians A^n, of k^n cos m a (m positive or 0) and k^n sin -m a (m negative), by (n, m).
    """

    group: str
    column: str
    terms: Mapping[tuple[int, int], float]

    def largest_phase(self, frequency: float) -> float:
        """Return the largest phase, degrees, at a spatial frequency (1/A) or below."""
        angle = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)[:, None]
        k = np.linspace(0, frequency, 32)
        phase = np.zeros((_DIRECTIONS, 32))
        for (n, m), value in self.terms.items():
            phase += value * k**n * (np.cos(m * angle) if m >= 0 else np.sin(-m * angle))
        return float(np.degrees(np.abs(phase).max()))


def used_columns(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Return all columns of `EXTRA_DEFAULTS` if one of them differs from its default somewhere, or else none."""
    present = {key: values for key, values in columns.items() if key in EXTRA_DEFAULTS}
    if not any((values != EXTRA_DEFAULTS[key]).any() for key, values in present.items()):
        return {}
    count = len(next(iter(present.values())))
    return {key: present.get(key, np.full(count, default)) for key, default in EXTRA_DEFAULTS.items()}


def apply_even(ctf: dict[str, Column], rows: NDArray[np.bool_], coefficients: Column) -> dict[tuple[int, int], float]:
    """Add the even Zernike terms of an optics group to the defocus, phase shift and spherical aberration of its rows.

    Args:
        ctf: columns (N,), changed in place; new arrays are put in, the given ones stay.
        rows: (N,) the group's.
        coefficients: coefficients in RELION's order.

    Returns:
        The terms that are left.
    """
    c = dict.fromkeys(_EVEN, 0.0) | dict(zip(even_order(len(coefficients)), map(float, coefficients), strict=True))
    wave = wavelength(ctf["voltage"][rows])

    def add(key: str, values: Column | float) -> None:
        ctf[key] = ctf[key].copy() if key in ctf else np.zeros(len(rows))
        ctf[key][rows] += values

    # g = -pi lambda dz k^2 + pi / 2 Cs lambda^3 k^4 - phase shift - ...
    add("phase_shift", -np.degrees(c[0, 0] - c[2, 0] + c[4, 0]))
    add("spherical_aberration", 12 * c[4, 0] / (np.pi * wave**3) * 1e-7)
    mean = (ctf["defocus_u"][rows] + ctf["defocus_v"][rows]) / 2 - (2 * c[2, 0] - 6 * c[4, 0]) / (np.pi * wave)
    turned = 2 * np.radians(ctf["defocus_angle"][rows])
    split = (ctf["defocus_u"][rows] - ctf["defocus_v"][rows]) / 2
    x = split * np.cos(turned) - (c[2, 2] - 3 * c[4, 2]) / (np.pi * wave)
    y = split * np.sin(turned) - (c[2, -2] - 3 * c[4, -2]) / (np.pi * wave)
    add("defocus_u", mean + np.hypot(x, y) - ctf["defocus_u"][rows])
    add("defocus_v", mean - np.hypot(x, y) - ctf["defocus_v"][rows])
    add("defocus_angle", np.degrees(np.arctan2(y, x)) / 2 - ctf["defocus_angle"][rows])
    left = {(4, 2): 4 * c[4, 2], (4, -2): 4 * c[4, -2], (4, 4): c[4, 4], (4, -4): c[4, -4]}
    return _nonzero(left | _higher(c, 6))


def split_odd(coefficients: Column, voltage: float, cs: float) -> tuple[dict[str, float], dict[tuple[int, int], float]]:
    """Split the odd Zernike terms of an optics group into what the physics models and what is left.

    Args:
        coefficients: coefficients in RELION's order.
        voltage: kV.
        cs: spherical aberration, mm.

    Returns:
        beam_tilt_x, beam_tilt_y (mrad), trefoil_x, trefoil_y (as in `EXTRA_DEFAULTS`); and the terms that are left.
    """
    c = dict.fromkeys(_ODD, 0.0) | dict(zip(odd_order(len(coefficients)), map(float, coefficients), strict=True))
    scale = tilt_scale(voltage, cs)
    left = _higher(c, 5)
    if scale == 0:  # a tilt has no effect without spherical aberration
        left |= {(3, 1): 3 * c[3, 1], (3, -1): 3 * c[3, -1]}
    modelled = {
        "beam_tilt_x": 0.0 if scale == 0 else -3 * c[3, 1] / scale,
        "beam_tilt_y": 0.0 if scale == 0 else -3 * c[3, -1] / scale,
        "trefoil_x": c[3, 3],
        "trefoil_y": c[3, -3],
    }
    return modelled, _nonzero(left)


def tilt_scale(voltage: float, cs: float) -> float:
    """Return 2 pi 1e-3 Cs lambda^2, A^3: the phase of a beam tilt of 1 mrad at 1/A."""
    return float(2e4 * np.pi * cs * wavelength(np.array(voltage)) ** 2)


def even_order(count: int) -> list[tuple[int, int]]:
    """Return (n, m) of the first coefficients of `_rlnEvenZernike`."""
    return [(n, m) for n in range(0, 2 * count, 2) for m in range(-n, n + 1, 2)][:count]


def odd_order(count: int) -> list[tuple[int, int]]:
    """Return (n, m) of the first coefficients of `_rlnOddZernike`."""
    return [(n, m) for n in range(1, 2 * count + 1, 2) for m in range(-n, n + 1, 2)][:count]


def _higher(coefficients: Mapping[tuple[int, int], float], order: int) -> dict[tuple[int, int], float]:
    """Return the leading terms, k^n, of the polynomials from an order on: at high frequency they are the largest."""
    return {(n, m): value * float(_leading(n, abs(m))) for (n, m), value in coefficients.items() if n >= order}


def _leading(n: int, m: int) -> float:
    """Return the coefficient of r^n in the radial polynomial R(n, m)."""
    binomial = 1.0
    for factor in range((n - m) // 2):
        binomial *= (n - factor) / (factor + 1)
    return binomial


def _nonzero(terms: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    return {key: value for key, value in terms.items() if value != 0}


def from_cryosparc(
    fields: Mapping[str, Column], voltage: Column, cs: Column
) -> tuple[dict[str, Column], tuple[Aberrations, ...]]:
    """Read the aberration fields of a .cs file.

    Args:
        fields: those of ctf/tilt_A (N, 2), ctf/trefoil_A (N, 2), ctf/tetra_A (N, 4) and ctf/anisomag (N, 4) that
            there are.
        voltage: (N,) kV.
        cs: (N,) spherical aberration, mm.

    Returns:
        Columns of `EXTRA_DEFAULTS`, and what is left, one entry for each set of values.
    """
    wave = wavelength(voltage)
    columns: dict[str, Column] = {}
    if "ctf/anisomag" in fields:
        for name, values in zip(("00", "01", "10", "11"), fields["ctf/anisomag"].T, strict=True):
            columns[f"magnification_{name}"] = values + float(name in ("00", "11"))
    left: list[Aberrations] = []
    if "ctf/tilt_A" in fields:
        with np.errstate(divide="ignore", invalid="ignore"):
            for axis, values in zip("xy", fields["ctf/tilt_A"].T, strict=True):
                columns[f"beam_tilt_{axis}"] = np.where(cs == 0, 0.0, values / (cs * 1e7) * 1e3)
        lost = np.where((cs == 0)[:, None], 2 * np.pi * (wave**2)[:, None] * fields["ctf/tilt_A"], 0.0)
        left += _groups("ctf/tilt_A", lost, [(3, 1), (3, -1)])
    if "ctf/trefoil_A" in fields:
        for axis, values in zip("xy", fields["ctf/trefoil_A"].T, strict=True):
            columns[f"trefoil_{axis}"] = -2 * np.pi / 3 * wave**2 * values
    if "ctf/tetra_A" in fields:
        factors = np.pi * (wave**3)[:, None] * np.array([2, 2, 0.5, 0.5])
        left += _groups("ctf/tetra_A", fields["ctf/tetra_A"] * factors, [(4, 2), (4, -2), (4, 4), (4, -4)])
    return columns, tuple(left)


def _groups(column: str, values: Column, orders: Collection[tuple[int, int]]) -> list[Aberrations]:
    return [
        Aberrations(f"exposure group {number}", column, _nonzero(dict(zip(orders, map(float, row), strict=True))))
        for number, row in enumerate(np.unique(values, axis=0), start=1)
        if row.any()
    ]
