"""A reconstruction as an External job of RELION, 3.1 to 5: how it is stopped, how it ends, what other jobs take."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from cryogan.errors import Interrupted
from cryogan.integrations.folder import End, JobFolder
from cryogan.integrations.job import Request, interrupted_when, run_job, write_in_particles_box
from cryogan.particles import write_star
from cryogan.run.classes import ClassMap
from cryogan.run.folder import MapFolder
from cryogan.run.plan import Plan

ABORT_POLL_SECONDS = 0.5
INTERRUPTED = 130  # exit code of a job that was stopped
_FILES = {"map": ("DensityMap.mrc", 6), "half map": ("DensityMap.mrc.halfmap", 10), "mask": ("Mask3D.mrc", 7)}
_PARTICLES = ("ParticleGroupMetadata.star.relion", 3)


def run_external_job(folder: JobFolder, request: Request, console: Console) -> None:
    """Run the job in the folder that RELION has made for it, and write the list of its output nodes.

    Args:
        folder: as RELION names it, from its project's folder, which is the current one: names of nodes begin with it.
        request: what to reconstruct.
        console: for progress and findings.

    Raises:
        InputError: as `run_job`.
        Interrupted: the job was stopped; what it had done is kept.
    """
    try:
        with interrupted_when(folder.abort_request.exists, ABORT_POLL_SECONDS):
            done = run_job(folder, request, console)
            write_output_nodes(folder, done.source, done.result.classes, done.plan)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted("The job was stopped and has written its checkpoints. Continue it to go on.") from None
    console.print(f"Output nodes: {folder.output_nodes}", soft_wrap=True)
    if done.plan.settings.invert:
        console.print(
            "The particles are not among them: protein is dark in them, and RELION needs it bright. The report has "
            "the commands that invert them.",
            soft_wrap=True,
        )


def write_output_nodes(folder: JobFolder, source: MapFolder, classes: Sequence[ClassMap], plan: Plan) -> None:
    """Write the list of what other jobs can take: maps in the particles' box, mask, particles; the same of each class.

    Args:
        folder: of the job, with its maps.
        source: of the particles: a run, or its refinement, which has kept some and rejected others.
        classes: of the run; empty where there is one map.
        plan: of the run.
    """
    judged = (source.kept_particles, source.rejected_particles)
    particles = [path for path in judged if path.exists()] or [source.particles]
    nodes = _maps(folder)
    for one in classes:
        of_class, target = MapFolder(one.folder), MapFolder(folder.path / one.folder.name)
        write_in_particles_box(of_class, target, plan)
        nodes += _maps(target)
        particles.append(of_class.particles)
    if not plan.settings.invert:
        nodes += [(path, *_PARTICLES) for path in particles]
    columns: dict[str, list[object]] = {
        "rlnPipeLineNodeName": [str(path) for path, _, _ in nodes],
        "rlnPipeLineNodeTypeLabel": [label for _, label, _ in nodes],  # RELION 4 and 5
        "rlnPipeLineNodeType": [number for _, _, number in nodes],  # RELION 3.1
    }
    write_star(folder.output_nodes, {"output_nodes": columns})


def _maps(folder: MapFolder) -> list[tuple[Path, str, int]]:
    return [
        (folder.map, *_FILES["map"]),
        *((half_map, *_FILES["half map"]) for half_map in folder.half_maps),
        (folder.mask, *_FILES["mask"]),
    ]


@contextmanager
def exit_file(folder: JobFolder) -> Iterator[None]:
    """Leave the file by which RELION knows how the block ended: success, aborted (exit code 130), or failure.

    Those of an earlier call are removed first. A job that is killed leaves none, and RELION shows it as running.

    Args:
        folder: of the job.
    """
    for one in End:
        folder.end(one).unlink(missing_ok=True)
    end = End.FAILURE
    try:
        yield
        end = End.SUCCESS
    except SystemExit as error:
        end = End.ABORTED if error.code == INTERRUPTED else End.FAILURE
        raise
    finally:
        folder.abort_request.unlink(missing_ok=True)
        folder.end(end).touch()
