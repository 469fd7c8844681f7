"""The tasks of `cryogan live` that compute: a map, the judgement of a portion, the run at the end."""

from dataclasses import dataclass
from pathlib import Path

from cryogan.live.schedule import Start


@dataclass(frozen=True)
class Background:
    """Where background patches are.

    Attributes:
        noise: STAR or .cs file of patches, which may grow; None: there are none.
        data_dir: another folder with image stacks.
    """

    noise: Path | None = None
    data_dir: Path | None = None


NO_PATCHES = Background()


@dataclass(frozen=True)
class MapTask:
    """A map to be made.

    Attributes:
        number: its number.
        start: what it begins with.
        last: number of the map that it goes on from; None: from zero.
        last_portion: number of the last portion in it.
        began: when it was begun, seconds.
    """

    number: int
    start: Start
    last: int | None
    last_portion: int
    began: float

    @property
    def name(self) -> str:
        """What is done, for the page."""
        return f"map {self.number} is made, {'from zero' if self.last is None else f'from map {self.last}'}"


@dataclass(frozen=True)
class JudgeTask:
    """A portion to be judged against a map."""

    portion: int
    map: int

    @property
    def name(self) -> str:
        """What is done, for the page."""
        return f"portion {self.portion} is judged against map {self.map}"


@dataclass(frozen=True)
class FinishTask:
    """The run of all particles at the end."""

    @property
    def name(self) -> str:
        """What is done, for the page."""
        return "the final run is made"


Task = MapTask | JudgeTask | FinishTask
