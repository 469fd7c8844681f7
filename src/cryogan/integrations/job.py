"""A reconstruction as a job of another program: begun, or gone on with, in the folder that this program has made."""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from cryogan.config import Settings, as_flag
from cryogan.errors import InputError
from cryogan.extraction import extract_noise
from cryogan.integrations.folder import JobFolder
from cryogan.particles import read_volume, write_volume
from cryogan.refinement.finish import finish
from cryogan.refinement.refine import refine
from cryogan.run.folder import MapFolder, RunFolder
from cryogan.run.plan import Plan
from cryogan.run.postprocess import Result
from cryogan.run.reconstruct import reconstruct, resume
from cryogan.run.verdict import Verdict
from cryogan.validation import resample

# Settings that may be others when a job goes on: the maps that were trained so far do not depend on them.
_CHANGEABLE = frozenset({"max_minutes", "checkpoint_minutes", "threads", "device", "refine", "verdict"})


@dataclass(frozen=True)
class Request:
    """What a job is to reconstruct.

    Attributes:
        particles: RELION STAR or cryoSPARC .cs, with CTF.
        settings: of the run.
        noise: STAR or .cs of background patches.
        micrographs: RELION micrograph STAR, from which background patches are cut if there are none.
        data_dir: where else to look for images: the folder of the other program's project.
    """

    particles: Path
    settings: Settings
    noise: Path | None = None
    micrographs: Path | None = None
    data_dir: Path | None = None


@dataclass(frozen=True)
class Done:
    """What a job has made.

    Attributes:
        folder: of the job; its maps are in the particles' box and pixel size.
        source: the folder of the particles, and of the maps at the working box: of the run, or of its refinement.
        result: of the run.
        verdict: on the run; None: it was not judged.
        plan: of the run.
    """

    folder: JobFolder
    source: MapFolder
    result: Result
    verdict: Verdict | None
    plan: Plan


def run_job(folder: JobFolder, request: Request, console: Console) -> Done:
    """Reconstruct, judge and refine, and write the maps in the particles' box and pixel size.

    A job that was stopped, or whose machine was, goes on where its last checkpoints are.

    Args:
        folder: exists, and may hold files of the other program.
        request: what to reconstruct.
        console: for progress and findings.

    Raises:
        InputError: input that cannot be used; or the folder holds a job on other particles, or with other settings.
        Interrupted: the job was stopped.
    """
    noise = _noise(folder, request, console)
    if folder.run.is_run:
        _allow_to_go_on(folder.run, request, noise)
        result = resume(folder.run.path, console=console)
    else:
        result = reconstruct(
            request.particles,
            folder.run.path,
            request.settings,
            noise=noise,
            data_dir=request.data_dir,
            console=console,
        )
    result, verdict = finish(result, request.settings, console)
    plan, source = Plan.read(folder.run.path), folder.source(refined=request.settings.refine)
    if request.settings.refine:
        shutil.rmtree(source.path, ignore_errors=True)  # of an earlier call, which was stopped or had other maps
        refine(folder.run.path, console=console)
    write_in_particles_box(source, folder, plan)
    return Done(folder, source, result, verdict, plan)


def write_in_particles_box(source: MapFolder, target: MapFolder, plan: Plan) -> None:
    """Write the map, half maps and mask of a folder in the box and pixel size of the particles.

    Args:
        source: maps at the working box.
        target: takes the maps, under their names; it is made if it is absent.
        plan: of the run.
    """
    files = plan.image_files
    target.path.mkdir(exist_ok=True)
    names = (source.map, *source.half_maps, source.mask)
    for path, to in zip(names, (target.map, *target.half_maps, target.mask), strict=True):
        volume, pixel_size = read_volume(path)
        resampled = resample(volume, pixel_size, files.box, files.pixel_size)
        if path == source.mask:  # RELION refuses a mask beyond 0 and 1, which band-limited interpolation exceeds
            resampled = resampled.clip(0, 1)
        write_volume(to, resampled, files.pixel_size)


@contextmanager
def interrupted_when(asked: Callable[[], bool], seconds: float) -> Iterator[None]:
    """Interrupt the block, as Ctrl-C would, when the other program asks for it.

    Args:
        asked: whether it does; called in another thread.
        seconds: from one call to the next.
    """
    over, main = threading.Event(), threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        while not over.wait(seconds):
            if asked():
                signal.pthread_kill(main, signal.SIGINT)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _noise(folder: JobFolder, request: Request, console: Console) -> Path | None:
    """Background patches: those that are given, or cut from the micrographs, once for all calls of the job."""
    if request.noise is not None or request.micrographs is None:
        return request.noise
    made = folder.noise / "noise.star"
    if not made.exists():
        shutil.rmtree(folder.noise, ignore_errors=True)  # of a call that was stopped
        extract_noise(
            request.micrographs,
            request.particles,
            folder.noise,
            particle_diameter=request.settings.particle_diameter,
            data_dir=request.data_dir,
            console=console,
        )
    return made


def _allow_to_go_on(run: RunFolder, request: Request, noise: Path | None) -> None:
    """Take over the settings that may change, and refuse a run of other particles, patches or settings."""
    plan = Plan.read(run.path)
    now = {"particles": request.particles.resolve(), "noise": noise.resolve() if noise else None}
    before: dict[str, object] = {"particles": plan.particles, "noise": plan.noise}
    now |= {name: value for name, value in request.settings.model_dump().items() if name not in _CHANGEABLE}
    before |= plan.settings.model_dump()
    for name, value in now.items():
        if value != before[name]:
            raise InputError(
                f"The run in {run.path} was begun with {as_flag(name)} {before[name]}, and now it is {value}. Start a "
                "new job, or give what it was begun with."
            )
    replace(plan, settings=request.settings, threads=request.settings.threads or plan.threads).write(run.path)
