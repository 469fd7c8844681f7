"""What a run will take: time, shares of the work, and memory, as its critic estimates them."""

from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from cryogan.parallel.work import USUAL, Speed, Work

if TYPE_CHECKING:
    from cryogan.critics import Critic, Memory, Stage, Task

# Measured: benchmarks/estimate.py, benchmarks/scaling.py, benchmarks/million.py. What is neither an image's work nor a
# volume's, such as loading libraries and drawing figures, is as slow on a slow machine as that many samples.
_START, _HALF = Work(samples=5e7), Work(samples=1.2e8)
_RESULT, _RESULT_TRANSFORMS = Work(samples=1.2e8), 20.0
_VERDICT_IMAGES, _VERDICT_MATCHES = 1000, 7.0  # of a half; each of them is matched so often
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
    def _training(self) -> list[Work]:
        """Work of a half's training after each number of volume updates."""
        steps = ((stage, step) for stage in self._stages for step in range(stage.steps))
        return list(accumulate((self._critic.step_work(self._task, *step) for step in steps), initial=Work()))

    @cached_property
    def _seconds(self) -> list[float]:
        return [USUAL.seconds(work) for work in self._training]

    @property
    def training(self) -> Work:
        """Work of all volume updates of one half."""
        return self._training[-1]

    @property
    def half(self) -> Work:
        """Work of one half, up to its final map."""
        return _START + _HALF + self.training

    @property
    def result(self) -> Work:
        """Work that is done once: reading the input, and at the end alignment, FSC, figures and the verdict."""
        from cryogan.critics.matching.work import MARCHING, image_work

        task, last = self._task, self._stages[-1]
        padded = Work(voxels=(task.settings.oversampling * task.box) ** 3)
        work = _START + _RESULT + padded * _RESULT_TRANSFORMS
        if task.settings.verdict and task.settings.kind == "particles":
            images = 2 * min(task.particles, _VERDICT_IMAGES)
            work += image_work(task, replace(last, method=MARCHING), task.box / 2) * (images * _VERDICT_MATCHES)
        return work

    def minutes(self, cores: int, speed: Speed = USUAL, threads: int = 1) -> float:
        """Return the time of the whole run, minutes.

        Args:
            cores: number of cores, which both halves share.
            speed: speed of this machine; default: that of a core of a Zen 4.
            threads: number of threads of each half, with which the speed was measured.
        """
        crowded = max(1.0, 2 * threads / cores)
        return (speed.seconds(self.half) * crowded + speed.seconds(self.result)) / 60

    def work(self, step: int) -> float:
        """Return the share, 0 to 1, of the run's work that is done after `step` volume updates."""
        return self._seconds[step] / self._seconds[-1]

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
