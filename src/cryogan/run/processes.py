"""The processes of a run: one for each half on one machine, or those that a launcher has started."""

import multiprocessing
import multiprocessing.queues
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from cryogan.errors import InputError, Interrupted
from cryogan.parallel.job import Job
from cryogan.parallel.launch import STOPPING
from cryogan.run.folder import HALVES, Outcome, RunFolder
from cryogan.run.half import train
from cryogan.run.log import RunLog
from cryogan.run.messages import Message, Tell
from cryogan.run.monitor import Monitor, interrupted
from cryogan.run.plan import Plan

# On one machine.


def train_both(folder: RunFolder, plan: Plan, log: RunLog) -> None:
    """Train both halves, each in a process of its own; this one shows and records their progress.

    Raises:
        InputError: a half has failed; the other's checkpoint is written.
        Interrupted: Ctrl-C, or the stop file; both checkpoints are written.
    """
    folder.stop_request.unlink(missing_ok=True)
    messages, workers = _spawn(folder)
    with _ended(workers), Monitor(folder, plan, log) as monitor:
        while monitor.waiting and not monitor.failed:
            try:
                if not monitor.stopped and folder.stop_request.exists():
                    raise KeyboardInterrupt
                monitor.take(messages.get(timeout=1.0))
            except KeyboardInterrupt:
                # They report when their checkpoint is written. A terminal signals them too, a batch system may not.
                monitor.stopped = True
                _interrupt(workers)
            except queue.Empty:
                dead = [half for half in monitor.waiting if not workers[half].is_alive() and messages.empty()]
                if monitor.stopped:  # the signal may have cut off their last messages
                    monitor.waiting.difference_update(dead)
                else:
                    monitor.failed = " ".join(_obituary(half, workers[half].exitcode, folder) for half in dead)
        for half in monitor.waiting:
            workers[half].terminate()
    monitor.require_trained()


def train_half(folder: Path, half: int, messages: "multiprocessing.queues.Queue[Message]") -> None:
    """Train a half with the plan in the folder: the body of its process.

    Args:
        folder: folder of the run.
        half: 1 or 2.
        messages: takes records, findings and how it ended.
    """
    stop, parent = stopped_by_signals(), multiprocessing.parent_process()

    def stopped() -> bool:
        # A parent that was killed waits no more.
        return stop.is_set() or (parent is not None and not parent.is_alive())

    try:
        plan = Plan.read(folder)
        torch.set_num_threads(plan.threads)
        outcome = train(plan, folder, half, messages.put, stopped)
        messages.put(Message(half, outcome=outcome))
    except InputError as error:
        messages.put(Message(half, outcome=Outcome.FAILED, text=str(error)))


def stopped_by_signals() -> threading.Event:
    """Return an event that Ctrl-C, SIGTERM or SIGUSR1 will set from now on: a step is never cut short."""
    stop = threading.Event()
    for number in (signal.SIGINT, *STOPPING):
        signal.signal(number, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the parent blocked it at the start
    return stop


def _spawn(folder: RunFolder) -> "tuple[multiprocessing.queues.Queue[Message], dict[int, SpawnProcess]]":
    """Start a process for each half, and the queue of their messages."""
    context = multiprocessing.get_context("spawn")
    messages: multiprocessing.queues.Queue[Message] = context.Queue()
    workers = {
        half: context.Process(target=train_half, args=(folder.path, half, messages), daemon=True) for half in HALVES
    }
    # Ctrl-C waits until a half has its handler; before, it would end the process without a checkpoint.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    for worker in workers.values():
        worker.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    return messages, workers


def _interrupt(workers: dict[int, SpawnProcess]) -> None:
    for worker in workers.values():
        if worker.is_alive():
            os.kill(worker.pid or 0, signal.SIGINT)


def _obituary(half: int, code: int | None, folder: RunFolder) -> str:
    if code == -signal.SIGKILL:
        return (
            f"The process of half {half} was killed, as the system does when memory runs out. Make room, then: "
            f"cryogan reconstruct --resume {folder.path}"
        )
    return f"The process of half {half} exited unexpectedly (exit code {code})."


@contextmanager
def _ended(workers: dict[int, SpawnProcess]) -> Iterator[None]:
    """Leave no process behind; after an error they write their checkpoints first."""
    try:
        yield
    except BaseException:
        for worker in workers.values():
            worker.terminate()
        raise
    finally:
        for worker in workers.values():
            worker.join()


# Under a launcher.


def lead(folder: RunFolder, plan: Plan, log: RunLog, job: Job) -> None:
    """Train rank 0's part of a distributed run; show and record the progress of both halves between its steps.

    Raises:
        InputError: a process has failed.
        Interrupted: the run was stopped; both checkpoints are written.
    """
    told = _told_to_stop(job)
    folder.stop_request.unlink(missing_ok=True)
    if told():
        raise interrupted(folder)
    job.set_ready()

    def stop() -> bool:
        return told() or folder.stop_request.exists()

    with Monitor(folder, plan, log) as monitor:

        def take(*messages: Message) -> None:
            for message in (*messages, *(Message.from_json(values) for values in job.received())):
                monitor.take(message)

        try:
            _train_part(folder.path, plan, job, take, stop, take)
        finally:
            with suppress(InputError):  # messages of half 2 while half 1 failed
                take()
    monitor.require_trained()
    for number in (signal.SIGINT, *STOPPING):  # the comparison may be cut short
        signal.signal(number, signal.default_int_handler)
    if told():  # when the halves were at their last step
        raise interrupted(folder)


def follow(folder: Path | None, job: Job) -> None:
    """Train along in a distributed run, in each process but that of rank 0, which prepares the folder.

    Raises:
        InputError: this process cannot go on.
        Interrupted: the run was stopped before it began.
    """
    told = _told_to_stop(job)
    while not job.ready:
        if told():
            raise InputError(job.failure) if job.failure else Interrupted
        time.sleep(0.1)
    assert folder is not None  # or rank 0 had ended
    _train_part(folder, Plan.read(folder), job, lambda message: job.send(message.to_json()), told)


def _train_part(
    folder: Path,
    plan: Plan,
    job: Job,
    tell: Tell,
    stop: Callable[[], bool],
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Train this process's part of a distributed run, and wait until all have done theirs; call `idle` meanwhile."""
    if plan.device.type == "cuda":
        plan = plan.on(job.local_rank % torch.cuda.device_count())
    if plan.settings.threads is not None:  # otherwise the launcher decides, by OMP_NUM_THREADS or the cores of a task
        torch.set_num_threads(plan.settings.threads)
    ranks = job.ranks(plan.device)
    outcome = train(plan, folder, job.half, tell, stop, ranks)
    if outcome is Outcome.STOPPED:
        job.stop()
    if ranks.first:
        tell(Message(job.half, outcome=outcome))

    def meanwhile() -> None:
        if stop():
            job.stop()
        idle()

    job.wait_for_all(meanwhile)


def _told_to_stop(job: Job) -> Callable[[], bool]:
    """Whether this process, or any, was told to stop; or its launcher was killed, which then waits no more."""
    signalled, launcher = stopped_by_signals(), os.getppid()
    return lambda: signalled.is_set() or os.getppid() != launcher or job.stopped
