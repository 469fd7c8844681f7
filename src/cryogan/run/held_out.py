"""What particles that had no part in a map support of it: the record of a run, and what a user is told.

`cryogan.refinement.held_out` measures it; docs/trust.md explains it.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

THRESHOLD = 3.0  # standard deviations of the null distribution; false in about 1 of 500 windows of two shells
LEAST_SHARE, SURELY = 0.8, 2.0  # a shell is not supported where its share is smaller by SURELY deviations
CLEAR = 10.0  # standard deviations from which on a map without imposed symmetry is right whatever its share is
APART = 3.0 * math.sqrt(2.0)  # difference of two z, each with deviation 1, from which on the half maps differ


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
        share: Share that the particles hold of what the half maps agree on, of each shell with the next: correlation
            of a map's projections with the particles' signal, over that with images simulated from the map, over the
            square root of the half maps' FSC; None also where the particles hold little more than noise.
        share_deviation: Standard deviation of `share`.
        half_z: `window_z` of half map 1, and of half map 2.
        symmetric: Whether the half maps have an imposed symmetry.
    """

    cutoff: int
    first: int
    z: tuple[float | None, ...]
    window_z: tuple[float | None, ...]
    amplitude: tuple[float | None, ...]
    share: tuple[float | None, ...] = ()
    share_deviation: tuple[float | None, ...] = ()
    half_z: tuple[tuple[float | None, ...], ...] = ()
    symmetric: bool = False

    @property
    def last(self) -> int | None:
        """Finest shell up to which all windows from `first` on are supported; None: not even the first."""
        contradicted = next((shell for shell in range(self.first, len(self.share)) if self.differs(shell)), None)
        return self._last_supported(self.window_z[:contradicted])

    @property
    def both_halves(self) -> bool:
        """Whether each of the half maps is supported."""
        return all(self._last_supported(z) is not None for z in self.half_z)

    @property
    def only_half(self) -> tuple[int, int] | None:
        """The half map, 0 or 1, that alone is supported, and the shell to which it is; None: both are, or neither."""
        found = {half: self._last_supported(z) for half, z in enumerate(self.half_z)}
        supported = [(half, last) for half, last in found.items() if last is not None]
        if len(supported) != 1:
            return None
        ((half, last),) = supported
        better, worse = (self._together(z, last) for z in (self.half_z[half], self.half_z[1 - half]))
        return (half, last) if worse < THRESHOLD and better - worse > APART else None

    def _together(self, window_z: tuple[float | None, ...], last: int) -> float:
        """Return z of all windows up to `last`; every second one, as neighbours share a shell."""
        z = [value for value in window_z[self.first : last + 1 : 2] if value is not None]
        return sum(z) / math.sqrt(len(z))

    def _last_supported(self, window_z: tuple[float | None, ...]) -> int | None:
        over = itertools.takewhile(lambda z: z is not None and z >= THRESHOLD, window_z[self.first :])
        count = len(list(over))
        return self.first + count - 1 if count else None

    def differs(self, shell: int) -> bool:
        """Whether the half maps surely agree at a shell on what the particles do not hold.

        Half maps with a wrong symmetry are clearly supported, too. Without one, a small share where the map is clearly
        supported says that the particles hold other signal besides.
        """
        z = self.window_z[shell]
        return self.lacks_signal(shell) and (self.symmetric or z is None or z < CLEAR)

    def lacks_signal(self, shell: int) -> bool:
        """Whether the particles surely hold less than LEAST_SHARE of what the half maps agree on at a shell."""
        if not self.share:
            return False
        share, deviation = self.share[shell], self.share_deviation[shell]
        return share is not None and deviation is not None and share + SURELY * deviation < LEAST_SHARE


@dataclass(frozen=True)
class HeldOut:
    """What held-out particles and frequencies support of the half maps of a run.

    Attributes:
        width_A: Width of the box, A.
        particle_count: Number of particles that were compared.
        half_map_resolution: Resolution to which the half maps agree, A.
        bands: Evidence for each cut-off; empty where the half maps agree to too few shells to hold any out.
        alone: Evidence on each half map by itself, where they disagree: its cut-offs are not by their FSC.
    """

    width_A: float
    particle_count: int
    half_map_resolution: float
    bands: tuple[HeldOutShells, ...]
    alone: tuple[HeldOutShells, ...] = ()

    @property
    def resolution(self) -> float | None:
        """Finest resolution that is supported, A; None: nothing beyond the frequencies that found the poses."""
        supported = [band.last for band in self.bands if band.last is not None]
        return self.width_A / max(supported) if supported else None

    @property
    def only_half(self) -> tuple[int, float] | None:
        """The half map, 0 or 1, that alone is supported, and its resolution, A; None: both are, or neither.

        Particles of half 2 test the map of half 1, and the other way round, so that one half can be wrong alone. A
        cut-off at which both maps are supported speaks for both.
        """
        bands = (*self.bands, *self.alone)
        found = [band.only_half for band in bands if band.only_half is not None]
        if len({half for half, _ in found}) != 1 or any(band.both_halves for band in bands):
            return None
        return found[0][0], self.width_A / max(last for _, last in found)

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
    def contradiction(self) -> tuple[float, float] | None:
        """Resolution, A, and share at the first shell of a cut-off, where that share is surely too small; or None.

        The finest cut-off at which it is known decides: its poses are the best.
        """
        return self._first_share(HeldOutShells.differs)

    @property
    def more_signal(self) -> tuple[float, float] | None:
        """The same where the map is right all the same, and the particles hold other signal besides; or None."""
        return self._first_share(lambda band, shell: band.lacks_signal(shell) and not band.differs(shell))

    def _first_share(self, counts: Callable[[HeldOutShells, int], bool]) -> tuple[float, float] | None:
        """Return resolution and share at the finest cut-off at whose first shell it is known, if the shell counts."""
        for band in reversed(self.bands):
            share = band.share[band.first] if band.share else None
            if share is not None:
                return (self.width_A / band.first, share) if counts(band, band.first) else None
        return None

    @property
    def first_A(self) -> float:
        """Coarsest resolution that is tested, A."""
        return self.width_A / min(band.first for band in self.bands)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "HeldOut":
        """Return what was recorded as JSON."""

        def shells(recorded: Sequence[Mapping[str, Any]]) -> tuple[HeldOutShells, ...]:
            names = ("z", "window_z", "amplitude", "share", "share_deviation")
            return tuple(
                HeldOutShells(
                    band["cutoff"],
                    band["first"],
                    half_z=tuple(tuple(z) for z in band["half_z"]),
                    symmetric=band["symmetric"],
                    **{name: tuple(band[name]) for name in names},
                )
                for band in recorded
            )

        return cls(
            values["width_A"],
            values["particle_count"],
            values["half_map_resolution"],
            shells(values["bands"]),
            shells(values["alone"]),
        )

    def table(self) -> list[str]:
        """Lines of the evidence by shell, one table for each cut-off."""
        lines = []
        for band in (*self.bands, *self.alone):
            lines.append(f"Poses from frequencies below {self.width_A / band.cutoff:.1f} A:")
            lines.append("  shell        A  amplitude       z  with next  half 1  half 2  share +- s.d.")
            for shell in range(band.first, len(band.z)):
                columns = (band.amplitude, band.z, band.window_z, *band.half_z, band.share, band.share_deviation)
                widths = (10, 7, 10, 7, 7, 6, 6)
                numbers = (math.nan if values[shell] is None else values[shell] for values in columns if values)
                found = (f"{number:{width}.2f}" for number, width in zip(numbers, widths, strict=False))
                lines.append(f"  {shell:5d} {self.width_A / shell:8.2f} " + " ".join(found))
        return lines
