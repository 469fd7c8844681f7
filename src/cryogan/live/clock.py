"""The time of a collection: it never goes back, whatever happens to the machine's clock."""

import time
from collections.abc import Callable


class Clock:
    """Seconds since 1970 at the start, and from then on by a clock that nobody can set.

    A machine's clock that is set, by hand or by a time server, moves neither the schedule nor the charts; only a start
    looks at it, and never goes behind the last time that was recorded.

    Args:
        last: the last time that an earlier process recorded; 0: there was none.
        wall: the machine's clock, which may jump.
        monotonic: a clock that does not.
    """

    def __init__(
        self, last: float = 0.0, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic, self._start = monotonic, monotonic()
        self._begin = max(wall(), last)

    def now(self) -> float:
        """Return the time, seconds since 1970."""
        return self._begin + self._monotonic() - self._start
