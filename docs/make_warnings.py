"""Write docs/warnings.md from the registry of what a user may be told."""

from pathlib import Path
from string import Formatter

import cryogan.particles.findings
import cryogan.run.warnings
from cryogan.errors import KINDS

MODULES = (cryogan.particles.findings, cryogan.run.warnings)  # their import fills the registry
PAGE = Path(__file__).with_name("warnings.md")
HEAD = """\
# Notes and warnings

Made from `src/cryogan/run/warnings.py` and `src/cryogan/particles/findings.py` by `make docs-settings`; change it
there.

What `cryogan check`, a run and its report can tell you besides results. `--json` has code, severity and numbers of
each. Words in *italics* stand for numbers and names. A *note* is a fact; a *warning* is a likely problem; an *error*
means that the result cannot be used. [Troubleshooting](troubleshooting.md) says more about some of them, and about
input that is refused.

| code | severity | what it says |
|---|---|---|
"""


def with_names(template: str) -> str:
    """Replace the fields of a format string by their names."""
    return "".join(text + (f"*{name}*" if name else "") for text, name, *_ in Formatter().parse(template))


def page() -> str:
    """Return the whole of warnings.md: errors first, then warnings and notes."""
    order = ("error", "warning", "note")
    kinds = sorted(KINDS.values(), key=lambda kind: order.index(kind.severity))
    rows = (f"| `{kind.code}` | {kind.severity} | {with_names(kind.template)} |\n" for kind in kinds)
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
