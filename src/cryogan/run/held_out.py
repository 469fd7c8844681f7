"""What particles that had no part in a map support of it: the record of a run, and what a user is told.

`cryogan.refinement.held_out` measures it; docs/trust.md explains it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

THRESHOLD = 3.0  # standard deviations of the null distribution; false in about 1 of 500 windows of two shells


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
            return (
                "Held-out particles and frequencies support no detail of the map: nothing at "
                f"{self.first_A:.1f} A or finer."
            )
        return (
            f"Held-out particles and frequencies support the map to {self.resolution:.2f} A "
            f"({THRESHOLD:g} standard deviations)."
        )

    @property
    def first_A(self) -> float:
        """Coarsest resolution that is tested, A."""
        return self.width_A / min(band.first for band in self.bands)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "HeldOut":
        """Return what was recorded as JSON."""
        names = ("z", "window_z", "amplitude")
        bands = tuple(
            HeldOutShells(band["cutoff"], band["first"], *(tuple(band[name]) for name in names))
            for band in values["bands"]
        )
        return cls(values["width_A"], values["particle_count"], values["half_map_resolution"], bands)

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
