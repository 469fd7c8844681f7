"""The command that runs as a job of cryoSPARC: cryosparc."""

from pathlib import Path

from rich.console import Console

from cryogan.cli.app import Answer, Noise, Say, app, examples
from cryogan.cli.flags import Config, Flags, Preset, chosen_settings


@app.command(
    name="cryosparc",
    help_epilogue=examples("cryogan cryosparc --project P1 --workspace W1 --source J10 --symmetry D2 --invert"),
)
def cryosparc_command(
    *,
    project: str,
    workspace: str,
    source: str,
    output: str | None = None,
    url: str | None = None,
    noise: Noise = None,
    preset: Preset = None,
    config: Config = None,
    settings: Flags = None,
    console: Say = None,
) -> Answer:
    """Reconstruct the particles of a cryoSPARC job in a new External job.

    Args:
        project: Project, such as P1.
        workspace: Workspace of the new job, such as W1.
        source: Job with the particles, such as J10.
        output: Its output of particles. Default: the only one.
        url: Address of cryoSPARC, as in the browser. Default: CRYOSPARC_BASE_URL.
    """
    from cryogan.integrations.cryosparc_job import Source, connect, run_cryosparc_job
    from cryogan.integrations.job import Request

    chosen = chosen_settings(preset, config, settings)
    uid, done = run_cryosparc_job(
        connect(url),
        Source(project, workspace, source, output),
        Request(Path(), chosen, noise=noise),
        console or Console(stderr=True),
    )
    return Answer({"job": uid, "folder": done.folder.path, "map": done.folder.map}, [f"{project} {uid} is completed."])
