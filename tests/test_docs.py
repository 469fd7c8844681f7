"""What the pages promise is in the program."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = " ".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))
# Sentences are wrapped over lines of source: join adjacent literals, and let any field be dots.
JOINED = re.sub(r"\{[^{}]*\}", "...", re.sub(r'"\s*f?"', "", SOURCE))
HEADINGS = re.findall(r"^## (.*)$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("heading", [each for each in HEADINGS if each != "Where each of these is tested"])
def test_headings_of_the_troubleshooting_page_are_messages(heading: str) -> None:
    for part in re.split(r"\.\.\.", heading):
        assert part.strip() in JOINED


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "docs/quickstart.md", "docs/troubleshooting.md", "docs/watch.md", "docs/empiar-10061.md"),
        *sorted(f"docs/roadmap/{path.name}" for path in (ROOT / "docs" / "roadmap").iterdir()),
    ],
)
def test_commands_and_flags_on_the_pages_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    cli = (ROOT / "src" / "cryogan" / "cli" / "__init__.py").read_text()
    config = (ROOT / "src" / "cryogan" / "config.py").read_text()
    for verb in set(re.findall(r"\bcryogan ([a-z][a-z-]+)\b", text)):
        assert f'name="{verb}"' in cli
    lines = [line for line in text.splitlines() if "cryogan" in line or line.startswith("- ")]
    librarys = {"help", "install-completion", "nproc-per-node", "no-python"}
    for flag in {flag for line in lines for flag in re.findall(r"--([a-z][a-z0-9-]+)", line)} - librarys:
        name = flag.replace("-", "_")
        assert re.search(rf"\b{name}\b", config) or re.search(rf"\b{name}:", cli) or f'"--{flag}"' in cli, flag


def test_the_table_of_pain_points_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = [line for line in text[text.index("| what users run into") :].splitlines()[2:] if line]
    assert len(rows) == 13
    for row in rows:
        places = re.findall(r"`((?:\w+/)?test_\w+\.py)`", row)
        assert places, row
        source = " ".join((ROOT / "tests" / place).read_text() for place in places)
        for name in re.findall(r"`(test_\w+?)(?:_?\.\.\.)?`", row):
            assert f"def {name}" in source, name
