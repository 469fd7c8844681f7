"""One offline HTML file that reports a run: inputs, results, warnings, pictures, next commands."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from cryogan.files import replacing


@dataclass(frozen=True)
class Page:
    """Content of the page; every text is escaped.

    Attributes:
        title: heading of the page.
        verdict: what the map is worth, in one sentence; empty: it was not judged.
        summary: what was made of what.
        warnings: a sentence each.
        tables: facts by heading and name.
        pictures: caption and PNG file of each picture; one that does not exist is left out. The first stands at the
            top of the page, between the verdict and the first of the next commands.
        next: commands to go on with, by what they do.
        settings: every setting by name.
    """

    title: str
    verdict: str
    summary: str
    warnings: Sequence[str]
    tables: Mapping[str, Mapping[str, str]]
    pictures: Sequence[tuple[str, Path]]
    next: Mapping[str, str]
    settings: Mapping[str, object]


def write_page(path: Path, page: Page) -> None:
    """Write the page as one file, with its pictures inside."""
    environment = Environment(
        loader=PackageLoader("cryogan.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    pictures = [(caption, b64encode(file.read_bytes()).decode()) for caption, file in page.pictures if file.exists()]
    text = environment.get_template("page.html.j2").render(
        vars(page) | {"first": pictures[:1], "pictures": pictures[1:]}
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
