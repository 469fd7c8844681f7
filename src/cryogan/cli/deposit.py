"""The command that prepares a deposition: deposit."""

from pathlib import Path

from cryogan.cli.app import Answer, app, examples


@app.command(
    name="deposit",
    help_epilogue=examples("cryogan deposit run", "cryogan deposit run --maps run/refined --out deposition"),
)
def deposit_command(run: Path, *, out: Path | None = None, maps: Path | None = None) -> Answer:
    """Write the files that EMDB asks for: maps, FSC, and metadata as mmCIF.

    Args:
        run: Folder of a finished `cryogan reconstruct`.
        out: Folder for the files; new or empty. Default: deposit in the run's folder.
        maps: Folder in the run's with other maps of it, such as refined or class1.
    """
    from cryogan.run.deposit import deposit

    made = deposit(run, out, maps)
    values = {
        "folder": made.folder.path,
        "metadata": made.folder.deposition_metadata,
        "resolution_A": made.resolution,
        "particle_count": made.particles,
        "remarks": made.remarks,
    }
    text = [f"{made.folder.path}: maps, FSC and metadata of {made.particles} particles, {made.resolution:.2f} A."]
    return Answer(values, [*text, *made.remarks])
