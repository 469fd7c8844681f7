"""Commands that use the poses of a finished run: poses, refine, reslog."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryogan.cli.app import Answer, Say, app, examples

if TYPE_CHECKING:
    from cryogan.refinement.refine import Refined
    from cryogan.refinement.selection import Selection


@app.command(name="poses", help_epilogue=examples("cryogan poses run"))
def poses_command(run: Path, *, out: Path | None = None, console: Say = None) -> Answer:
    """Find the pose of each particle of a run, and which particles show its map.

    Args:
        run: Folder of a finished `cryogan reconstruct`.
        out: Folder for the particles, the two lists, and a page of pictures. Default: poses in the run's folder.
    """
    from cryogan.refinement.refine import find_poses

    return Answer(_of_selection(find_poses(run, out, console=console)))


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
    """Measure how resolution grows with particles: what twice as many would bring.

    Args:
        run: Folder of a finished `cryogan reconstruct`; the result is written to reslog in it.
    """
    from cryogan.refinement.reslog import measure_reslog

    reslog = measure_reslog(run, console=console)
    return Answer({"folder": run, **reslog.values}, reslog.table())


def _of_selection(selection: "Selection") -> dict[str, Any]:
    """What was kept and rejected, for a program to read."""
    from cryogan.run.folder import MapFolder

    folder = MapFolder(selection.folder)
    return {
        "folder": folder.path,
        "report": folder.report,
        "particles": folder.particles,
        "kept_particles": folder.kept_particles,
        "rejected_particles": folder.rejected_particles if selection.rejected else None,
        "kept": selection.kept,
        "rejected": selection.rejected,
        "weight": selection.weight,
    }


def of_refinement(result: "Refined") -> dict[str, Any]:
    """A refinement for a program to read."""
    from cryogan.run.folder import MapFolder

    folder = MapFolder(result.folder)
    return {
        **_of_selection(result.selection),
        "map": folder.map,
        "resolution_A": result.resolution,
        "resolution_unmasked_A": result.resolution_unmasked,
        **result.detail.values,
    }
