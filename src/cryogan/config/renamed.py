"""Names of settings that users still type or have in old files, and what they are called now."""

import multiprocessing
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from cryogan.errors import InputError

RENAMED_SETTINGS = {"views": "orientations", "sharpen_steps": "marching_steps", "sharpen_images": "marching_images"}
RENAMED_VALUES = {"critic": {"views": "matching", "convolutional": "wasserstein"}}


class RenamedWarning(FutureWarning):
    """A setting was given under its old name; it was taken for the new one."""


def as_flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def current_names(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Replace old names and values of settings by those of today, with a `RenamedWarning`.

    Args:
        values: settings by name.
        where: begins the warning, such as the file's name and a colon.

    Raises:
        InputError: a setting is given under its old and its new name.
    """
    current: dict[str, Any] = {}
    remarks = []
    for old, value in values.items():
        name = RENAMED_SETTINGS.get(old, old)
        if name != old:
            remarks.append(f"{old} is now {name}")
            if name in values:
                raise InputError(f"{where}{old} and {name} are the same setting; leave out {old}.")
        new = RENAMED_VALUES.get(name, {}).get(value, value) if isinstance(value, str) else value
        if new != value:
            remarks.append(f"{name} = {value} is now {name} = {new}")
        current[name] = new
    # The process of a half map reads the run's record again; its parent has given the warning.
    if remarks and multiprocessing.parent_process() is None:
        warnings.warn(f"{where}{'; '.join(remarks)}.", RenamedWarning, stacklevel=3)
    return current


def current_flags(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replace old flags, and old values of flags, on a command line.

    Returns:
        The command line in the names of today, and a sentence for each that was replaced.
    """
    flags = {as_flag(old): as_flag(new) for old, new in RENAMED_SETTINGS.items()}
    values = {as_flag(name): names for name, names in RENAMED_VALUES.items()}
    current: list[str] = []
    remarks = []
    before = ""
    for token in tokens:
        flag, equals, value = token.partition("=")
        if token in values.get(before, {}):
            new = values[before][token]
            remarks.append(f"{before} {token} is now {before} {new}.")
        elif flag in flags:
            new = flags[flag] + equals + value
            remarks.append(f"{flag} is now {flags[flag]}.")
        elif value in values.get(flag, {}):
            new = f"{flag}={values[flag][value]}"
            remarks.append(f"{flag} {value} is now {flag} {values[flag][value]}.")
        else:
            new = token
        current.append(new)
        before = token
    return current, remarks
