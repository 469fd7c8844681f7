"""When the next map is made, and what it begins with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from cryogan.config import Group, Settings

Start = Literal["zero", "last"]
SUPPORTED = ("resolved", "low-resolution-shape")  # verdicts on maps that held-out particles support


class Pace(Group):
    """How a collection is followed."""

    first: int = Field(default=1500, ge=100, description="Number of particles of the first map.")
    growth: float = Field(default=0.25, gt=0, description="Share of more particles after which the next map is made.")
    map_minutes: float = Field(default=20.0, gt=0, description="Minutes after which it is made of fewer new ones.")
    portion: int = Field(default=200, ge=1, description="Number of new particles that are judged together.")
    portion_minutes: float = Field(default=2.0, ge=0, description="Minutes after which fewer are judged.")
    idle_minutes: float = Field(
        default=60.0, gt=0, description="Minutes without new particles after which the end is made."
    )
    interval: float = Field(default=10.0, gt=0, description="Seconds from one look at the collection to the next.")
    cores: int = Field(default=1, ge=1, description="Number of cores that are used.")


@dataclass(frozen=True)
class Made:
    """What the schedule needs to know of a map that was made, or that failed.

    Attributes:
        number: its number, from 1.
        began: when it was begun, seconds.
        particles: number of its particles.
        last_portion: number of the last portion in it.
        start: what it began with.
        verdict: code of its verdict; None: it failed.
    """

    number: int
    began: float
    particles: int
    last_portion: int
    start: Start
    verdict: str | None

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Made":
        """Return what the record of a map says."""
        names = ("number", "began", "particles", "last_portion", "start", "verdict")
        return cls(**{name: record[name] for name in names})

    @property
    def supported(self) -> bool:
        """Whether held-out particles support it."""
        return self.verdict in SUPPORTED


def is_due(pace: Pace, made: Sequence[Made], particles: int, last_portion: int, now: float) -> bool:
    """Return whether another map is to be made now.

    Args:
        pace: how the collection is followed.
        made: maps so far, in their order.
        particles: number of particles now.
        last_portion: number of the last portion.
        now: seconds.
    """
    if not made:
        return particles >= pace.first
    last = made[-1]
    if last_portion == last.last_portion:
        return False
    late = now - last.began >= 60 * pace.map_minutes
    return particles >= pace.first and (late or particles >= (1 + pace.growth) * last.particles)


def can_go_on(settings: Settings) -> bool:
    """Return whether a map of these settings can go on from another, see `cryogan.run.going_on`."""
    return settings.critic == "matching" and settings.classes == 1 and not settings.learn_poses


def start_of_next(made: Sequence[Made], particles: int) -> Start:
    """Return what the next map begins with: nothing, or the last map.

    It begins from zero where there is no map that held-out particles support, after each doubling, and where an update
    has turned the verdict: what was learned by mistake must not stay.

    Args:
        made: maps so far, in their order.
        particles: number of particles now.
    """
    if not made or not made[-1].supported:
        return "zero"
    verdicts = [one.verdict for one in made[-2:]]
    if made[-1].start == "last" and verdicts[0] != verdicts[-1]:
        return "zero"
    from_zero = [one.particles for one in made if one.start == "zero" and one.supported]
    return "zero" if not from_zero or particles >= 2 * from_zero[-1] else "last"


def superfluous(made: Sequence[Made], keep: int) -> list[int]:
    """Return the numbers of maps that are thinned out.

    What stays are the last ones, and of those from zero each that has twice the particles of the one before.

    Args:
        made: maps so far, in their order.
        keep: number of the last maps that stay.
    """
    good = [one for one in made if one.verdict is not None]
    kept, least = {one.number for one in good[-keep:]}, 0
    for one in good:
        if one.supported and one.start == "zero" and one.particles >= least:
            kept.add(one.number)
            least = 2 * one.particles
    return [one.number for one in made if one.number not in kept]
