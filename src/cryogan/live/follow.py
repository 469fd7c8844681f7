"""The loop of `cryogan live`: look, take up, judge, make maps, say what is found; for days, and again after a kill."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from cryogan.config import Settings
from cryogan.errors import Finding, InputError
from cryogan.live import alerts as what
from cryogan.live import kinds
from cryogan.live.alerts import Alerts
from cryogan.live.clock import Clock
from cryogan.live.folder import LiveFolder, read_json, write_json
from cryogan.live.ledger import GONE_LOOKS, Ledger
from cryogan.live.records import Records
from cryogan.live.schedule import Pace, can_go_on, is_due, start_of_next, superfluous
from cryogan.live.source import Look, Source
from cryogan.live.status import status_of
from cryogan.live.tasks import NO_PATCHES, Background, FinishTask, JudgeTask, MapTask, Task
from cryogan.live.worker import Worker

KEPT = 3  # last maps that are not thinned out
SETTLED_LOOKS = 3  # after a start, until all that stands still is known to


class Follower:
    """Follows a collection.

    Args:
        folder: our folder, which is locked.
        path: particle file, or folder of such files.
        settings: settings of the maps.
        pace: how the collection is followed.
        background: background patches, and another folder with image stacks.
        target: resolution that is wanted, A.
        on_alert: command that is given each alert.
        console: where alerts are printed.
        clock: the time.

    Attributes:
        failure: why the final run failed that was asked for; empty: it has not.
    """

    def __init__(
        self,
        folder: LiveFolder,
        path: Path,
        settings: Settings,
        pace: Pace,
        *,
        background: Background = NO_PATCHES,
        target: float | None = None,
        on_alert: str | None = None,
        console: Console | None = None,
        clock: Clock | None = None,
    ) -> None:
        folder.make()
        self.folder, self._path, self._settings, self._pace = folder, path, settings, pace
        self._target = target
        self._console = console or Console(stderr=True)
        self._clock = clock or Clock(float(read_json(folder.status).get("now", 0.0)))
        self._source = Source(path, folder.copies, background.data_dir)
        self._ledger, self._records = Ledger(folder, settings), Records(folder)
        self._alerts, self._worker = Alerts(folder, on_alert), Worker(folder, settings, background)
        self._since_new: float | None = None  # when the oldest particle was seen that is not taken up
        self._last_new = self._clock.now()
        self._unreadable: dict[Path, int] = {}  # looks at which a particle file could not be read
        self.failure = ""
        self._away = self._full = False
        self._waiting = self._left = self._looks = 0

    def run(self) -> None:
        """Follow until the end, or until a request to stop or Ctrl-C; the next start goes on."""
        state = "stopped"
        self.folder.stop_request.unlink(missing_ok=True)
        try:
            while not self.folder.stop_request.exists():
                if not self.step():
                    state = "stopped" if self.failure else "finished"
                    break
                self._sleep()
        finally:
            self._worker.stop()
            with suppress(OSError):
                self.folder.stop_request.unlink(missing_ok=True)
                self._write_status(state)

    def step(self) -> bool:
        """Look once, and do what is due; return False at the end."""
        try:
            look = self._source.look()
            self._say_input(look)
            self._take_up(look)
            self._take_back()
            self._give_task()
            self._alerts.reap(self._clock.now())
            self._write_status(self._state())
            self._full = False
        except OSError as error:  # a full disk; the collection's are caught where they are read
            self._say_full(error)
        return not self.folder.final_record.exists() and not self.failure

    def _sleep(self) -> None:
        """Wait for the next look, or until a task has ended."""
        end = time.monotonic() + self._pace.interval
        busy = self._worker.runs
        while time.monotonic() < end and not self.folder.stop_request.exists():
            if busy and not self._worker.runs:
                return
            time.sleep(min(0.2, self._pace.interval))

    # The collection.

    def _say_input(self, look: Look) -> None:
        now = self._clock.now()
        if look.away:
            self._last_new = now  # the end is not made because a disk is away
        if look.away != self._away and (look.away or self._away):
            kind = kinds.INPUT_AWAY if look.away else kinds.INPUT_BACK
            self._say(kind(path=str(self._path)), now)
        self._away = look.away
        self._unreadable = {file: self._unreadable.get(file, 0) + 1 for file in look.complaints}
        for file, looks in self._unreadable.items():
            if looks == GONE_LOOKS:  # until then it may be in the middle of being written
                self._say(kinds.INPUT_UNREADABLE(reason=look.complaints[file]), now)
        change = self._ledger.follow_names(look)
        for kind, count in ((kinds.VANISHED, change.vanished), (kinds.RETURNED, change.returned)):
            if count:
                self._say(kind(count=count), now)

    def _take_up(self, look: Look) -> None:
        """Take up portions, if enough particles are new, or some have waited long enough."""
        new, now = self._ledger.new(look), self._clock.now()
        self._since_new = (now if self._since_new is None else self._since_new) if new else None
        late = self._since_new is not None and now - self._since_new >= 60 * self._pace.portion_minutes
        while new and (len(new) >= self._pace.portion or late or self._finishing):
            try:
                change = self._ledger.take_up(self._source, new, now)
            except InputError as error:
                self._say(kinds.INPUT_UNREADABLE(reason=str(error)), str(error))
                break
            self._since_new, self._last_new = None, now
            if change.portion is not None:
                self._records.read_portion(change.portion)
            for kind, count in ((kinds.REWRITTEN, change.rewritten), (kinds.UNUSABLE, change.unusable)):
                if count:
                    self._say(kind(count=count), now)
            new = self._ledger.new(look)
        self._left, self._waiting = len(new), look.waiting + len(new)
        self._looks += 1

    # Tasks.

    @property
    def _finishing(self) -> bool:
        idle = self._clock.now() - self._last_new >= 60 * self._pace.idle_minutes
        return self.folder.finish_request.exists() or (idle and len(self._ledger) > 0)

    def _take_back(self) -> None:
        """Read what came of a task that has ended."""
        if self._worker.task is None or self._worker.runs:
            return
        task, failure = self._worker.take_back()
        if isinstance(task, MapTask):
            self._after_map(task, failure)
        elif isinstance(task, JudgeTask):
            self._after_judgement(task, failure)
        else:
            self._after_finish(failure)

    def _after_finish(self, failure: str) -> None:
        """Say how the final run ended; one that failed is tried again when it is asked for, or after another hour."""
        now = self._clock.now()
        if not failure:
            self._say(kinds.FINISHED(verdict=read_json(self.folder.final_record)["sentence"]), now)
            return
        self._say(kinds.FINAL_FAILED(reason=failure), now)
        self._last_new = now
        if self.folder.finish_request.exists():
            self.folder.finish_request.unlink()
            self.failure = failure

    def _after_map(self, task: MapTask, failure: str) -> None:
        record = self.folder.map_record(task.number)
        if failure and not record.exists():
            write_json(record, {**vars(task), "particles": len(self._ledger), "verdict": None, "failed": failure})
        self._records.read_map(task.number)
        for finding in what.of_map(self._records, task.number, self._target):
            about = "" if finding.code == kinds.ENOUGH.code else task.number
            self._say(finding, about)
        for number in superfluous(self._records.made, KEPT):
            self._thin(number)

    def _thin(self, number: int) -> None:
        """Remove the files of a map that later ones have replaced; its record stays."""
        folder, noise = self.folder, self.folder.map_noise(number)
        shutil.rmtree(folder.map_run(number).path, ignore_errors=True)
        for path in (folder.map_particles(number), folder.map_sample(number), noise, noise.with_suffix(".mrcs")):
            path.unlink(missing_ok=True)

    def _after_judgement(self, task: JudgeTask, failure: str) -> None:
        path = self.folder.portion_record(task.portion)
        if failure:
            write_json(path, read_json(path) | {"failed": failure})
            self._records.read_portion(task.portion)
            return
        record = self._records.read_portion(task.portion)
        for finding in what.of_portion(record):
            self._say(finding, task.portion)
        for square, finding in what.of_squares(self._records.squares).items():
            self._say(finding, square)
        codes = kinds.VIEWS_MISSING.code, kinds.VIEWS_MENDED.code
        views = what.of_views(record, len(self._ledger), self._alerts.last_of(*codes))
        if views is not None:
            self._say(views, self._clock.now())

    def _give_task(self) -> None:
        if self._worker.task is None and (task := self._next_task()) is not None:
            if isinstance(task, MapTask):
                write_json(self.folder.map_task(task.number), vars(task))
            self._worker.start(task)

    def _next_task(self) -> Task | None:
        """Return what is due: first what an earlier process has begun, then portions, then a map, then the end."""
        begun = self.folder.map_in_making()
        if begun is not None:
            return MapTask(**read_json(self.folder.map_task(begun)))
        last, records = self._records.last_supported, self._records
        if last is not None and (portion := next(records.to_judge(), None)) is not None:
            return JudgeTask(portion, last)
        made, count, now = records.made, len(self._ledger), self._clock.now()
        if self._finishing and count and not self._left and self._looks >= SETTLED_LOOKS:
            return FinishTask()
        if not is_due(self._pace, made, count, self._ledger.last_portion, now):
            return None
        start = start_of_next(made, count) if can_go_on(self._settings) else "zero"
        last = records.last_supported if start == "last" else None
        number = 1 + max(records.maps, default=0)
        return MapTask(number, start, last, self._ledger.last_portion, now)

    # What is said.

    def _state(self) -> str:
        if self._away:
            return "input away"
        if self._finishing:
            return "finishing"
        return "following" if len(self._ledger) >= self._pace.first or self._records.maps else "collecting"

    def _write_status(self, state: str) -> None:
        task = self._worker.task
        live = {
            "state": state,
            "title": self._path.name,
            "task": "" if task is None else task.name,
            "waiting": self._waiting,
            "portions_waiting": sum(1 for _ in self._records.to_judge()),
        }
        now = self._clock.now()
        said, count = self._alerts.said, len(self._ledger)
        values = status_of(self._records, self._pace.first, self._target, said, count, now, **live)
        write_json(self.folder.status, values)

    def _say(self, finding: Finding, about: object = "") -> None:
        if self._alerts.say(finding, self._clock.now(), about):
            self._console.print(finding.sentence, highlight=False, soft_wrap=True, markup=False)
            with self.folder.log.open("a") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {finding.sentence}\n")

    def _say_full(self, error: OSError) -> None:
        if not self._full:
            finding = kinds.DISK_FULL(path=str(self.folder.path), reason=error.strerror or str(error))
            with suppress(OSError):  # the sentence is sent before the file of alerts is written
                self._say(finding, self._clock.now())
        self._full = True
