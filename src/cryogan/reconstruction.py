"""Two half sets, two volumes, alignment, FSC, files: the whole of `cryogan reconstruct`."""

import csv
import json
import multiprocessing
import multiprocessing.queues
import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from scipy.optimize import linear_sum_assignment

from cryogan.config import Settings
from cryogan.distributed import Job, lots
from cryogan.errors import InputError, Interrupted
from cryogan.folders import locked, require_new, unwritable
from cryogan.halfmap import Message, rows_of_half, stopped_by_signals, train, train_half
from cryogan.particles import read_particles, read_star, read_volume, write_particles, write_star, write_volume
from cryogan.particles.atomic import replacing
from cryogan.pictures import (
    agreement_over_time,
    class_path,
    classes_path,
    draw_agreement,
    draw_history,
    records,
    snapshot_path,
)
from cryogan.plan import Plan, make_plan
from cryogan.summary import Convergence, judge_convergence, write_readme, write_report
from cryogan.validation import Alignment, FscCurves, align, fsc_curves, resample, resolution_at, soft_mask

HALVES = (1, 2)
HALF_MAPS = ("half1_map_unfil.mrc", "half2_map_unfil.mrc")
LOCK_FILE = ".lock"  # held while a process works in the run's folder
LOG_FILE = "log.txt"
STOP_FILE = "stop"  # whoever puts it into the run's folder stops the run, from any machine


@dataclass(frozen=True)
class ClassMap:
    """One of the classes of a finished run (`Settings.classes`)."""

    folder: Path
    share: float  # its learned weight, the mean of the halves
    particles: int  # of which it is the most probable class
    resolution: float  # A, corrected half-map FSC 0.143

    @property
    def sentence(self) -> str:
        """What a reader gets."""
        return (
            f"{self.share:.0%} of the particles by its weight, {self.particles} most probably; half maps agree to "
            f"{self.resolution:.2f} A (FSC 0.143, mask-corrected)"
        )


@dataclass(frozen=True)
class Result:
    """What a finished run is worth."""

    folder: Path
    resolution: float  # A, corrected half-map FSC 0.143
    resolution_unmasked: float
    alignment: Alignment
    curves: FscCurves
    convergence: Convergence
    classes: tuple[ClassMap, ...] = ()  # largest first; none where there is but one


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
    require_new(out, f"give another --out, or --resume {out} to go on with a run.")
    columns = (TextColumn("Cropping"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=cache is None, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        plan, images, remarks = make_plan(
            particles, noise, data_dir, settings, cache, lambda done: bar.update(task, completed=done)
        )
    _require_images(plan, job)
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
    _require_images(plan, job)
    return _run(folder, plan, console or Console(stderr=True), job)


def follow(folder: Path | None, job: Job) -> None:
    """Train along in a distributed run, in each process but that of rank 0, which prepares the folder.

    Raises:
        InputError: this process cannot go on.
        Interrupted: the run was stopped.
    """
    while not job.ready:
        if job.stopped:
            raise InputError("Rank 0 has ended.")
        time.sleep(0.1)
    assert folder is not None  # or rank 0 had ended
    plan = Plan.read(folder)
    if not _train_part(folder, plan, job, lambda message: job.send(asdict(message)), _told_to_stop(job)):
        raise Interrupted


def figures(folder: Path) -> Result:
    """Compare the half maps of a finished run again, and draw its figures anew.

    Raises:
        InputError: the folder is not that of a finished run.
    """
    plan = Plan.read(folder)
    if not all(snapshot_path(folder, half, plan.total_steps).exists() for half in HALVES):
        raise InputError(f"{folder} is not finished; go on with: cryogan reconstruct --resume {folder}")
    with locked(folder / LOCK_FILE, wait=False):
        return _compare(folder, plan)


def _say(folder: Path, console: Console, text: str) -> None:
    """To the user, and to the run's log."""
    console.print(text, highlight=False, soft_wrap=True)
    _log(folder, text)


def _log(folder: Path, text: str) -> None:
    with (folder / LOG_FILE).open("a") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")


def _require_images(plan: Plan, job: Job | None) -> None:
    s = plan.settings
    batch, name = (s.search_batch, "search-batch") if s.critic == "views" else (s.batch_size, "batch-size")
    if job is not None and lots(batch) < job.size // 2:
        raise InputError(
            f"--{name} {batch} is drawn in {lots(batch)} parts, too few for {job.size // 2} processes of a half map; "
            f"start at most {2 * lots(batch)} processes."
        )


def _run(folder: Path, plan: Plan, console: Console, job: Job | None) -> Result:
    if job is None:
        _say(folder, console, plan.machine)
    else:
        _say(folder, console, f"Device: {plan.device.type}, {job.size // 2} processes for each half.")
    with locked(folder / LOCK_FILE, wait=False), _writing_to(folder):
        try:
            if job is None:
                _train(folder, plan, console)
            else:
                _lead(folder, plan, console, job)
        except (InputError, Interrupted) as ended:  # said by whoever catches it
            with suppress(OSError):  # the disk may be full
                _log(folder, str(ended) if job is None else job.failure or str(ended))
            raise
        _log(folder, "Both halves are trained; they are aligned and compared.")
        result = _compare(folder, plan)
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
            self._log.write(json.dumps({"half": message.half} | message.record) + "\n")
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
            raise Interrupted(f"Stopped; go on with: cryogan reconstruct --resume {self._folder}")


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
                message = messages.get(timeout=1.0)
            except KeyboardInterrupt:
                # They report when their checkpoint is written. A terminal signals them too, a batch system may not.
                reports.stopped = True
                for worker in workers.values():
                    if worker.is_alive():
                        os.kill(worker.pid or 0, signal.SIGINT)
                continue
            except queue.Empty:
                dead = [half for half in reports.waiting if not workers[half].is_alive() and messages.empty()]
                reports.failed = " ".join(_obituary(half, workers[half].exitcode, folder) for half in dead)
                continue
            reports.take(message)
        for half in reports.waiting:
            workers[half].terminate()
    reports.require_finished()


def _lead(folder: Path, plan: Plan, console: Console, job: Job) -> None:
    """Train rank 0's part of a distributed run; show and record the progress of both halves between its steps."""
    stop_file, told = folder / STOP_FILE, _told_to_stop(job)
    stop_file.unlink(missing_ok=True)
    job.set_ready()

    def stop() -> bool:
        return told() or stop_file.exists()

    with _Reports(folder, plan, console) as reports:

        def take(*messages: Message) -> None:
            for message in (*messages, *(Message(**sent) for sent in job.received())):
                reports.take(message)

        try:
            _train_part(folder, plan, job, take, stop)
            while reports.waiting and not job.failure:
                time.sleep(0.2)
                if stop():
                    job.stop()
                take()
        finally:
            with suppress(InputError):  # what half 2 has told while half 1 failed
                take()
    if job.failure:
        raise InputError(job.failure)
    reports.require_finished()


def _train_part(folder: Path, plan: Plan, job: Job, tell: Callable[[Message], None], stop: Callable[[], bool]) -> bool:
    """This process's part of a distributed run; returns whether its half is finished."""
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
    return finished


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


def _compare(folder: Path, plan: Plan) -> Result:
    """Align half 2 to half 1, compare, and write every file that a user takes along."""
    half1, half2 = (_last_map(folder, half, plan) for half in HALVES)
    alignment = align(half2, half1, plan.pixel_size, seed=plan.settings.seed)
    aligned = alignment.apply(half2, plan.pixel_size)
    mask = soft_mask((half1 + aligned) / 2, plan.pixel_size)
    curves = fsc_curves(half1, aligned, plan.pixel_size, mask, seed=plan.settings.seed)
    write_maps(folder, plan.pixel_size, (half1, aligned), mask, curves)
    draw_history(folder, plan)
    grown = agreement_over_time(folder, plan, alignment)
    draw_agreement(folder, plan, curves, grown)
    convergence = judge_convergence(plan, [records(folder, half) for half in HALVES], grown)
    corrected, unmasked = (
        resolution_at(curve, plan.pixel_size, 0.143, plan.box) for curve in (curves.corrected, curves.unmasked)
    )
    classes = _compare_classes(folder, plan)
    said = {each.folder.name: each.sentence for each in classes}
    write_report(folder, plan, alignment, curves, mask, (corrected, unmasked), convergence, said)
    return Result(folder, corrected, unmasked, alignment, curves, convergence, classes)


def _compare_classes(folder: Path, plan: Plan) -> tuple[ClassMap, ...]:
    """Pair the halves' classes and write each pair's maps and particles to class1, class2, ..., the largest first.

    Each half has its classes in an order and frames of its own. Where
    --max-minutes ended a half before it had as many classes as the other there are none.
    """
    if not all(classes_path(folder, half).exists() for half in HALVES):
        return ()
    stars = [read_star(classes_path(folder, half)) for half in HALVES]
    weights = [star["weights"].floats("cryoganClassWeight") for star in stars]
    if len(weights[0]) != len(weights[1]):
        return ()
    numbers = range(1, len(weights[0]) + 1)
    first, second = ([read_volume(class_path(folder, half, number))[0] for number in numbers] for half in HALVES)
    alignments = [[align(other, one, plan.pixel_size, seed=plan.settings.seed) for other in second] for one in first]
    likeness = [[each.correlation for each in row] for row in alignments]
    pairs = np.stack(linear_sum_assignment(likeness, maximize=True), axis=1)
    shares = np.array([(weights[0][i] + weights[1][j]) / 2 for i, j in pairs])
    pairs, shares = pairs[np.argsort(-shares)], np.sort(shares)[::-1]

    table = read_particles(folder / "particles.star", plan.data_dir)
    subset, probability = np.zeros(len(table), dtype=int), np.zeros((len(table), len(pairs)))
    for half, star, order in zip(HALVES, stars, pairs.T, strict=True):
        rows = rows_of_half(table, half, plan.settings)
        subset[rows] = half
        columns = [star["particles"].floats(f"cryoganClassProbability{index + 1}") for index in order]
        probability[rows] = np.stack(columns, axis=1)
    likeliest = probability.argmax(1)
    classes = []
    for k, ((i, j), share) in enumerate(zip(pairs, shares, strict=True)):
        halves = first[i], alignments[i][j].apply(second[j], plan.pixel_size)
        own, mine = folder / f"class{k + 1}", likeliest == k
        own.mkdir(exist_ok=True)
        mask = soft_mask((halves[0] + halves[1]) / 2, plan.pixel_size)
        curves = fsc_curves(*halves, plan.pixel_size, mask, seed=plan.settings.seed)
        write_maps(own, plan.pixel_size, halves, mask, curves)
        said = {
            "rlnClassNumber": np.full(mine.sum(), k + 1),
            "rlnMaxValueProbDistribution": probability[mine, k],
        }
        write_particles(own / "particles.star", table.select(mine), random_subset=subset[mine], columns=said)
        resolution = resolution_at(curves.corrected, plan.pixel_size, 0.143, plan.box)
        classes.append(ClassMap(own, float(share), int(mine.sum()), resolution))
    return tuple(classes)


def _last_map(folder: Path, half: int, plan: Plan) -> np.ndarray:
    """A half's map at the working box; --max-minutes may have ended the run at a coarser one."""
    volume, pixel_size = read_volume(snapshot_path(folder, half, plan.total_steps))
    return resample(volume, pixel_size, plan.box, plan.pixel_size) if len(volume) != plan.box else volume


def write_maps(
    folder: Path, pixel_size: float, halves: tuple[np.ndarray, np.ndarray], mask: np.ndarray, curves: FscCurves
) -> None:
    """The half maps in one frame, their mean, the mask and the FSC, under the names that RELION looks for."""
    files = (*halves, (halves[0] + halves[1]) / 2, mask)
    for name, volume in zip((*HALF_MAPS, "map.mrc", "mask.mrc"), files, strict=True):
        write_volume(folder / name, volume, pixel_size)
    write_fsc(folder, curves)
    # Half-way between solvent and the brightest hundredth of the voxels.
    level = float(np.mean(np.percentile(files[2], (50, 99))))
    (folder / "open.cxc").write_text(
        "# ChimeraX: chimerax open.cxc, or File > Open.\n"
        f"open map.mrc {' '.join(HALF_MAPS)}\n"
        f"volume #1-3 style surface level {level:.6g}\n"
        "color #1 #a0a0a0\ncolor #2 #0072b2\ncolor #3 #d55e00\n"
        "hide #2,3 models\nset bgColor white\nlighting soft\nview\n"
    )


def write_fsc(folder: Path, curves: FscCurves) -> None:
    """`fsc.star`, with RELION's names, and the same as `fsc.csv`."""
    columns = {
        "rlnSpectralIndex": curves.shell,
        "rlnResolution": curves.frequency,
        "rlnAngstromResolution": np.where(curves.shell == 0, 999.0, curves.resolution),
        "rlnFourierShellCorrelationCorrected": curves.corrected,
        "rlnFourierShellCorrelationUnmaskedMaps": curves.unmasked,
        "rlnFourierShellCorrelationMaskedMaps": curves.masked,
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": curves.phase_randomised,
    }
    write_star(folder / "fsc.star", {"fsc": {name: values.tolist() for name, values in columns.items()}})
    names = ("shell", "frequency_1_per_A", "resolution_A", "corrected", "unmasked", "masked", "phase_randomised")
    with replacing(folder / "fsc.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
