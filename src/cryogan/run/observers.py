"""What is kept and shown of a half while it is trained: maps, pictures, progress.

Each observer sees every step, and the end. A new one is a class here and a line in `observers_of`.
"""

import time
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryogan.critics import Trainer
from cryogan.critics.records import Record
from cryogan.errors import InputError
from cryogan.parallel.ranks import Ranks
from cryogan.particles import write_star, write_volume
from cryogan.run import warnings
from cryogan.run.figures import plot_simulation
from cryogan.run.folder import Outcome, RunFolder
from cryogan.run.messages import Message, Tell
from cryogan.run.plan import Plan
from cryogan.run.views import write_views

SNAPSHOTS = 8  # of the map over a run, for the figures
RECORDS = 500  # lines of progress.jsonl a half, about
LATEST_SECONDS = 5.0  # between the maps for those who watch
PICTURE_SECONDS = 60.0  # between pictures of the simulation; one takes about a second


@dataclass(frozen=True)
class Step:
    """A volume update that has just been made.

    Attributes:
        trainer: trainer that made it.
        record: its numbers; to look at one is to wait for the GPU.
        number: number of volume updates of the run so far.
        is_snapshot: whether its map is kept.
        is_reported: whether its record is.
    """

    trainer: Trainer
    record: Record
    number: int
    is_snapshot: bool
    is_reported: bool


class Observer:
    """Sees a half being trained; changes nothing."""

    def see_stage(self, trainer: Trainer) -> None:
        """Look at a stage that begins or goes on."""

    def see_step(self, step: Step) -> None:
        """Look at a volume update."""

    def see_search(self, trainer: Trainer) -> None:
        """Look at the map of a search without symmetry, before the symmetry's axes are found in it.

        Args:
            trainer: trainer of the search.
        """

    def see_end(self, trainer: Trainer, number: int, outcome: Outcome) -> None:
        """Look at the end.

        Args:
            trainer: trainer of the last stage that ran.
            number: number of volume updates of the run so far.
            outcome: how it ended, with a map: `Outcome.has_map`.
        """


def observers_of(plan: Plan, folder: RunFolder, half: int, tell: Tell, ranks: Ranks) -> list[Observer]:
    """Return the observers of a half in one of its processes, in the order in which they look."""
    watchful: list[Observer] = [FiniteMap(half), SmallerBatches(half, tell)]
    if not ranks.first:
        return watchful
    pictures: list[Observer] = [Pictures(folder)] if half == 1 else []
    writing = [LatestMap(folder, half), Snapshots(folder, half), *pictures, Progress(half, tell)]
    return [*watchful, *writing, Classes(folder, half)]


def require_finite(half: int, trainer: Trainer, record: Record) -> None:
    """Refuse to go on with a map that holds NaN or infinity.

    Raises:
        InputError: it does.
    """
    if not np.isfinite(record["map_change"]):
        raise InputError(f"Half {half}: the map is not finite after step {trainer.step}. Lower the rates.")


class FiniteMap(Observer):
    """Ends the run with a remedy where the map is not finite."""

    def __init__(self, half: int) -> None:
        self._half = half

    def see_step(self, step: Step) -> None:
        """Look at the numbers, where they are looked at anyway."""
        if step.is_reported:
            require_finite(self._half, step.trainer, step.record)


class SmallerBatches(Observer):
    """Tells that memory ran out and fewer images are processed at once."""

    def __init__(self, half: int, tell: Tell) -> None:
        self._half, self._tell = half, tell
        self._size = 0

    def see_stage(self, trainer: Trainer) -> None:
        """Note the number of images at once with which a stage begins."""
        self._size = trainer.micro_batch.size

    def see_step(self, step: Step) -> None:
        """Tell if there are fewer than before."""
        size = step.trainer.micro_batch.size
        if size < self._size:
            self._size = size
            who = f"Half {self._half} at box {step.trainer.simulator.projector.box}"
            self._tell(Message(self._half, finding=warnings.SMALLER_BATCHES(who=who, images=size)))


class LatestMap(Observer):
    """Writes the map every few seconds, for those who watch."""

    def __init__(self, folder: RunFolder, half: int) -> None:
        self._path, self._written = folder.latest(half), -float("inf")

    def see_step(self, step: Step) -> None:
        """Write the map if the last one is old."""
        now = time.monotonic()
        if now - self._written > LATEST_SECONDS:
            write_map(self._path, step.trainer)
            self._written = now


class Snapshots(Observer):
    """Keeps the map at some steps, that of a search without symmetry, and the last one."""

    def __init__(self, folder: RunFolder, half: int) -> None:
        self._folder, self._half = folder, half

    def see_step(self, step: Step) -> None:
        """Keep the map of a chosen step."""
        if step.is_snapshot:
            write_map(self._folder.snapshot(self._half, step.number), step.trainer)

    def see_search(self, trainer: Trainer) -> None:
        """Keep the map in which the symmetry, which is imposed next, can still be seen or missed."""
        write_map(self._folder.searched(self._half), trainer)

    def see_end(self, trainer: Trainer, number: int, outcome: Outcome) -> None:
        """Write the map that the halves are compared by."""
        if outcome is Outcome.OUT_OF_TIME:
            write_map(self._folder.snapshot(self._half, number), trainer)
        write_map(self._folder.final(self._half), trainer)


class Pictures(Observer):
    """Draws what the simulator makes of the map, and writes from where, where views are not uniform."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._drawn = folder, -float("inf")

    def see_step(self, step: Step) -> None:
        """Draw with each snapshot, and once in a while."""
        if step.is_snapshot or time.monotonic() - self._drawn > PICTURE_SECONDS:
            self._draw(step.trainer)

    def see_end(self, trainer: Trainer, number: int, outcome: Outcome) -> None:
        """Draw the end of a run whose last step was not planned."""
        if outcome is Outcome.OUT_OF_TIME:
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        plot_simulation(self._folder, trainer)
        write_views(self._folder, trainer)
        self._drawn = time.monotonic()


class Progress(Observer):
    """Tells the numbers of a step."""

    def __init__(self, half: int, tell: Tell) -> None:
        self._half, self._tell = half, tell
        self._last: Step | None = None  # that was not told

    def see_step(self, step: Step) -> None:
        """Tell the numbers, where they are reported."""
        self._last = None if step.is_reported else step
        if step.is_reported:
            self._tell_numbers(step)

    def see_end(self, trainer: Trainer, number: int, outcome: Outcome) -> None:
        """Tell the numbers of a last step that was not planned."""
        if self._last is not None:
            self._tell_numbers(self._last)

    def _tell_numbers(self, step: Step) -> None:
        numbers = {**step.record, "step": step.number, "box": step.trainer.simulator.projector.box}
        self._tell(Message(self._half, record=numbers))


class Classes(Observer):
    """Writes what the comparison of the halves needs of the classes, where there are several."""

    def __init__(self, folder: RunFolder, half: int) -> None:
        self._folder, self._half = folder, half

    def see_end(self, trainer: Trainer, number: int, outcome: Outcome) -> None:
        """Write each class's map, and weights and probabilities of all."""
        classes = trainer.class_result()
        if classes is None:
            return
        for k, volume in enumerate(classes.maps, 1):
            pixels = volume.cpu().numpy()
            write_volume(self._folder.class_map(self._half, k), pixels, trainer.simulator.pixel_size)
        probabilities = classes.probabilities.T.cpu()
        blocks = {
            "weights": {"cryoganClassWeight": classes.weights.tolist()},
            "particles": {f"cryoganClassProbability{k}": row.tolist() for k, row in enumerate(probabilities, 1)},
        }
        write_star(self._folder.class_table(self._half), blocks)


def write_map(path: Path, trainer: Trainer) -> None:
    """Write a trainer's map as MRC."""
    write_volume(path, trainer.result().cpu().numpy(), trainer.simulator.pixel_size)


def snapshot_steps(plan: Plan) -> set[int]:
    """Return the steps at which the map is kept, denser at the start, where it changes most; the last is among them.

    Of several trials of the first stage only the last is kept: which one goes on is not known before.
    """
    trials = [index for index in range(len(plan.stages)) if plan.is_trial(index)]
    skipped = sum(plan.stages[index].steps for index in trials[:-1])
    first = plan.cost.work(skipped)
    shares = [first + (1 - first) * (i / SNAPSHOTS) ** 2 for i in range(1, SNAPSHOTS)]
    steps = range(skipped + 1, plan.total_steps + 1)
    return {plan.total_steps} | {skipped + 1 + bisect_left(steps, share, key=plan.cost.work) for share in shares}
