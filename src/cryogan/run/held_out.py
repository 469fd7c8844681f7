"""What particles that had no part in a map support of it: the record of a run, and what a user is told.

`cryogan.refinement.held_out` measures it; docs/trust.md explains it.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from cryogan.errors import Finding
from cryogan.files import replacing
from cryogan.run import warnings
from cryogan.run.folder import RunFolder

THRESHOLD = 3.0  # standard deviations of the null distribution; false in about 1 of 500 windows of two shells
TOO_FINE = 1.3  # held-out over half-map resolution, in A, from which on the user is warned


@dataclass(frozen=True)
class HeldOutShells:
    """Evidence beyond one cut-off of the poses.

    Attributes:
        cutoff: Shell; frequencies below it found the poses.
        first: First shell that is tested, beyond the guard band.
        z: Agreement of each shell in standard deviations of its null distribution, D // 2 values; None below `first`.
        window_z: The same for each shell and the next one together.
        amplitude: Amplitude of the map's detail in the particles, by shell: 1 where the map is right and the poses are;
            None also where its standard deviation exceeds 1, as where all views look alike.
    """

    cutoff: int
    first: int
    z: tuple[float | None, ...]
    window_z: tuple[float | None, ...]
    amplitude: tuple[float | None, ...]

    @property
    def last(self) -> int | None:
        """Finest shell up to which all windows from `first` on exceed the threshold; None: not even the first."""
        last = None
        for shell in range(self.first, len(self.window_z)):
            value = self.window_z[shell]
            if value is None or value < THRESHOLD:
                break
            last = shell
        return last


@dataclass(frozen=True)
class HeldOut:
    """What held-out particles and frequencies support of the half maps of a run.

    Attributes:
        width_A: Width of the box, A.
        particle_count: Number of particles that were compared.
        half_map_resolution: Resolution to which the half maps agree, A.
        bands: Evidence for each cut-off; empty where the half maps agree to too few shells to hold any out.
    """

    width_A: float
    particle_count: int
    half_map_resolution: float
    bands: tuple[HeldOutShells, ...]

    @property
    def resolution(self) -> float | None:
        """Finest resolution that is supported, A; None: nothing beyond the frequencies that found the poses."""
        supported = [band.last for band in self.bands if band.last is not None]
        return self.width_A / max(supported) if supported else None

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        if not self.bands:
            return "Held-out particles and frequencies: not tested, the half maps agree to too few shells."
        if self.resolution is None:
            first = self.width_A / min(band.first for band in self.bands)
            return (
                f"Held-out particles and frequencies support no detail of the map: nothing at {first:.1f} A or finer."
            )
        return (
            f"Held-out particles and frequencies support the map to {self.resolution:.2f} A "
            f"({THRESHOLD:g} standard deviations)."
        )

    @property
    def findings(self) -> list[Finding]:
        """A warning if the half maps agree to a finer resolution than is supported."""
        if not self.bands:
            return []
        if self.resolution is None:
            first = self.width_A / min(band.first for band in self.bands)
            return [warnings.HELD_OUT_NOTHING(resolution=self.half_map_resolution, first=first)]
        if self.resolution > TOO_FINE * self.half_map_resolution:
            return [warnings.HELD_OUT_COARSER(resolution=self.half_map_resolution, held_out=self.resolution)]
        return []

    @property
    def values(self) -> dict[str, object]:
        """The evidence for a program to read."""
        return {"held_out_A": self.resolution, "threshold": THRESHOLD, **asdict(self)}

    def table(self) -> list[str]:
        """Lines of the evidence by shell, one table for each cut-off."""
        lines = []
        for band in self.bands:
            lines.append(f"Poses from frequencies below {self.width_A / band.cutoff:.1f} A:")
            lines.append("  shell        A  amplitude       z  with next")
            for shell in range(band.first, len(band.z)):
                numbers = (band.amplitude[shell], band.z[shell], band.window_z[shell])
                amplitude, z, window = (math.nan if number is None else number for number in numbers)
                lines.append(f"  {shell:5d} {self.width_A / shell:8.2f} {amplitude:10.3f} {z:7.1f} {window:10.1f}")
        return lines


def record_path(folder: RunFolder) -> Path:
    """Return the path of the record: the evidence by shell, JSON."""
    return folder.held_out / "held_out.json"


def figure_path(folder: RunFolder) -> Path:
    """Return the path of the figure: the evidence by shell, and the FSC of the half maps."""
    return folder.held_out / "held_out.png"


def write_held_out(folder: RunFolder, held_out: HeldOut) -> None:
    """Write the record of a run's folder."""
    folder.held_out.mkdir(exist_ok=True)
    with replacing(record_path(folder)) as temporary:
        temporary.write_text(json.dumps(held_out.values) + "\n")


def read_held_out(folder: RunFolder) -> HeldOut | None:
    """Read the record of a run's folder; None: there is none."""
    if not record_path(folder).exists():
        return None
    values = json.loads(record_path(folder).read_text())
    bands = tuple(
        HeldOutShells(band["cutoff"], band["first"], *(tuple(band[name]) for name in ("z", "window_z", "amplitude")))
        for band in values["bands"]
    )
    return HeldOut(values["width_A"], values["particle_count"], values["half_map_resolution"], bands)
