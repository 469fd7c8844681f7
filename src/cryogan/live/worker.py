"""A task in a process of its own: its memory is free afterwards, and what goes wrong in it ends it alone."""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

from cryogan.config import Settings
from cryogan.errors import InputError, Interrupted
from cryogan.live.folder import LiveFolder
from cryogan.live.tasks import Background, FinishTask, JudgeTask, MapTask, Task

PARENT_SECONDS = 1.0
FAILED, INTERRUPTED = 2, 130  # exit codes


@dataclass
class Worker:
    """The process of a task, one at a time.

    Attributes:
        folder: our folder.
        settings: settings of the maps.
        background: background patches.
        task: the task that runs, or has ended and was not taken back; None: there is none.
    """

    folder: LiveFolder
    settings: Settings
    background: Background
    task: Task | None = None
    _process: SpawnProcess | None = None

    def start(self, task: Task) -> None:
        """Start a task; there must be none."""
        assert self.task is None
        context = multiprocessing.get_context("spawn")
        # It has processes of its own, the halves', which a daemon may not have.
        process = context.Process(
            target=work, args=(self.folder.path, self.settings, self.background, task), daemon=False
        )
        process.start()
        self.task, self._process = task, process

    @property
    def runs(self) -> bool:
        """Whether the task still runs."""
        return self._process is not None and self._process.is_alive()

    def take_back(self) -> tuple[Task, str]:
        """Return the task that has ended, and why it failed; empty: it has not."""
        assert self.task is not None
        assert self._process is not None
        self._process.join()
        task, code = self.task, self._process.exitcode
        self.task = self._process = None
        if code == FAILED and self.folder.failure.exists():
            return task, self.folder.failure.read_text()
        return task, f"Its process exited unexpectedly (exit code {code})." if code else ""

    def stop(self) -> None:
        """Interrupt the task, and wait until its checkpoints are written."""
        if self._process is not None and self._process.is_alive():
            os.kill(self._process.pid or 0, signal.SIGINT)
            self._process.join()
        self.task = self._process = None


def work(path: Path, settings: Settings, background: Background, task: Task) -> None:
    """Do a task: the body of its process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = LiveFolder(path)
    try:
        _do(folder, settings, background, task)
    except (Interrupted, KeyboardInterrupt):
        os._exit(INTERRUPTED)
    except InputError as error:
        with suppress(OSError):  # the disk may be full
            folder.failure.write_text(str(error))
        os._exit(FAILED)


def _do(folder: LiveFolder, settings: Settings, background: Background, task: Task) -> None:
    """Do a task; PyTorch is loaded here, and not in the process that follows the collection."""
    from cryogan.live.judging import judge_portion
    from cryogan.live.making import finish_collection, make_map

    if isinstance(task, MapTask):
        make_map(folder, settings, task, background)
    elif isinstance(task, JudgeTask):
        judge_portion(folder, task.portion, task.map)
    elif isinstance(task, FinishTask):
        finish_collection(folder, settings, background)


def _end_with_parent() -> None:
    """End when the process that follows the collection was killed; the halves write checkpoints and end then, too."""
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        time.sleep(PARENT_SECONDS)
    os._exit(1)
