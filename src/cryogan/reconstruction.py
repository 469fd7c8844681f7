"""Two half sets, two volumes, alignment, FSC, files: the whole of `cryogan reconstruct`."""

import csv
import json
import multiprocessing
import multiprocessing.queues
import os
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cryogan.adversarial.training import Record
from cryogan.config import Settings
from cryogan.errors import InputError, Interrupted
from cryogan.folders import locked, require_new, unwritable
from cryogan.halfmap import Message, rows_of_half, train_half
from cryogan.particles import read_volume, write_particles, write_star, write_volume
from cryogan.particles.atomic import replacing
from cryogan.pictures import agreement_over_time, draw_agreement, draw_history, records, snapshot_path
from cryogan.plan import Plan, make_plan
from cryogan.summary import Convergence, judge_convergence, write_readme, write_report
from cryogan.validation import Alignment, FscCurves, align, fsc_curves, resample, resolution_at, soft_mask

HALVES = (1, 2)
HALF_MAPS = ("half1_map_unfil.mrc", "half2_map_unfil.mrc")
LOCK_FILE = ".lock"  # held while a process works in the run's folder
LOG_FILE = "log.txt"
STOP_FILE = "stop"  # whoever puts it into the run's folder stops the run, from any machine


@dataclass(frozen=True)
class Result:
    """What a finished run is worth."""

    folder: Path
    resolution: float  # A, corrected half-map FSC 0.143
    resolution_unmasked: float
    alignment: Alignment
    curves: FscCurves
    convergence: Convergence


def reconstruct(
    particles: Path,
    out: Path,
    settings: Settings,
    *,
    noise: Path | None = None,
    data_dir: Path | None = None,
    cache: Path | None = None,
    console: Console | None = None,
) -> Result:
    """Two independent half maps of the particles, from zero, and their FSC, in the folder `out`.

    Args:
        particles: RELION STAR or cryoSPARC .cs, with CTF.
        out: folder that does not exist or is empty.
        settings: see `cryogan.config`.
        noise: STAR or .cs of background patches with micrograph names.
        data_dir: where else to look for image stacks.
        cache: folder where the particles are kept at the working box, cropped once; several runs may share it.
        console: what the run says; default: standard error.

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
    subset = np.full(len(images), 2)
    subset[rows_of_half(images.table, 1, settings)] = 1
    (out / "snapshots").mkdir(parents=True, exist_ok=True)
    (out / "figures").mkdir(exist_ok=True)
    write_particles(out / "particles.star", images.table, random_subset=subset)
    write_readme(out, plan)
    plan.write(out)  # last: a folder with this file can be resumed
    for remark in remarks:
        _say(out, console, remark)
    return _run(out, plan, console)


def resume(folder: Path, *, console: Console | None = None) -> Result:
    """Go on with an interrupted run from its last checkpoints.

    Raises:
        InputError: the folder is not that of a run, or the run's device is not here.
        Interrupted: Ctrl-C again.
    """
    plan = Plan.read(folder)
    plan.require_device(folder)
    return _run(folder, plan, console or Console(stderr=True))


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


def _run(folder: Path, plan: Plan, console: Console) -> Result:
    _say(folder, console, plan.machine)
    with locked(folder / LOCK_FILE, wait=False), _writing_to(folder):
        try:
            _train(folder, plan, console)
        except (InputError, Interrupted) as ended:  # said by whoever catches it
            with suppress(OSError):  # the disk may be full
                _log(folder, str(ended))
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
    return result


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error) from error


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
    waiting, failed, stopped = set(HALVES), "", False
    columns = (TextColumn("Half {task.fields[half]}"), BarColumn(), TextColumn("{task.fields[step]} steps"))
    times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[state]}"))
    bars = Progress(*columns, *times, console=console)
    with _ended(workers), bars, (folder / "progress.jsonl").open("a") as log:
        tasks = {half: bars.add_task("", total=1.0, half=half, step=0, state="starting") for half in HALVES}
        while waiting:
            try:
                if not stopped and stop.exists():
                    raise KeyboardInterrupt
                message = messages.get(timeout=1.0)
            except KeyboardInterrupt:
                # They report when their checkpoint is written. A terminal signals them too, a batch system may not.
                stopped = True
                for worker in workers.values():
                    if worker.is_alive():
                        os.kill(worker.pid or 0, signal.SIGINT)
                continue
            except queue.Empty:
                dead = [half for half in waiting if not workers[half].is_alive() and messages.empty()]
                if dead and not failed:
                    failed = " ".join(_obituary(half, workers[half].exitcode, folder) for half in dead)
                    for half in waiting:
                        workers[half].terminate()
                waiting -= set(dead)
                continue
            if message.record is not None:
                log.write(json.dumps({"half": message.half} | message.record) + "\n")
                log.flush()
                _show(folder, bars, tasks[message.half], plan, message.record)
                continue
            if message.kind == "remark":
                _say(folder, bars.console, message.text)
                continue
            waiting.discard(message.half)
            stopped |= message.kind == "stopped"
            if message.kind == "failed" and not failed:
                failed = message.text
                for half in waiting:
                    workers[half].terminate()
                waiting.clear()
    if failed:
        raise InputError(failed)
    if stopped:
        raise Interrupted(f"Stopped; go on with: cryogan reconstruct --resume {folder}")


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


def _show(folder: Path, bars: Progress, task: TaskID, plan: Plan, record: Record) -> None:
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
    write_report(folder, plan, alignment, curves, mask, (corrected, unmasked), convergence)
    return Result(folder, corrected, unmasked, alignment, curves, convergence)


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
