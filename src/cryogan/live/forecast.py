"""When there will be enough particles for a resolution, by the line through the maps so far (ResLog) and their rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

DOUBLINGS = 2.0  # ahead of the last map, up to which the line is followed


@dataclass(frozen=True)
class Forecast:
    """Numbers of particles with which the half maps would agree to a resolution.

    Attributes:
        target: the resolution, A.
        particles: number by the line.
        least: number by the line plus its error.
        most: number by the line less its error; None: it never gets there.
    """

    target: float
    particles: float
    least: float
    most: float | None

    @classmethod
    def of(cls, line: Mapping[str, float], target: float) -> "Forecast | None":
        """Follow a line.

        Args:
            line: slope, at_zero and error of `cryogan.run.reslog.Line`, 1/A.
            target: resolution that is wanted, A.

        Returns:
            None if the resolution does not grow.
        """
        slope, error = line["slope"], line["error"]
        if slope <= 0:
            return None
        wanted = 1 / target - line["at_zero"]
        counts = [2.0 ** min((wanted + shift) / slope, 60.0) for shift in (0.0, -error, error)]
        return cls(target, counts[0], counts[1], counts[2] if counts[2] < 2.0**60 else None)

    def sentence(self, particles: int, per_hour: float, now: float) -> str:
        """Say when it will be enough, in words.

        Args:
            particles: number of particles now.
            per_hour: number of new particles in an hour.
            now: the time, seconds since 1970.
        """
        name = f"{self.target:.3g} A"
        if math.log2(self.particles / particles) > DOUBLINGS:
            return f"{name} would take more than {2**DOUBLINGS:.0f} times the particles; when cannot be said."
        if self.particles <= particles:
            return f"By the line through the maps so far these particles are enough for {name}."
        count = f"with some {_round(self.particles)} particles"
        if per_hour <= 0:
            return f"Enough for {name} {count}; none have come for an hour."
        early, at = (self._time(number, particles, per_hour, now) for number in (self.least, self.particles))
        late = "open" if self.most is None else self._time(self.most, particles, per_hour, now)
        return f"Enough for {name} at about {at} ({early} to {late}), {count}."

    @staticmethod
    def _time(number: float, particles: int, per_hour: float, now: float) -> str:
        hours = max(number - particles, 0.0) / per_hour
        if hours > 24 * 7:
            return "more than a week from now"
        time = datetime.fromtimestamp(now + 3600 * hours)
        same_day = time.date() == datetime.fromtimestamp(now).date()
        return f"{time:%H:%M}" if same_day else f"{time:%d %b %H:%M}"


def _round(number: float) -> int:
    digits = max(0, int(math.log10(max(number, 1))) - 1)
    return int(round(number, -digits))
