"""A run from beginning to end: input, two half maps, their comparison."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cryogan.config import Settings
from cryogan.errors import InputError, Interrupted
from cryogan.files import unwritable
from cryogan.parallel.job import Job
from cryogan.particles import read_map, write_map, write_particles
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.inputs import Inputs, read_inputs, require_images
from cryogan.run.log import RunLog
from cryogan.run.monitor import interrupted
from cryogan.run.outcome import Outcome
from cryogan.run.plan import Plan
from cryogan.run.postprocess import Result, postprocess
from cryogan.run.processes import lead, train_both
from cryogan.run.report import write_readme


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
    """Reconstruct two independent half maps of the particles, from zero, and compare them.

    Args:
        particles: RELION STAR or cryoSPARC .cs, with CTF.
        out: folder for the results; absent, empty, or left by a start that was interrupted.
        settings: see `cryogan.config`.
        noise: STAR or .cs of background patches with micrograph names.
        data_dir: where else to look for image stacks.
        cache: folder where particles and patches are kept at the working box, cropped once; several runs may share it.
        console: for progress and findings; default: standard error.
        job: the processes of a distributed run; this is rank 0, the others call `cryogan.run.processes.follow`.

    Raises:
        InputError: input that cannot be used; nothing is written then.
        Interrupted: Ctrl-C; go on with `resume`.
    """
    folder, console = RunFolder(out), console or Console(stderr=True)
    folder.require_new()
    columns = (TextColumn("Cropping"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=cache is None, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        inputs = read_inputs(particles, noise, data_dir, settings, cache, lambda done: bar.update(task, completed=done))
    log = RunLog(folder, console)
    if job is not None:
        require_images(inputs.plan, job.size)
    plan = prepare(folder, inputs)
    log.report(inputs.findings)
    del inputs  # the halves read their own images
    return _run(folder, plan, log, job)


def resume(folder: Path, *, console: Console | None = None, job: Job | None = None) -> Result:
    """Go on with an interrupted run from its last checkpoints.

    Args:
        folder: folder of the run.
        console: for progress and findings; default: standard error.
        job: the processes of a distributed run; they may be more or fewer than before.

    Raises:
        InputError: the folder is not that of a run, or the run's device is missing.
        Interrupted: Ctrl-C again.
    """
    plan = Plan.read(folder)
    plan.require_device(folder)
    if job is not None:
        require_images(plan, job.size)
    return _run(RunFolder(folder), plan, RunLog(RunFolder(folder), console or Console(stderr=True)), job)


def make_again(folder: Path, half: int, console: Console | None = None) -> Result:
    """Make a half of a finished run again, from zero and with other random numbers, and compare the halves anew.

    Args:
        folder: folder of the run.
        half: 1 or 2; its maps are lost.
        console: for progress and findings; default: standard error.

    Raises:
        InputError: the folder is not that of a finished run.
        Interrupted: Ctrl-C; go on with `resume`.
    """
    run, plan = RunFolder(folder), Plan.read(folder).with_another_try(half)
    run.require_finished()
    plan.write(folder)
    run.forget(half)
    return _run(run, plan, RunLog(run, console or Console(stderr=True)), None)


def figures(folder: Path) -> Result:
    """Compare the half maps of a finished run again, and draw its figures anew.

    Args:
        folder: folder of the run.

    Raises:
        InputError: the folder is not that of a finished run.
    """
    run, plan = RunFolder(folder), Plan.read(folder)
    if not run.is_trained:
        raise InputError(f"{folder} is not finished. Go on with: cryogan reconstruct --resume {folder}")
    with run.working():
        result = postprocess(run, plan)
        if not run.is_finished:  # the comparison had been cut short
            _record_end(run)
    return result


def prepare(folder: RunFolder, inputs: Inputs) -> Plan:
    """Make the folder of a run, with all that its halves read.

    Args:
        folder: absent, empty, or left by a start that was interrupted.
        inputs: inputs of the run.

    Returns:
        The plan as it stands in the folder.
    """
    plan, table = inputs.plan, inputs.images.table
    with folder.preparing():
        if plan.mask is not None:
            write_map(folder.given_mask, *read_map(plan.mask))
            plan = replace(plan, mask=folder.given_mask)
        write_particles(folder.particles, table, random_subset=inputs.halves.subset)
        write_readme(folder, plan)
        # Last: a folder with this file can be resumed.
        plan.write(folder.path, inputs.checksums())
    return plan


def _run(folder: RunFolder, plan: Plan, log: RunLog, job: Job | None) -> Result:
    """Train what is left to train, compare the halves, and say what came out."""
    log.say(plan.machine if job is None else _machines(plan, job))
    with folder.working(), _explaining_full_disk(folder), _recording_outcome(folder, log, job):
        if job is None:
            train_both(folder, plan, log)
        else:
            lead(folder, plan, log, job)
        log.note("Both halves are trained; they are aligned and compared.")
        try:
            result = postprocess(folder, plan)
        except KeyboardInterrupt:
            raise interrupted(folder) from None
    for sentence in result.sentences:
        log.say(sentence)
    return replace(result, findings=(*log.findings, *result.findings))


def _machines(plan: Plan, job: Job) -> str:
    processes = "1 process" if job.size == 2 else f"{job.size // 2} processes"
    return f"Device: {plan.device.type}, {processes} for each half."


@contextmanager
def _explaining_full_disk(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(folder.path, error) from error


@contextmanager
def _recording_outcome(folder: RunFolder, log: RunLog, job: Job | None) -> Iterator[None]:
    """Record how the run ended, and why in the log; whoever catches the exception tells the user."""
    try:
        yield
    except (InputError, Interrupted) as error:
        with suppress(OSError):  # the disk may be full
            folder.record_outcome(Outcome.STOPPED if isinstance(error, Interrupted) else Outcome.FAILED)
            log.note(str(error) if job is None else job.failure or str(error))
        raise
    _record_end(folder)


def _record_end(folder: RunFolder) -> None:
    """Record that the half maps are trained, compared and written."""
    late = any(folder.outcome(half) is Outcome.OUT_OF_TIME for half in HALVES)
    folder.record_outcome(Outcome.OUT_OF_TIME if late else Outcome.FINISHED)
