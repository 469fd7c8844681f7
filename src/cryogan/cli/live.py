"""The command that follows a data collection: live."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryogan.cli.app import Answer, DataDir, Noise, Say, app, examples
from cryogan.cli.flags import Config, Flags, Preset, chosen_settings
from cryogan.cli.help import RARE
from cryogan.live.schedule import Pace


@app.command(
    name="live",
    help_epilogue=examples(
        "cryogan live Select/job010/particles.star --symmetry D2 --out live",
        "cryogan live Select/job010/particles.star --symmetry D2 --out live --finish",
        more=True,
    ),
)
def live_command(
    particles: Path,
    *,
    out: Path,
    finish: Annotated[bool, Parameter(negative="")] = False,
    target: float | None = None,
    on_alert: str | None = None,
    pace: Annotated[Pace | None, Parameter(name="*", group=RARE)] = None,
    page: Annotated[bool, Parameter(group=RARE)] = True,
    host: Annotated[str, Parameter(group=RARE)] = "127.0.0.1",
    port: int = 8642,
    prefix: Annotated[str, Parameter(group=RARE)] = "",
    noise: Noise = None,
    data_dir: DataDir = None,
    preset: Preset = None,
    config: Config = None,
    settings: Flags = None,
    console: Say = None,
) -> Answer:
    """Follow a data collection: a map again and again, and what it is worth.

    Args:
        particles: STAR or .cs that grows, or a folder that gets such files.
        out: Folder for the results; of the same collection: go on.
        finish: Make the final run and end, or have the process in --out do it.
        target: Resolution that is wanted, A: when will there be enough?
        on_alert: Command that is given each alert as its last argument.
        page: Serve the page; its address is printed.
        host: Address to listen on.
        port: Port of the page; 0: any that is free.
        prefix: Path under which a proxy shows the page.
    """
    from cryogan.live.folder import LiveFolder, read_json
    from cryogan.live.start import follow
    from cryogan.live.tasks import Background
    from cryogan.watch import in_background

    chosen = chosen_settings(preset, config, settings)
    folder = LiveFolder(out)
    follow(
        particles,
        out,
        chosen,
        pace or Pace(),
        background=Background(noise, data_dir),
        target=target,
        on_alert=on_alert,
        finish=finish,
        console=console,
        ready=lambda: in_background(out, host, port, prefix) if page and not finish else None,
    )
    ended = read_json(folder.final_record)
    if not ended and finish:
        return Answer({"folder": out, "finished": False}, [f"The process that follows in {out} makes the final run."])
    if not ended:
        return Answer({"folder": out, "finished": False}, [f"Go on with the same command, or end with --finish: {out}"])
    values = {"folder": out, "finished": True, "run": folder.final.path, **ended}
    return Answer(values, [ended["sentence"], f"The final run: {folder.final.path}"])
