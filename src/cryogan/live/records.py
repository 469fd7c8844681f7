"""What is known of portions and maps, kept in memory and read from the folder at the start."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cryogan.live.folder import LiveFolder, read_json
from cryogan.live.schedule import SUPPORTED, Made

HOUR = 3600.0
LARGE = ("stacks", "views")  # of a portion's record, which are not kept

Record = dict[str, Any]


@dataclass
class Tally:
    """Particles of a micrograph, or of a grid square, that were judged.

    Attributes:
        count: how many.
        weight: sum of their weights.
    """

    count: int = 0
    weight: float = 0.0

    @property
    def share(self) -> float:
        """Share of them that carries weight."""
        return self.weight / max(self.count, 1)


@dataclass
class Records:
    """The records of a folder.

    Attributes:
        folder: the folder.
        portions: records of the portions by number, without what is large.
        maps: records of the maps by number, failed ones, too.
        squares: tallies of the grid squares.
        micrographs: tallies of the micrographs.
    """

    folder: LiveFolder
    portions: dict[int, Record] = field(default_factory=dict)
    maps: dict[int, Record] = field(default_factory=dict)
    squares: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    micrographs: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))

    def __post_init__(self) -> None:
        """Read what is in the folder."""
        for number in self.folder.portion_numbers():
            self.read_portion(number)
        for number in self.folder.map_numbers():
            self.read_map(number)

    def read_portion(self, number: int) -> Record:
        """Read the record of a portion that is new, or was judged."""
        record = read_json(self.folder.portion_record(number))
        newly = "micrographs" in record and "map" not in self.portions.get(number, {})
        for name, (count, weight, square) in record.pop("micrographs", {}).items() if newly else ():
            tallies = [self.micrographs[name], *([self.squares[square]] if square else [])]
            for tally in tallies:
                tally.count += count
                tally.weight += weight
        self.portions[number] = {name: value for name, value in record.items() if name not in (*LARGE, "micrographs")}
        for earlier in self._earlier_with_views(number):
            for name in ("coverage", "all_views"):
                del self.portions[earlier][name]
        return self.portions[number]

    def _earlier_with_views(self, number: int) -> list[int]:
        if "coverage" not in self.portions[number]:
            return []
        return [one for one, record in self.portions.items() if one != number and "coverage" in record]

    def read_map(self, number: int) -> Record:
        """Read the record of a map that is finished, or failed."""
        self.maps[number] = read_json(self.folder.map_record(number))
        return self.maps[number]

    @property
    def made(self) -> list[Made]:
        """What the schedule needs to know of the maps, in their order."""
        return [Made.from_record(self.maps[number]) for number in sorted(self.maps)]

    @property
    def last_map(self) -> Record | None:
        """The last map that was made; None: there is none."""
        return next((one for one in reversed(self._in_order()) if one["verdict"] is not None), None)

    @property
    def last_supported(self) -> int | None:
        """Number of the last map if held-out particles support it, and its files are there; None otherwise."""
        last = self.last_map
        return last["number"] if last is not None and last["verdict"] in SUPPORTED else None

    @property
    def views(self) -> Record | None:
        """The last portion's record with the views of all particles; None: there is none yet."""
        return next((record for record in self.portions.values() if "coverage" in record), None)

    def to_judge(self) -> Iterator[int]:
        """Yield the numbers of the portions that were not judged."""
        return (number for number, record in self.portions.items() if "map" not in record and "failed" not in record)

    def per_hour(self, now: float) -> float:
        """Return the number of particles that came in the last hour, or at that rate."""
        first = min((one["arrived"] for one in self.portions.values()), default=now)
        span = min(max(now - first, 60.0), HOUR)
        came = sum(int(one["particles"]) for one in self.portions.values() if one["arrived"] > now - span)
        return came * HOUR / span

    def _in_order(self) -> list[Record]:
        return [self.maps[number] for number in sorted(self.maps)]
