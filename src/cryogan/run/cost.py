"""What a run will take: time, shares of the work, and memory, as its critic estimates them."""

from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryogan.critics import Critic, Memory, Stage, Task

RESULT_SECONDS = 40.0  # alignment, FSC and pictures at the end of a run

# Measured: benchmarks/scaling.py, benchmarks/million.py.
_LIBRARIES_GIB = 0.42
_READING, _TABLE = 460.0, 250.0  # bytes per particle: while the table of both halves is read, and later


class Cost:
    """Estimated cost of one half of a run.

    Args:
        critic: critic whose steps are estimated.
        task: what each half learns.
        stages: stages of the run.
    """

    def __init__(self, critic: "Critic", task: "Task", stages: "tuple[Stage, ...]") -> None:
        self._critic, self._task, self._stages = critic, task, stages

    @cached_property
    def _seconds(self) -> list[float]:
        steps = ((stage, step) for stage in self._stages for step in range(stage.steps))
        return list(accumulate((self._critic.step_seconds(self._task, *step) for step in steps), initial=0.0))

    @property
    def seconds(self) -> float:
        """Time of a half's training on one core like that of `Critic.step_seconds`, seconds."""
        return self._seconds[-1]

    def minutes(self, cores: int) -> float:
        """Return the time of the whole run on a number of cores, minutes."""
        return (self.seconds * max(1.0, 2 / cores) + RESULT_SECONDS) / 60

    def work(self, step: int) -> float:
        """Return the share, 0 to 1, of the run's work that is done after `step` volume updates."""
        return self._seconds[step] / self.seconds

    def minutes_left(self, step: int, minutes: float) -> float:
        """Return the time that a half's training still takes, minutes.

        Args:
            step: volume updates done, 1 or more.
            minutes: time that they took.
        """
        done = self.work(step)
        return minutes * (1 - done) / done

    def memory(self, stage: "Stage") -> "Memory":
        """Return the memory of one half at a stage on its device, bytes."""
        return self._critic.memory(self._task, stage)

    @property
    def memory_gib(self) -> float:
        """Memory of one half's process on the CPU, GiB."""
        from cryogan.particles.images import MEMORY_LIMIT

        particles = self._task.particles
        sizes = (4 * particles * stage.box**2 for stage in self._stages)
        images = max((size for size in sizes if size <= MEMORY_LIMIT), default=0)
        stages = max(self.memory(stage).total for stage in self._stages)
        both = 2 * particles
        return _LIBRARIES_GIB + max(_READING * both, images + _TABLE * both + stages) / 2**30
