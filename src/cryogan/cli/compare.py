"""The command that compares finished runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryogan.cli.app import Answer, Say, app, examples

if TYPE_CHECKING:
    from cryogan.run.comparison import RunComparison


@app.command(name="compare", help_epilogue=examples("cryogan compare repeats/repeat1 repeats/repeat2 --out comparison"))
def compare_command(*runs: Path, out: Path, console: Say = None) -> Answer:
    """Compare finished runs: whether they give one structure, and which is the best.

    Args:
        runs: Folders of two or more finished `cryogan reconstruct`, of the same particles or the same molecule.
        out: Folder for comparison.json and comparison.png.
    """
    from cryogan.refinement.compare import compare_runs

    comparison = compare_runs(runs, out, console=console)
    return Answer(of_comparison(comparison, out), comparison.table())


def of_comparison(comparison: "RunComparison", folder: Path) -> dict[str, Any]:
    """A comparison for a program to read."""
    from cryogan.run.comparison import figure_path

    return {"folder": folder, "picture": figure_path(folder), **comparison.values}
