"""One offline HTML file that tells what a run was and what came of it."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Page:
    """What the page says; every text is escaped.

    tables: facts by heading and name; pictures: caption and PNG file; next: commands by what they do.
    """

    title: str
    summary: str
    warnings: Sequence[str]
    tables: Mapping[str, Mapping[str, str]]
    pictures: Sequence[tuple[str, Path]]
    next: Mapping[str, str]
    settings: Mapping[str, object]


def write_page(path: Path, page: Page) -> None:
    """Write the page; the pictures stand in it."""
    environment = Environment(
        loader=PackageLoader("cryogan.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    pictures = [(caption, b64encode(file.read_bytes()).decode()) for caption, file in page.pictures if file.exists()]
    text = environment.get_template("page.html.j2").render(vars(page) | {"pictures": pictures})
    temporary = path.with_suffix(".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
