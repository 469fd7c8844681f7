"""Two half sets, each trained in processes of its own, from plan to result: the whole of `cryogan reconstruct`."""

import json
import multiprocessing
import multiprocessing.queues
import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cryogan.config import Settings
from cryogan.errors import InputError, Interrupted
from cryogan.files import locked, require_new, unwritable
from cryogan.parallel.launch import STOPPING
from cryogan.parallel.ranks import Job, lots
from cryogan.particles import write_particles
from cryogan.run.figures import snapshot_path
from cryogan.run.half import Message, rows_of_half, stopped_by_signals, train, train_half
from cryogan.run.plan import Plan, make_plan
from cryogan.run.postprocess import HALVES, Result, compare
from cryogan.run.report import write_readme

LOCK_FILE = ".lock"  # held while a process works in the run's folder
LOG_FILE = "log.txt"
STOP_FILE = "stop"  # whoever puts it into the run's folder stops the run, from any machine


def reconstruct(
    particles: Path,
    out: Path,
    settings: Settings,
    *,
    noise: Path | None = None,
    data_dir: Path | None = None,
    cache: Path | None = None,
    console: Console | None = None,
    job: Job | None = None,
) -> Result:
    """Two independent half maps of the particles, from zero, and their FSC, in the folder `out`.

    Args:
        particles: RELION STAR or cryoSPARC .cs, with CTF.
        out: folder that does not exist or is empty.
        settings: see `cryogan.config`.
        noise: STAR or .cs of background patches with micrograph names.
        data_dir: where else to look for image stacks.
        cache: folder where particles and patches are kept at the working box, cropped once; several runs may share it.
        console: what the run says; default: standard error.
        job: the processes of a distributed run, called in rank 0; the others call `follow`.

    Raises:
        InputError: input that cannot be used; nothing is written then.
        Interrupted: Ctrl-C; go on with `resume`.
    """
    console = console or Console(stderr=True)
    require_new(out, f"Give another --out, or --resume {out} to go on with a run.")
    columns = (TextColumn("Cropping"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=cache is None, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        plan, images, remarks = make_plan(
            particles, noise, data_dir, settings, cache, lambda done: bar.update(task, completed=done)
        )
    if job is not None:
        require_images(plan, job.size)
    subset = np.full(len(images), 2)
    subset[rows_of_half(images.table, 1, settings)] = 1
    (out / "snapshots").mkdir(parents=True, exist_ok=True)
    (out / "figures").mkdir(exist_ok=True)
    write_particles(out / "particles.star", images.table, random_subset=subset)
    write_readme(out, plan)
    plan.write(out)  # last: a folder with this file can be resumed
    for remark in remarks:
        _say(out, console, remark)
    del images, subset  # the halves read their own
    return _run(out, plan, console, job)


def resume(folder: Path, *, console: Console | None = None, job: Job | None = None) -> Result:
    """Go on with an interrupted run from its last checkpoints, on any number of processes (`job`).

    Raises:
        InputError: the folder is not that of a run, or the run's device is not here.
        Interrupted: Ctrl-C again.
    """
    plan = Plan.read(folder)
    plan.require_device(folder)
    if job is not None:
        require_images(plan, job.size)
    return _run(folder, plan, console or Console(stderr=True), job)


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
    _train_part(folder, Plan.read(folder), job, lambda message: job.send(asdict(message)), told)


def figures(folder: Path) -> Result:
    """Compare the half maps of a finished run again, and draw its figures anew.

    Raises:
        InputError: the folder is not that of a finished run.
    """
    plan = Plan.read(folder)
    if not all(snapshot_path(folder, half, plan.total_steps).exists() for half in HALVES):
        raise InputError(f"{folder} is not finished; go on with: cryogan reconstruct --resume {folder}")
    with locked(folder / LOCK_FILE, wait=False):
        return compare(folder, plan)


def _say(folder: Path, console: Console, text: str) -> None:
    """To the user, and to the run's log."""
    console.print(text, highlight=False, soft_wrap=True)
    _log(folder, text)


def _log(folder: Path, text: str) -> None:
    with (folder / LOG_FILE).open("a") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")


def require_images(plan: Plan, processes: int) -> None:
    """That each of the processes of a distributed run has a part of a batch. Raises InputError."""
    setting = plan.critic.batch_setting
    batch, name = getattr(plan.settings, setting), setting.replace("_", "-")
    if lots(batch) < processes // 2:
        raise InputError(
            f"--{name} {batch} is drawn in {lots(batch)} parts, too few for {processes // 2} processes of a half map; "
            f"start at most {2 * lots(batch)} processes."
        )


def _run(folder: Path, plan: Plan, console: Console, job: Job | None) -> Result:
    if job is None:
        _say(folder, console, plan.machine)
    else:
        processes = "1 process" if job.size == 2 else f"{job.size // 2} processes"
        _say(folder, console, f"Device: {plan.device.type}, {processes} for each half.")
    with locked(folder / LOCK_FILE, wait=False), _writing_to(folder):
        try:
            if job is None:
                _train(folder, plan, console)
            else:
                _lead(folder, plan, console, job)
            _log(folder, "Both halves are trained; they are aligned and compared.")
            result = _compare(folder, plan)
        except (InputError, Interrupted) as ended:  # said by whoever catches it
            with suppress(OSError):  # the disk may be full
                _log(folder, str(ended) if job is None else job.failure or str(ended))
            raise
    other = result.alignment.correlation_other_hand
    _say(
        folder,
        console,
        f"Half maps agree to {result.resolution:.2f} A (FSC 0.143, mask-corrected; unmasked "
        f"{result.resolution_unmasked:.2f} A). Alignment of half 2: correlation "
        f"{result.alignment.correlation:.3f}, other hand {other:.3f}; the absolute hand is unknown.\n"
        f"{result.convergence.sentence}\n"
        f"Map: {folder / 'map.mrc'}",
    )
    for each in result.classes:
        _say(folder, console, f"{each.folder}: {each.sentence}.")
    return result


def _compare(folder: Path, plan: Plan) -> Result:
    """The last part of a run, which begins anew after Ctrl-C."""
    try:
        return compare(folder, plan)
    except KeyboardInterrupt:
        raise _stopped(folder) from None


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error) from error


class _Reports:
    """What the halves tell: shown, recorded, and kept for the end. A context, while which the bars are shown."""

    def __init__(self, folder: Path, plan: Plan, console: Console) -> None:
        self._folder, self._plan = folder, plan
        columns = (TextColumn("Half {task.fields[half]}"), BarColumn(), TextColumn("{task.fields[step]} steps"))
        times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[state]}"))
        self._bars = Progress(*columns, *times, console=console)
        self._tasks = {half: self._bars.add_task("", total=1.0, half=half, step=0, state="starting") for half in HALVES}
        self.waiting, self.failed, self.stopped = set(HALVES), "", False

    def __enter__(self) -> "_Reports":
        self._log = (self._folder / "progress.jsonl").open("a")
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._log.close()

    def take(self, message: Message) -> None:
        if message.record is not None:
            done = self._plan.work(int(message.record["step"]))
            self._log.write(json.dumps({"half": message.half, "done": round(done, 6)} | message.record) + "\n")
            self._log.flush()
            _show(self._folder, self._bars, self._tasks[message.half], self._plan, message.record)
            return
        if message.kind == "remark":
            _say(self._folder, self._bars.console, message.text)
            return
        self.waiting.discard(message.half)
        self.stopped |= message.kind == "stopped"
        if message.kind == "failed" and not self.failed:
            self.failed = message.text

    def require_finished(self) -> None:
        if self.failed:
            raise InputError(self.failed)
        if self.stopped:
            raise _stopped(self._folder)


def _stopped(folder: Path) -> Interrupted:
    return Interrupted(f"Stopped; go on with: cryogan reconstruct --resume {folder}")


def _train(folder: Path, plan: Plan, console: Console) -> None:
    """Both halves, each in a process of its own; this one shows and records their progress."""
    stop = folder / STOP_FILE
    stop.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    messages: multiprocessing.queues.Queue[Message] = context.Queue()
    workers = {half: context.Process(target=train_half, args=(folder, half, messages), daemon=True) for half in HALVES}
    # Ctrl-C waits until a half has its handler; before, it would end the process without a checkpoint.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    for worker in workers.values():
        worker.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    with _ended(workers), _Reports(folder, plan, console) as reports:
        while reports.waiting and not reports.failed:
            try:
                if not reports.stopped and stop.exists():
                    raise KeyboardInterrupt
                reports.take(messages.get(timeout=1.0))
            except KeyboardInterrupt:
                # They report when their checkpoint is written. A terminal signals them too, a batch system may not.
                reports.stopped = True
                for worker in workers.values():
                    if worker.is_alive():
                        os.kill(worker.pid or 0, signal.SIGINT)
            except queue.Empty:
                dead = [half for half in reports.waiting if not workers[half].is_alive() and messages.empty()]
                if reports.stopped:  # the signal may have cut off what they said
                    reports.waiting.difference_update(dead)
                else:
                    reports.failed = " ".join(_obituary(half, workers[half].exitcode, folder) for half in dead)
        for half in reports.waiting:
            workers[half].terminate()
    reports.require_finished()


def _lead(folder: Path, plan: Plan, console: Console, job: Job) -> None:
    """Train rank 0's part of a distributed run; show and record the progress of both halves between its steps."""
    stop_file, told = folder / STOP_FILE, _told_to_stop(job)
    stop_file.unlink(missing_ok=True)
    if told():
        raise _stopped(folder)
    job.set_ready()

    def stop() -> bool:
        return told() or stop_file.exists()

    with _Reports(folder, plan, console) as reports:

        def take(*messages: Message) -> None:
            for message in (*messages, *(Message(**sent) for sent in job.received())):
                reports.take(message)

        try:
            _train_part(folder, plan, job, take, stop, take)
        finally:
            with suppress(InputError):  # what half 2 has told while half 1 failed
                take()
    reports.require_finished()
    for number in (signal.SIGINT, *STOPPING):  # the comparison may be cut short
        signal.signal(number, signal.default_int_handler)
    if told():  # when the halves were at their last step
        raise _stopped(folder)


def _train_part(
    folder: Path,
    plan: Plan,
    job: Job,
    tell: Callable[[Message], None],
    stop: Callable[[], bool],
    idle: Callable[[], None] = lambda: None,
) -> None:
    """This process's part of a distributed run, until all have done theirs; meanwhile it is `idle`."""
    if plan.device.type == "cuda":
        plan = plan.on(job.local_rank % torch.cuda.device_count())
    if plan.settings.threads is not None:  # else as the launcher says, by OMP_NUM_THREADS or the cores of a task
        torch.set_num_threads(plan.settings.threads)
    ranks = job.ranks(plan.device)
    finished = train(plan, folder, job.half, tell, stop, ranks)
    if not finished:
        job.stop()
    if ranks.first:
        tell(Message(job.half, "finished" if finished else "stopped"))

    def meanwhile() -> None:
        if stop():
            job.stop()
        idle()

    job.wait_for_all(meanwhile)


def _told_to_stop(job: Job) -> Callable[[], bool]:
    """Whether this process, or any, was told so; or its launcher was killed, which then waits no more."""
    signalled, launcher = stopped_by_signals(), os.getppid()
    return lambda: signalled.is_set() or os.getppid() != launcher or job.stopped


def _obituary(half: int, code: int | None, folder: Path) -> str:
    if code == -signal.SIGKILL:
        return (
            f"The process of half {half} was killed, as the system does when memory runs out; make room, then: "
            f"cryogan reconstruct --resume {folder}"
        )
    return f"The process of half {half} ended without a word (exit code {code})."


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


def _show(folder: Path, bars: Progress, task: TaskID, plan: Plan, record: dict[str, float]) -> None:
    """Move a half's bar; log each tenth of the work, and print it where there is no terminal for a bar."""
    state = f"gap {record['critic_gap']:.2f}  change {record['map_change']:.1%}"
    if plan.settings.learn_scales:
        state += f"  signal {record['signal_scale']:.2f}  noise {record['noise_scale']:.2f}"
    step, minutes = int(record["step"]), record["minutes"]
    before, done = bars.tasks[task].completed, plan.work(step)
    bars.update(task, completed=done, step=f"{step}/{plan.total_steps}", state=state)
    if int(10 * done) > int(10 * before):
        text = (
            f"half {bars.tasks[task].fields['half']}: step {step} of {plan.total_steps}, "
            f"{minutes:.1f} min, about {plan.minutes_left(step, minutes):.1f} min left; {state}"
        )
        _log(folder, text)
        if not bars.console.is_terminal:
            bars.console.print(text, highlight=False, soft_wrap=True)
