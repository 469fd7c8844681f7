"""Progress of both halves: bars on the console, lines in progress.jsonl, and how each half ended."""

import json
from contextlib import nullcontext, suppress

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cryogan.errors import InputError, Interrupted
from cryogan.run.folder import HALVES, Outcome, RunFolder
from cryogan.run.log import RunLog
from cryogan.run.messages import Message
from cryogan.run.plan import Plan


class Monitor:
    """Progress display and record of both halves (context manager).

    Args:
        folder: folder of the run.
        plan: plan of the run.
        log: log of the run.

    Attributes:
        waiting: halves that have not ended.
        failed: why the first half that failed did; empty: none has.
        stopped: whether the run was told to stop.
    """

    def __init__(self, folder: RunFolder, plan: Plan, log: RunLog) -> None:
        self._folder, self._plan, self._log = folder, plan, log
        columns = (TextColumn("Half {task.fields[half]}"), BarColumn(), TextColumn("{task.fields[step]} steps"))
        times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[state]}"))
        self._bars = Progress(*columns, *times, console=log.console)
        self._tasks = {half: self._bars.add_task("", total=1.0, half=half, step=0, state="starting") for half in HALVES}
        self.waiting, self.failed, self.stopped = set(HALVES), "", False

    def __enter__(self) -> "Monitor":
        """Show the bars and begin the record."""
        self._folder.record_outcome(Outcome.RUNNING)
        self._progress = self._folder.progress.open("a")
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bars away and end the record."""
        self._bars.stop()
        self._progress.close()

    def take(self, message: Message) -> None:
        """Show and record a message of a half."""
        if message.record is not None:
            done = self._plan.cost.work(int(message.record["step"]))
            self._progress.write(json.dumps({"half": message.half, "done": round(done, 6)} | message.record) + "\n")
            self._progress.flush()
            self._show(message.half, message.record)
        elif message.finding is not None:
            self._log.report([message.finding])
        elif message.outcome is not None:
            self._end(message.half, message.outcome, message.text)

    def _end(self, half: int, outcome: Outcome, text: str) -> None:
        self.waiting.discard(half)
        self.stopped |= outcome is Outcome.STOPPED
        if outcome is Outcome.FAILED and not self.failed:
            self.failed = text
        # Why a half failed matters more than that its end could not be recorded: the disk may be full.
        with nullcontext() if outcome.has_map else suppress(OSError):
            self._folder.record_outcome(outcome, half)
            self._log.note(f"half {half}: {outcome.sentence}")

    def require_trained(self) -> None:
        """Raise what ended the run before both halves had their map.

        Raises:
            InputError: a half has failed.
            Interrupted: the run was stopped.
        """
        if self.failed:
            raise InputError(self.failed)
        if self.stopped:
            raise interrupted(self._folder)

    def _show(self, half: int, record: dict[str, float]) -> None:
        """Move a half's bar; log each tenth of the work, and print it where there is no terminal for a bar."""
        plan, task = self._plan, self._tasks[half]
        state = f"gap {record['critic_gap']:.2f}  change {record['map_change']:.1%}"
        if plan.settings.learn_scales:
            state += f"  signal {record['signal_scale']:.2f}  noise {record['noise_scale']:.2f}"
        step, minutes = int(record["step"]), record["minutes"]
        before, done = self._bars.tasks[task].completed, plan.cost.work(step)
        self._bars.update(task, completed=done, step=f"{step}/{plan.total_steps}", state=state)
        if int(10 * done) > int(10 * before):
            text = (
                f"half {half}: step {step} of {plan.total_steps}, {minutes:.1f} min, about "
                f"{plan.cost.minutes_left(step, minutes):.1f} min left; {state}"
            )
            self._log.note(text)
            if not self._log.console.is_terminal:
                self._log.console.print(text, highlight=False, soft_wrap=True)


def interrupted(folder: RunFolder) -> Interrupted:
    """Return the exception of a run that was stopped."""
    return Interrupted(f"Stopped. Go on with: cryogan reconstruct --resume {folder.path}")
