"""One half map: stage after stage, each from the best map so far, until it is finished or told to stop."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryogan.critics import Trainer
from cryogan.critics.micro_batch import OUT_OF_MEMORY, is_out_of_memory
from cryogan.critics.records import Record
from cryogan.errors import InputError
from cryogan.files import locked, unwritable
from cryogan.parallel.ranks import ALONE, Ranks
from cryogan.particles import ParticleTable, read_particles
from cryogan.run.build import build_trainer, gains_symmetry, read_half, start_from
from cryogan.run.checkpoint import load_checkpoint, save_checkpoint
from cryogan.run.folder import Outcome, RunFolder
from cryogan.run.messages import Tell
from cryogan.run.observers import RECORDS, Step, observers_of, require_finite, snapshot_steps
from cryogan.run.plan import Plan

COMPARISON_SECONDS = 30.0  # of --max-minutes, left for the comparison of the half maps


def train(
    plan: Plan, folder: Path, half: int, tell: Tell, stopped: Callable[[], bool], ranks: Ranks = ALONE
) -> Outcome:
    """Train a half from the start or the last checkpoint.

    Args:
        plan: plan of the run.
        folder: folder of the run.
        half: 1 or 2.
        tell: takes records and findings.
        stopped: asked after each step, whether to end with a checkpoint.
        ranks: the processes that train this half; the first of them writes.

    Returns:
        How it ended: finished, out of time or stopped.

    Raises:
        InputError: the files have changed, the disk is full, memory has run out.
    """
    try:
        # The half of a run that was killed may still be at its last step.
        with locked(RunFolder(folder).half_lock(half), wait=True) if ranks.first else nullcontext():
            ranks.any(True)  # until the first holds the lock
            return Half(plan, RunFolder(folder), half, tell, stopped, ranks).train()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(OUT_OF_MEMORY) from error
    except OSError as error:  # a full disk, mostly
        raise unwritable(folder, error) from error


@dataclass
class _Best:
    """The best map so far, from which the next stage goes on, and the stage that made it."""

    trainer: Trainer | None = None
    stage: int | None = None


class Half:
    """The training of one half. Arguments as for `train`."""

    def __init__(
        self, plan: Plan, folder: RunFolder, half: int, tell: Tell, stopped: Callable[[], bool], ranks: Ranks
    ) -> None:
        self._plan, self._folder, self._half, self._stopped, self._ranks = plan, folder, half, stopped, ranks
        self._checkpoint, self._best = folder.checkpoint(half), _Best()
        self._observers = observers_of(plan, folder, half, tell, ranks)
        self._every, self._kept = max(1, plan.total_steps // RECORDS), snapshot_steps(plan)
        self._started = time.monotonic()
        self._limit = 60 * (plan.settings.max_minutes or float("inf")) - COMPARISON_SECONDS

    def train(self) -> Outcome:
        """Train the stages that are not done yet.

        The trials of the first stage all start from zero. The critic's gap estimates the distance of the two
        distributions, so the trial with the smallest gap is the best of them.
        """
        # Each stage reads the images anew, at its box; they must be the same ones.
        tables, saved, seconds = self._tables(), self._load(), 0.0
        for index in range(0 if saved is None else saved["stage"], len(self._plan.stages)):
            for table in tables:
                table.require_unchanged()
            trainer = build_trainer(self._plan, index, self._folder.particles, self._half, self._ranks)
            trainer.seconds = seconds
            if saved is not None:
                trainer.load_state_dict(saved["training"])
                saved = None
            elif self._best.trainer is not None and not self._plan.is_trial(index):
                if gains_symmetry(trainer, self._best.trainer):
                    for observer in self._observers:
                        observer.see_search(self._best.trainer)
                start_from(trainer, self._best.trainer)
                # Other machines may find other axes.
                self._ranks.copy_first(trainer.volume.state_dict().values())
            outcome = self._train_stage(index, trainer)
            if outcome is not Outcome.FINISHED:
                return outcome
            seconds = trainer.seconds
            self._take_if_better(index, trainer)
        return Outcome.FINISHED

    def _train_stage(self, index: int, trainer: Trainer) -> Outcome:
        """Train one stage to its end, or until it has to stop; write a checkpoint then, and now and then before."""
        before, outcome = self._plan.steps_before(index), Outcome.FINISHED
        for observer in self._observers:
            observer.see_stage(trainer)
        record: Record | None = None
        written = last = time.monotonic()
        for record in trainer.run():
            self._show(before + trainer.step, trainer, record)
            now = time.monotonic()
            outcome = self._ending(now, now - last)
            last = now
            if outcome is not Outcome.FINISHED:
                break
            if self._ranks.first and time.monotonic() - written > 60 * self._plan.settings.checkpoint_minutes:
                require_finite(self._half, trainer, record)
                self._save(index, trainer)
                written = time.monotonic()
        if record is not None:
            require_finite(self._half, trainer, record)
        if self._ranks.first:
            self._save(index, trainer)
        is_last = index == len(self._plan.stages) - 1
        if outcome is Outcome.OUT_OF_TIME or (outcome is Outcome.FINISHED and is_last):
            for observer in self._observers:
                observer.see_end(self._final(index, trainer, outcome), before + trainer.step, outcome)
        return outcome

    def _final(self, index: int, trainer: Trainer, outcome: Outcome) -> Trainer:
        """The trainer of the map that the half ends with: of a trial that was cut short, rather a whole one's."""
        cut_short = outcome is Outcome.OUT_OF_TIME and self._plan.is_trial(index)
        return self._best.trainer if cut_short and self._best.trainer is not None else trainer

    def _show(self, number: int, trainer: Trainer, record: Record) -> None:
        """Show a step to all observers."""
        kept = number in self._kept
        step = Step(trainer, record, number, kept, kept or number % self._every == 0)
        for observer in self._observers:
            observer.see_step(step)

    def _ending(self, now: float, step_seconds: float) -> Outcome:
        """Whether the half has to end after this step; finished: it goes on to the end of its stage.

        Asked in every process of the half after the same step, so that all end together.
        """
        late = now - self._started + step_seconds > self._limit
        stop, late = self._ranks.any(self._stopped(), late)
        if stop:
            return Outcome.STOPPED
        return Outcome.OUT_OF_TIME if late else Outcome.FINISHED

    def _take_if_better(self, index: int, trainer: Trainer) -> None:
        best = self._best.trainer
        if best is None or not self._plan.is_trial(index) or trainer.distance < best.distance:
            self._best = _Best(trainer, index)

    def _tables(self) -> list[ParticleTable]:
        """The particles and the background patches, to see whether their stacks have changed."""
        tables = [read_half(self._plan, self._folder.particles, self._half).table]
        if self._plan.noise is not None:
            tables.append(read_particles(self._plan.noise, self._plan.data_dir, need_ctf=False))
        return tables

    def _load(self) -> dict[str, Any] | None:
        """Read the last checkpoint, and build the best trainer before the stage that it is of."""
        if not self._checkpoint.exists():
            return None
        saved = load_checkpoint(self._checkpoint, self._plan.device)
        stage = saved["best_stage"]
        if saved["best"] is not None:
            best = build_trainer(self._plan, stage, self._folder.particles, self._half, self._ranks)
            best.load_state_dict(saved["best"])
            self._best = _Best(best, stage)
        return saved

    def _save(self, index: int, trainer: Trainer) -> None:
        """Write the stage that runs and the best one before it."""
        best = self._best
        state = {"stage": index, "training": trainer.state_dict(), "best_stage": best.stage}
        save_checkpoint(self._checkpoint, state | {"best": None if best.trainer is None else best.trainer.state_dict()})
