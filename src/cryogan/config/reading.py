"""Settings from a preset, a TOML file and flags, or from a run's record."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cryogan.config.presets import PRESETS
from cryogan.config.renamed import as_flag, current_names
from cryogan.config.settings import Settings
from cryogan.errors import InputError

_REPLACED_BY_STAGES = ("coarse_to_fine", "coarse_steps", "steps", "epochs")


def resolve(preset: str, file: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Settings of a preset, overridden by a TOML file, overridden by flags.

    Args:
        preset: a key of `PRESETS`.
        file: TOML with the names of `Settings`, at top level or under [settings], as `run.toml` has them.
        flags: only those that the user gave.

    Raises:
        InputError: unknown preset or setting (with a suggestion), value of the wrong kind, unreadable file, settings
            that contradict each other, stages beside flags that they replace.
    """
    if preset not in PRESETS:
        raise InputError(f"Unknown preset {preset!r}{_suggestion(preset, list(PRESETS))}")
    where = f"{file}: " if file else ""
    values = dict(PRESETS[preset])
    if file is not None:
        values |= current_names(_read_toml(file), where)
    values |= current_names(flags)
    replaced = [name for name in _REPLACED_BY_STAGES if name in flags]
    if values.get("stages") is not None and replaced:
        raise InputError(f"--stages says the boxes and steps: leave out {as_flag(replaced[0])}.")
    return validate(values, where)


def validate(values: Mapping[str, Any], where: str) -> Settings:
    """Settings from plain values; `where` begins the sentence of an `InputError`."""
    values = current_names(values, where)
    known = list(Settings.model_fields)
    for name in values:
        if name not in known:
            raise InputError(f"{where}unknown setting {name!r}{_suggestion(name, known)}")
    try:
        return Settings(**values)
    except ValidationError as error:
        raise InputError(where + first_complaint(error)) from error


def first_complaint(error: ValidationError) -> str:
    """Put pydantic's first error into one sentence."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    return f"setting {name} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}."


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"Cannot read the settings in {file}: {error}. Give a TOML file, such as the run.toml in a run's folder."
        ) from error
    settings: dict[str, Any] = content.get("settings", content)
    return settings


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known)}."
