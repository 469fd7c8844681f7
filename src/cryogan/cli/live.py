"""The command that follows a data collection: live."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryogan.cli.app import Answer, DataDir, Say, app, examples
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
    pace: Annotated[Pace | None, Parameter(name="*", group="Pace")] = None,
    finish: Annotated[bool, Parameter(negative="")] = False,
    on_alert: str | None = None,
    page: bool = True,
    host: str = "127.0.0.1",
    port: int = 8642,
    prefix: Annotated[str, Parameter(group=RARE)] = "",
    data_dir: DataDir = None,
    preset: Preset = None,
    config: Config = None,
    settings: Flags = None,
    console: Say = None,
) -> Answer:
    """Follow a data collection: a map again and again, and one page that says what it is worth.

    Args:
        particles: STAR or .cs that grows, or a folder that has or will have such files.
        out: Folder for the results; new, or that of the same collection, which is then gone on with.
        finish: Take up what is there, make the final run, and end; another process that follows in --out does it.
        on_alert: Command that is run for each alert, with the sentence as its last argument.
        page: Serve the page; its address is printed.
        host: Address to listen on.
        port: Port to listen on; 0: any that is free.
        prefix: Path under which a proxy shows the page.
    """
    from cryogan.live.folder import LiveFolder, read_json
    from cryogan.live.start import follow
    from cryogan.watch import in_background

    chosen = chosen_settings(preset, config, settings)
    folder = LiveFolder(out)
    follow(
        particles,
        out,
        chosen,
        pace or Pace(),
        data_dir=data_dir,
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
