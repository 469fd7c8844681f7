"""Commands that use the poses of a finished run: poses, refine, reslog."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryogan.cli.app import Answer, Say, app, examples

if TYPE_CHECKING:
    from cryogan.refinement.refine import Refined


@app.command(name="poses", help_epilogue=examples("cryogan poses run"))
def poses_command(run: Path, *, out: Path | None = None, console: Say = None) -> Answer:
    """Find the pose of each particle of a finished run, with its own half map.

    Args:
        run: Folder of a finished `cryogan reconstruct`.
        out: Folder for particles.star, particles.cs and pictures. Default: poses in the run's folder.
    """
    from cryogan.refinement.refine import find_poses
    from cryogan.run.folder import MapFolder

    folder = MapFolder(find_poses(run, out, console=console))
    return Answer({"folder": folder.path, "particles": folder.particles})


@app.command(name="refine", help_epilogue=examples("cryogan refine run"))
def refine_command(run: Path, *, out: Path | None = None, console: Say = None) -> Answer:
    """Refine the half maps of a finished run with the poses of its particles.

    Args:
        run: Folder of a finished `cryogan reconstruct`.
        out: Folder for maps, FSC and poses. Default: refined in the run's folder.
    """
    from cryogan.refinement.refine import refine

    return Answer(of_refinement(refine(run, out, console=console)))


@app.command(name="reslog", help_epilogue=examples("cryogan reslog run"))
def reslog_command(run: Path, *, console: Say = None) -> Answer:
    """Measure how the resolution grows with the number of particles, and what twice as many would bring.

    Args:
        run: Folder of a finished `cryogan reconstruct`; the result is written to reslog in it.
    """
    from cryogan.refinement.reslog import measure_reslog

    reslog = measure_reslog(run, console=console)
    return Answer({"folder": run, **reslog.values}, reslog.table())


def of_refinement(result: "Refined") -> dict[str, Any]:
    """A refinement for a program to read."""
    from cryogan.run.folder import MapFolder

    folder = MapFolder(result.folder)
    return {
        "folder": folder.path,
        "map": folder.map,
        "particles": folder.particles,
        "resolution_A": result.resolution,
        "resolution_unmasked_A": result.resolution_unmasked,
        **result.detail.values,
    }
