"""What the pages promise is in the program: its commands, flags, modules and names are asked for one by one."""

import re
import runpy
import tomllib
from functools import cache, reduce
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cryogan.cli import app
from cryogan.config import RENAMED_SETTINGS, as_flag
from cryogan.run.folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts
)
COMMANDS = [name for name in app.resolved_commands() if not name.startswith("-")]
OTHER_PROGRAMS = {"--array", "--kill-on-bad-exit", "--no-python", "--nproc-per-node", "--mem-per-cpu", "--requeue"}


@cache
def flags(command: str) -> frozenset[str]:
    arguments = [*app[command].assemble_argument_collection(), *app.meta.assemble_argument_collection()]
    return frozenset(name for argument in arguments for name in argument.names) | {"--help"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def command_lines(text: str) -> list[str]:
    """The indented lines that call the program, each continued where it ends with a backslash."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [line.split(" # ")[0] for line in lines if re.match(r" {4,}.*\bcryogan [a-z]", line)]


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_the_pages_exist(page: str) -> None:
    text = text_of(page)
    spans = [*command_lines(text), *re.findall(r"`([^`\n]*\bcryogan [^`\n]*)`", text)]
    for command in {verb for span in spans for verb in re.findall(r"(?<![\w/.-])cryogan ([a-z][a-z-]+)\b", span)}:
        assert command in COMMANDS


@pytest.mark.parametrize("page", PAGES)
def test_flags_of_each_command_line_are_those_of_its_command(page: str) -> None:
    text = text_of(page)
    for line in [*command_lines(text), *re.findall(r"`(cryogan [a-z][^`\n]*)`", text)]:
        for command, arguments in re.findall(r"\bcryogan ([a-z][a-z-]+)\b((?:(?!; or: ).)*)", line):
            for flag in re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", arguments):
                assert flag in flags(command), line


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_the_text_are_those_of_some_command(page: str) -> None:
    known = frozenset(flag for command in COMMANDS for flag in flags(command)) | {"--install-completion"}
    known |= {as_flag(old) for old in RENAMED_SETTINGS}
    for flag in re.findall(r"`(--[a-z][a-z0-9-]*)(?!_)\b[^`\n]*`", text_of(page)):
        assert flag in known | OTHER_PROGRAMS


@pytest.mark.parametrize("page", PAGES)
def test_python_files_named_on_the_pages_exist(page: str) -> None:
    places = (ROOT, ROOT / "src" / "cryogan", ROOT / "tests")
    for name in set(re.findall(r"`((?:\w+/)*\w+\.py)`", text_of(page))) - {"csparc2star.py"}:  # pyem's
        assert any((place / name).is_file() for place in places), name


def attribute(module: str, path: str) -> object:
    parts = module.removesuffix(".py").removesuffix("/__init__").split("/")
    return reduce(getattr, path.split("."), import_module(".".join(["cryogan", *parts])))


# "`physics/simulator.py`: `Simulator.forward`, `..." or "`physics/noise.py`: `PatchNoise`"
NAMED = re.compile(r"`((?:\w+/)*\w+\.py)`: ((?:`[A-Za-z_][\w.]*`(?:, | and )?)+)")


@pytest.mark.parametrize("page", [page for page in PAGES if NAMED.search(text_of(page))])
def test_names_in_modules_exist(page: str) -> None:
    for module, names in NAMED.findall(text_of(page)):
        if (ROOT / "src" / "cryogan" / module).is_file():
            for name in re.findall(r"`([\w.]+)`", names):
                attribute(module, name)


def test_the_table_of_the_paper_names_what_exists() -> None:
    text = text_of("docs/method.md")
    assert len(NAMED.findall(text)) >= 20
    for equation in ("(1)", "(2)", "(10)", "(12)", "(13)", "(iii)", "(vii)", "(viii)", "(ix)"):
        assert re.search(rf"^\| [^|]*{re.escape(equation)}[^|]*\|", text, re.MULTILINE), equation


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_packages_named_in_the_layout_exist(page: str) -> None:
    rows = [row for row in text_of(page).splitlines() if row.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`([a-z_]+)/?`", row.split("|")[1])}
    assert names
    for name in names:
        import_module(f"cryogan.{name}")


def test_the_page_of_outputs_has_every_file_of_a_run() -> None:
    folder, page = RunFolder(Path("run")), text_of("docs/outputs.md")
    places = [getattr(folder, name) for name in dir(folder) if name not in vars(folder) and not name.startswith("_")]
    files = [place for place in places if isinstance(place, Path)]
    assert len(files) > 15
    files += [make(1) for make in (folder.half_map, folder.checkpoint, folder.final, folder.latest, folder.class_table)]
    files.append(folder.searched(1))
    for file in files:
        assert file.name.startswith(".") or file.name in page, file.name


def test_the_drawing_is_that_of_its_script_and_shows_every_layer_of_the_contract() -> None:
    drawing = (ROOT / "docs" / "images" / "architecture.svg").read_text()
    assert drawing == runpy.run_path(str(ROOT / "docs" / "make_architecture.py"))["drawing"]()
    assert len(drawing) < 100_000
    (contract,) = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    shown = [element.text for element in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")]
    for layer in contract["layers"]:
        assert set(re.findall(r"cryogan\.(\w+)", layer)) <= set(shown)


def test_the_table_of_pain_points_names_tests_that_exist() -> None:
    text = text_of("docs/troubleshooting.md")
    rows = [line for line in text[text.index("| what users run into") :].splitlines()[2:] if line]
    assert len(rows) == 13
    for row in rows:
        places = re.findall(r"`((?:\w+/)?test_\w+\.py)`", row)
        assert places, row
        tests = [name for place in places for name in runpy.run_path(str(ROOT / "tests" / place))]
        for name, more in re.findall(r"`(test_\w+?)(_?\.\.\.)?`", row):
            assert any(test == name or (more and test.startswith(name)) for test in tests), name
