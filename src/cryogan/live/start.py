"""The start of `cryogan live`: whose folder it is, with what settings, and how little of the machine it takes."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console

from cryogan.config import Settings, as_flag, validate
from cryogan.errors import InputError
from cryogan.files import locked, replacing, require_new
from cryogan.live.alerts import require_command
from cryogan.live.folder import LiveFolder
from cryogan.live.follow import Follower
from cryogan.live.schedule import Pace
from cryogan.live.tasks import NO_PATCHES, Background

NICENESS = 10


def follow(
    path: Path,
    out: Path,
    settings: Settings,
    pace: Pace,
    *,
    background: Background = NO_PATCHES,
    target: float | None = None,
    on_alert: str | None = None,
    finish: bool = False,
    console: Console | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Follow a data collection until its end, or go on with one that was followed before.

    Args:
        path: STAR or .cs file, or a folder that has or will have such files.
        out: our folder; new, or that of the same collection.
        settings: settings of the maps.
        pace: how it is followed.
        background: background patches, and another folder with image stacks.
        target: resolution that is wanted, A.
        on_alert: command that is given each alert as its last argument.
        finish: take up what is there, and make the final run; another process that follows is asked to.
        console: where alerts are printed; default: standard error.
        ready: called when the folder is ours.

    Raises:
        InputError: the folder is another's, another process follows in it, the settings have changed, or the final run
            that was asked for cannot be made.
    """
    folder = LiveFolder(out)
    require_same(folder, path, settings, background.noise)
    require_command(on_alert)
    if finish:
        folder.finish_request.touch()
        if folder.is_busy:
            return
    with locked(folder.lock, wait=False):
        be_polite(pace.cores)
        ready()
        follower = Follower(
            folder, path, settings, pace, background=background, target=target, on_alert=on_alert, console=console
        )
        follower.run()
    if follower.failure:
        raise InputError(follower.failure)


def be_polite(cores: int) -> None:
    """Lower this process's priority, and that of those it starts, and keep them to some of the cores."""
    os.nice(max(0, NICENESS - os.nice(0)))
    if hasattr(os, "sched_setaffinity"):  # not on macOS
        available = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(available)  # two collections on one machine rarely share a core
        os.sched_setaffinity(0, {available[(first + i) % len(available)] for i in range(cores)})


def require_same(folder: LiveFolder, path: Path, settings: Settings, noise: Path | None = None) -> None:
    """Write the record of a new folder, or compare that of an old one.

    Raises:
        InputError: the folder holds something else, or follows another collection or with other settings.
    """
    record = {"path": str(path.absolute()), "settings": settings.model_dump(exclude_none=True)}
    if noise is not None:
        record["noise"] = str(noise.absolute())
    if not folder.is_live:
        require_new(folder.path)
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path.absolute().parent} is not a folder. Give a particle file, or a folder of them.")
        folder.path.mkdir(parents=True, exist_ok=True)
        with replacing(folder.record) as temporary:
            temporary.write_text(tomli_w.dumps(record))
        return
    before: dict[str, Any] = tomllib.loads(folder.record.read_text())
    if before["path"] != record["path"]:
        raise InputError(f"{folder.path} follows {before['path']}, not {path}. Give another --out.")
    if before.get("noise") != record.get("noise"):
        raise InputError(f"{folder.path} was begun with another --noise. Give the same, or another --out.")
    changed = _differences(validate(before["settings"], f"{folder.record}: "), settings)
    if changed:
        raise InputError(
            f"{folder.path} was begun with another {as_flag(changed[0])}. Give the same settings, or another --out."
        )


def _differences(before: Settings, now: Settings) -> list[str]:
    old, new = before.model_dump(), now.model_dump()
    return [name for name in old if old[name] != new[name]]
