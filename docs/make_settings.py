"""Write docs/settings.md from `cryogan.config`; with --check, only say whether it is up to date."""

import sys
from pathlib import Path

from cryogan.config import GROUPS, PRESETS, RENAMED_SETTINGS, RENAMED_VALUES, as_flag, resolve

PAGE = Path(__file__).with_name("settings.md")
HEAD = """\
# Settings

Made from `src/cryogan/config/groups.py` by `make docs-settings`; change it there.

Every setting is a flag of `cryogan reconstruct` and a line of a TOML file given with `--config`, under its name. A
preset (`--preset`) comes first, the TOML file overrides it, and flags override both. `run.toml` in a run's folder
holds what was used, and can be given with `--config` to another run.

The columns after "default" are the values under the other presets, where they differ from it. Lengths are in angstrom
unless the description says otherwise; "-" is no value.

"""


def page() -> str:
    """The whole of settings.md."""
    presets = {name: resolve(name, None, {}) for name in PRESETS}
    head = ["name", "flag", *presets, "description"]
    text = HEAD
    for title, group in GROUPS.items():
        text += f"## {title}\n\n| {' | '.join(head)} |\n" + "|---" * len(head) + "|\n"
        for name, field in group.model_fields.items():
            ordinary, *others = (getattr(preset, name) for preset in presets.values())
            cells = (
                f"`{name}`",
                f"`{_flag(name, switch=isinstance(ordinary, bool))}`",
                _value(ordinary),
                *("" if other == ordinary else _value(other) for other in others),
                (field.description or "").replace("|", "\\|"),
            )
            text += f"| {' | '.join(cells)} |\n"
        text += "\n"
    return text + _old_names()


def _flag(name: str, *, switch: bool) -> str:
    flag = as_flag(name)
    return f"{flag}`, `--no-{flag.removeprefix('--')}" if switch else flag


def _old_names() -> str:
    text = "## Old names\n\nThey still work, as flags and in TOML files, and a line says what they are now.\n\n"
    text += "| old | now |\n|---|---|\n"
    for old, new in RENAMED_SETTINGS.items():
        text += f"| `{as_flag(old)}` | `{as_flag(new)}` |\n"
    for name, values in RENAMED_VALUES.items():
        for old, new in values.items():
            text += f"| `{as_flag(name)} {old}` | `{as_flag(name)} {new}` |\n"
    return text


def _value(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
    elif not PAGE.is_file() or PAGE.read_text() != text:
        sys.exit("docs/settings.md is not what src/cryogan/config says; run: make docs-settings")
