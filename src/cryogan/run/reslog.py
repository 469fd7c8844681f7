"""Resolution by number of particles (ResLog): the record of a run, the line through it, and what a user is told.

`cryogan.refinement.reslog` measures it; docs/resolution.md explains it.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cryogan.files import replacing
from cryogan.run.folder import RunFolder
from cryogan.run.judgement import COARSE_SHELLS

FEWEST_POINTS = 3  # that a line and its error are fitted to
AT_NYQUIST = 1.01  # times the resolution at Nyquist: as fine as the pixels allow


@dataclass(frozen=True)
class Line:
    """Least-squares line 1/d = slope log2 N + at_zero.

    Attributes:
        slope: 1/A for each doubling of the particles.
        at_zero: 1/A.
        doubled: 1/A that the line gives for twice the particles.
        error: standard error of `doubled` by the scatter of the points about the line.
    """

    slope: float
    at_zero: float
    doubled: float
    error: float


@dataclass(frozen=True)
class ResLog:
    """Resolution of maps from nested subsets of a run's particles (Stagg et al. 2014, J. Struct. Biol. 185:418).

    Attributes:
        particle_counts: number of particles of each subset, both halves together, ascending.
        resolution_A: A, corrected half-map FSC 0.143, of each subset.
        pixel_size: A.
        box: D.
    """

    particle_counts: tuple[int, ...]
    resolution_A: tuple[float, ...]
    pixel_size: float
    box: int

    @property
    def usable(self) -> tuple[bool, ...]:
        """Which subsets say how resolution grows: coarser than Nyquist, and finer than the outline of the map."""
        coarsest = self.box * self.pixel_size / COARSE_SHELLS
        return tuple(2 * self.pixel_size * AT_NYQUIST < resolution <= coarsest for resolution in self.resolution_A)

    @property
    def line(self) -> Line | None:
        """The line through the usable subsets; None: they are fewer than 3."""
        if sum(self.usable) < FEWEST_POINTS:
            return None
        doublings = np.log2(self.particle_counts)[list(self.usable)]
        frequency = 1 / np.array(self.resolution_A)[list(self.usable)]
        slope, at_zero = np.polyfit(doublings, frequency, 1)
        scatter = float(((frequency - slope * doublings - at_zero) ** 2).sum()) / (len(doublings) - 2)
        ahead = math.log2(self.particle_counts[-1]) + 1
        spread = float(((doublings - doublings.mean()) ** 2).sum())
        error = math.sqrt(scatter * (1 / len(doublings) + (ahead - float(doublings.mean())) ** 2 / spread))
        return Line(float(slope), float(at_zero), float(slope * ahead + at_zero), error)

    @property
    def sentence(self) -> str:
        """What more particles would bring, in words, or why that cannot be said."""
        nyquist, line = 2 * self.pixel_size, self.line
        if self.resolution_A[-1] <= nyquist * AT_NYQUIST:
            return (
                f"The half maps agree to the Nyquist frequency ({nyquist:.2f} A): the resolution is limited by the "
                "pixel size, not by the number of particles. Run again with a larger --box if the particles have finer "
                "pixels."
            )
        if line is None:
            return (
                f"What more particles would bring cannot be said: {sum(self.usable)} of {len(self.usable)} subsets "
                f"have a resolution between {COARSE_SHELLS} shells and Nyquist ({nyquist:.2f} A), and a line needs "
                f"{FEWEST_POINTS}."
            )
        if line.slope <= 0:
            return "The resolution does not grow with the number of particles: something else limits it."
        if 1 / line.doubled < nyquist:
            return f"Twice the particles would bring the half maps to the Nyquist frequency, {nyquist:.2f} A."
        fine, coarse = 1 / (line.doubled + line.error), 1 / max(line.doubled - line.error, 1e-9)
        return (
            f"Twice the particles would give about {1 / line.doubled:.1f} A ({fine:.1f} to {coarse:.1f} A by the "
            "error of the fit)."
        )

    @property
    def values(self) -> dict[str, object]:
        """The numbers for a program to read."""
        return {**asdict(self), "line": None if self.line is None else asdict(self.line), "sentence": self.sentence}

    def table(self) -> list[str]:
        """Lines of the resolution by number of particles."""
        rows = zip(self.particle_counts, self.resolution_A, self.usable, strict=True)
        return [
            "  particles        A",
            *(f"  {count:9d} {A:8.2f}{'' if good else '  not used for the line'}" for count, A, good in rows),
            self.sentence,
        ]


def reslog_folder(folder: RunFolder) -> Path:
    """Return the folder where `cryogan reslog` writes."""
    return folder.path / "reslog"


def record_path(folder: RunFolder) -> Path:
    """Return the path of the record, JSON."""
    return reslog_folder(folder) / "reslog.json"


def figure_path(folder: RunFolder) -> Path:
    """Return the path of the figure: resolution by number of particles."""
    return reslog_folder(folder) / "reslog.png"


def write_reslog(folder: RunFolder, reslog: ResLog) -> None:
    """Write the record of a run's folder."""
    reslog_folder(folder).mkdir(exist_ok=True)
    with replacing(record_path(folder)) as temporary:
        temporary.write_text(json.dumps(reslog.values) + "\n")


def read_reslog(folder: RunFolder) -> ResLog | None:
    """Read the record of a run's folder; None: there is none."""
    if not record_path(folder).exists():
        return None
    values = json.loads(record_path(folder).read_text())
    counts, resolution = (tuple(values[name]) for name in ("particle_counts", "resolution_A"))
    return ResLog(counts, resolution, values["pixel_size"], values["box"])
