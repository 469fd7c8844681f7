"""Write docs/settings.md from `cryogan.config`; with --check, only say whether it is up to date."""

import sys
from pathlib import Path

from cryogan.config import PRESETS, Settings, resolve

PAGE = Path(__file__).with_name("settings.md")
HEAD = """\
# Settings

Made from `src/cryogan/config.py` by `make docs-settings`; change it there.

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
    rows = [f"| {' | '.join(head)} |\n", "|---" * len(head) + "|\n"]
    for name, field in Settings.model_fields.items():
        ordinary, *others = (getattr(preset, name) for preset in presets.values())
        cells = (
            f"`{name}`",
            f"`{_flag(name, switch=isinstance(ordinary, bool))}`",
            _value(ordinary),
            *("" if other == ordinary else _value(other) for other in others),
            (field.description or "").replace("|", "\\|"),
        )
        rows.append(f"| {' | '.join(cells)} |\n")
    return HEAD + "".join(rows)


def _flag(name: str, *, switch: bool) -> str:
    flag = name.replace("_", "-")
    return f"--{flag}`, `--no-{flag}" if switch else f"--{flag}"


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
        sys.exit("docs/settings.md is not what src/cryogan/config.py says; run: make docs-settings")
