"""Write the table of notes and warnings of docs/troubleshooting.md from the modules that define them."""

import re
from pathlib import Path

import cryogan.live.kinds
import cryogan.particles.findings
import cryogan.run.verdict_kinds
import cryogan.run.warnings
from cryogan.errors import Kind

MODULES = (
    cryogan.particles.findings,
    cryogan.run.warnings,
    cryogan.run.verdict_kinds,
    cryogan.live.kinds,
)
PAGE = Path(__file__).with_name("troubleshooting.md")
BEGIN, END = "<!-- made by docs/make_warnings.py -->\n", "<!-- end -->\n"


def table() -> str:
    """Return the rows of all kinds of finding, with dots in the place of values."""
    rows = ["| code | severity | message | remedy |\n", "| --- | --- | --- | --- |\n"]
    for kind in (value for module in MODULES for value in vars(module).values() if isinstance(value, Kind)):
        sentence = re.sub(r"\{\w+[^}]*\}", "...", kind.sentence)
        remedy = re.sub(r"\{\w+[^}]*\}", "...", kind.remedy)
        rows.append(f"| `{kind.code}` | {kind.severity} | {sentence} | {remedy} |\n")
    return "".join(rows)


def page(text: str) -> str:
    """Return the text of the page with today's table in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
