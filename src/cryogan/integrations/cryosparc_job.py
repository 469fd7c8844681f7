"""A reconstruction as an External job of cryoSPARC 5: particles from another job in, map, masks and particles out.

The job's folder, inside the project's, has to be on this machine; everything else goes through cryosparc-tools.
"""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from rich.console import Console

from cryogan.errors import InputError, Interrupted
from cryogan.integrations.folder import JobFolder
from cryogan.integrations.job import Done, Request, interrupted_when, run_job
from cryogan.particles import read_volume
from cryogan.refinement.refine import find_poses
from cryogan.run.folder import MapFolder

STATUS_SECONDS = 10.0  # from one look at the job's status to the next
INPUT = "particles"
_PLOTS = {
    "volume_over_time": "The map of half 1 during the run",
    "fsc": "FSC of the half maps",
    "gallery": "Simulated and real images",
    "power_spectra": "Power spectra of simulated and real images",
}
_MAPS = ("map", "map_half_A", "map_half_B")


@dataclass(frozen=True)
class Source:
    """Where the particles are, and where the job is to be.

    Attributes:
        project: such as P1.
        workspace: such as W1.
        job: that has the particles, such as J10.
        output: its output of particles; None: it has one.
    """

    project: str
    workspace: str
    job: str
    output: str | None = None


def connect(url: str | None) -> Any:
    """Log in to a cryoSPARC instance, as cryosparc-tools does by its environment variables and its login.

    Args:
        url: of the instance; None: as the environment says.

    Raises:
        InputError: it cannot be reached, or does not let us in.
    """
    try:
        from cryosparc.tools import CryoSPARC
    except ImportError as error:
        raise InputError("cryosparc-tools is not installed. Install it: pip install 'cryogan[cryosparc]'.") from error
    login = {name: os.environ.get(f"CRYOSPARC_{name.upper()}") for name in ("email", "password")}
    try:
        return CryoSPARC(url, **login) if url else CryoSPARC(**login)
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0].rstrip(". ")
        raise InputError(
            f"cryoSPARC: {first}. Give --url, and log in once with: python -m cryosparc.tools login"
        ) from None


def run_cryosparc_job(cs: Any, source: Source, request: Request, console: Console) -> tuple[str, Done]:
    """Make an External job, reconstruct the particles of another job in it, and hand over what came out.

    Args:
        cs: `cryosparc.tools.CryoSPARC`.
        source: the particles.
        request: what to reconstruct; its particles and folder are those of the job.
        console: for progress; the job's log has it, too.

    Returns:
        The job's uid, and what it has made.

    Raises:
        InputError: as `run_job`; or the instance refuses something. The job has then failed.
        Interrupted: the job was killed in cryoSPARC, or here.
    """
    from cryosparc.errors import APIError

    try:
        slots = _Slots.of(cs)
        output = source.output or _only_particles(cs, source)
        job = cs.create_external_job(source.project, source.workspace, title="CryoGAN initial model")
        job.connect(INPUT, source.job, output, slots=["blob", "ctf"], title="Particles")
        folder = JobFolder(_folder(job))
        _add_outputs(job, slots)
        job.start("running")
    except (APIError, ValueError) as error:
        raise _refused(error) from None
    console.print(f"External job {source.project} {job.uid}: {folder.path}", soft_wrap=True)
    with _reported(job), interrupted_when(lambda: _is_killed(job), STATUS_SECONDS):
        request = replace(request, particles=_write_particles(job, folder), data_dir=folder.path.parent)
        log = Console(file=_JobLog(job, console), width=200, force_terminal=False)
        done = run_job(folder, request, log)
        particles = done.source if request.settings.refine else _with_poses(folder, log)
        _save_outputs(job, slots, folder, particles)
        _show(job, done)
    return str(job.uid), done


def _refused(error: ValueError) -> InputError:
    """The sentence of what the instance, or its client, refuses."""
    data = getattr(error, "data", None)
    detail = data.get("detail") if isinstance(data, dict) else None
    return InputError(f"cryoSPARC refuses: {detail or str(error).splitlines()[0]}")


def _only_particles(cs: Any, source: Source) -> str:
    """The one output of particles of a job."""
    outputs = cs.find_job(source.project, source.job).outputs
    names = [name for name, output in outputs.items() if output.type == "particle"]
    if len(names) != 1:
        has = f"has several outputs of particles ({', '.join(names)})" if names else "has no output of particles"
        raise InputError(f"{source.project} {source.job} {has}. Name one of a job that has with --output.")
    return str(names[0])


def _folder(job: Any) -> Path:
    folder = Path(str(job.dir))
    if not folder.is_dir():
        raise InputError(
            f"The folder of {job.project_uid} {job.uid}, {folder}, is not on this machine. Start the command where "
            "the project's files are."
        )
    return folder


@dataclass(frozen=True)
class _Slots:
    """Slots of maps and masks with their types, as the instance's own jobs have them."""

    volume: tuple[dict[str, str], ...]
    mask: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, cs: Any) -> "_Slots":
        """Look them up in the instance's register of jobs."""
        found: dict[str, dict[str, str]] = {"volume": {}, "mask": {}}
        for spec in cs.job_register.specs:
            for output in spec.outputs.root.values():
                for slot in output.slots:
                    name, dtype = (slot, slot) if isinstance(slot, str) else (slot.name, slot.dtype)
                    found.get(output.type, {}).setdefault(name, dtype)
        if "map" not in found["volume"]:
            raise InputError("This cryoSPARC has no job with an output of a map. Use version 5.")
        volume = tuple({"name": name, "dtype": found["volume"][name]} for name in _MAPS if name in found["volume"])
        mask = tuple({"name": name, "dtype": found["mask"][name]} for name in ("mask",) if name in found["mask"])
        return cls(volume, mask)


def _add_outputs(job: Any, slots: _Slots) -> None:
    job.add_output("volume", "volume", slots=list(slots.volume), title="Map and half maps")
    if slots.mask:
        job.add_output("mask", "mask", slots=list(slots.mask), title="Mask")
    for name, title in (("particles", "Particles that show the map"), ("rejected", "Particles that do not")):
        job.add_output("particle", f"{name}_out", slots=["alignments3D"], passthrough=INPUT, title=title)


def _write_particles(job: Any, folder: JobFolder) -> Path:
    """The particles with all their columns, as a file that the run reads."""
    path = folder.path / "input_particles.cs"
    job.load_input(INPUT, slots="all").save(str(path))
    return path


def _with_poses(folder: JobFolder, console: Console) -> MapFolder:
    """Find the poses of a run that was not refined."""
    shutil.rmtree(folder.run.poses.path, ignore_errors=True)
    find_poses(folder.run.path, console=console)
    return folder.run.poses


def _save_outputs(job: Any, slots: _Slots, folder: JobFolder, particles: MapFolder) -> None:
    """Save maps and mask by their files in the project, and the particles with their poses by their uids."""
    files = dict(zip(_MAPS, (folder.map, *folder.half_maps), strict=True)) | {"mask": folder.mask}
    for output, of_output in (("volume", slots.volume), ("mask", slots.mask)):
        if of_output:
            dataset = job.alloc_output(output, 1)
            for slot in of_output:
                _fill_map(dataset, slot["name"], files[slot["name"]])
            job.save_output(output, dataset)
    for output, path in (
        ("particles_out", particles.cryosparc_particles),
        ("rejected_out", particles.cryosparc_rejected),
    ):
        records = np.load(path) if path.exists() else None
        dataset = job.alloc_output(output, np.zeros(0, np.uint64) if records is None else records["uid"])
        names = () if records is None else (name for name in dataset if name in (records.dtype.names or ()))
        for name in names:
            dataset[name] = records[name]  # type: ignore[index]
        if "alignments3D/alpha" in dataset:
            dataset["alignments3D/alpha"] = 1.0  # the scale of each image
        job.save_output(output, dataset)


def _fill_map(dataset: Any, slot: str, path: Path) -> None:
    volume, pixel_size = read_volume(path)
    values = {
        "path": str(PurePosixPath(path.parent.name, path.name)),
        "shape": [volume.shape],
        "psize_A": pixel_size,
    }
    for name, value in values.items():
        if f"{slot}/{name}" in dataset:
            dataset[f"{slot}/{name}"] = value


def _show(job: Any, done: Done) -> None:
    """Put the pictures and the report into the job's log, and a picture on its tile."""
    run = done.folder.run

    def picture(name: str) -> io.BytesIO:
        return io.BytesIO(run.figure(name).read_bytes())  # the client would leave a file that it opens open

    for name, text in _PLOTS.items():
        if run.figure(name).exists():
            job.log_plot(picture(name), text, formats=["png"])
    report = {"raw_data": run.report.read_bytes(), "raw_data_format": "html"}
    job.log_plot(picture("fsc"), "Report", formats=["png"], **report)
    job.set_tile_image(picture("volume_over_time"))
    if done.verdict is not None:
        job.log(done.verdict.sentence)


class _JobLog(io.StringIO):
    """A text file whose lines go to the job's log and to the user's console."""

    def __init__(self, job: Any, console: Console) -> None:
        self._job, self._console, self._line = job, console, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.strip():
                self._job.log(line.rstrip())
                self._console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)
        return len(text)


@contextmanager
def _reported(job: Any) -> Iterator[None]:
    """Tell cryoSPARC how the block ended; a job that was killed there stays killed."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        if not _is_killed(job):
            job.stop("The job was stopped where it ran.")
        raise _stopped(job) from None
    except BaseException as error:
        if _is_killed(job):  # which refuses what comes after
            raise _stopped(job) from error
        with suppress(Exception):  # why it failed matters more
            job.stop(str(error) or type(error).__name__)
        raise
    job.stop()


def _is_killed(job: Any) -> bool:
    try:
        return bool(job.cs.api.jobs.find_one(job.project_uid, job.uid).status == "killed")
    except Exception:  # the network may fail for a while
        return False


def _stopped(job: Any) -> Interrupted:
    return Interrupted(f"The job was stopped. Its run is kept in {job.dir}/run.")
