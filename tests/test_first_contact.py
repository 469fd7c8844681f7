"""What a person meets first: `cryogan` alone, help on a screen, errors that say what to type, time and memory."""

import contextlib
import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from builders import tiny
from cryogan.checking import check
from cryogan.cli import app, main
from cryogan.config import Settings
from cryogan.config.renamed import as_flag
from cryogan.fourier import Disc
from cryogan.parallel.work import USUAL, Speed, Work
from cryogan.run.build import build_simulator
from cryogan.run.inputs import read_inputs
from cryogan.run.speed import IMAGES, TEMPLATES, measure_speed

COMMANDS = [name for name in app if not name.startswith("-")]
SCREEN = 40  # lines of 100 columns
Said = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run a command on a terminal of 100 columns; all that it wrote comes back."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(app, "console", Console(width=100))  # an earlier test may have made one

    def run(*arguments: object) -> str:
        with contextlib.suppress(SystemExit):
            main([str(argument) for argument in arguments])
        return "".join(capsys.readouterr())

    return run


def test_alone_it_says_the_three_commands(said: Said) -> None:
    text = said()
    commands = re.findall(r"^  (cryogan .*?)  ", text, re.MULTILINE)
    assert [shlex.split(command)[1] for command in commands] == ["check", "reconstruct", "refine"]
    assert set(re.findall(r"cryogan ([a-z]+)", text)) <= set(COMMANDS)
    assert len(text.splitlines()) < SCREEN


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen(command: str, said: Said) -> None:
    lines = said(*command.split(), "--help").splitlines()
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("command", ["reconstruct", "check", "submit", "verdict"])
def test_rare_settings_are_in_help_all(command: str, said: Said) -> None:
    short, whole = said(command, "--help"), said(command, "--help-all")
    for name in Settings.model_fields:
        assert re.search(rf"{as_flag(name)}\b", whole), name
    assert "--symmetry" in short
    assert "--critic-width" not in short
    assert f"cryogan {command} --help-all" in short
    assert said(command, "--help") == short  # the whole help changes nothing that follows


@pytest.mark.parametrize(
    "arguments",
    [
        "recon",
        "--foo",
        "check",
        "check particles.star --box",
        "check particles.star --box many",
        "reconstruct particles.star --out",
        "reconstruct particles.star --simmetry D2",
        "reconstruct particles.star --out out --seed -3",
        "align a.mrc b.mrc c.mrc --out d.mrc",
        "simulate --noise pink --out out",
        "doctor --verbose",
        "figures nothing",
        "verdict a b c d",
    ],
)
def test_errors_say_what_to_type(arguments: str, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = said(*arguments.split()).splitlines()
    verb = arguments.split()[0]
    expected = {"figures": "reconstruct."}.get(verb, verb if verb in COMMANDS else "--help")
    assert expected in re.findall(r"cryogan (\S+)", line.split(": ", 1)[1])
    assert not list(tmp_path.iterdir())


def test_the_speed_is_that_of_what_was_counted(particles: Path) -> None:
    plan = read_inputs(particles / "particles.star", particles / "noise.star", None, tiny()).plan
    images, simulator = build_simulator(plan, plan.box, plan.particles, 1, 0)
    ticks = itertools.count()
    speed = measure_speed(images, simulator, 1, lambda: float(next(ticks)))  # all take one tick
    box = plan.box
    coarse, fine = (len(Disc(box, cutoff, device=plan.device)) for cutoff in (11.0, box / 2))
    assert speed.products == pytest.approx(1 / (IMAGES * TEMPLATES * 9 * coarse))
    assert speed.samples == pytest.approx(1 / (IMAGES * fine))
    assert speed.pixels == pytest.approx(1 / (IMAGES * box**2))
    assert speed.voxels == pytest.approx(1 / (2 * box) ** 3)


def test_the_time_follows_from_work_and_speed(particles: Path) -> None:
    assert Speed(1, 2, 3, 4).seconds(Work(1, 1, 1, 1) + Work(voxels=1) * 2) == 18
    cost = read_inputs(particles / "particles.star", None, None, tiny()).plan.cost
    halves, once = USUAL.seconds(cost.half), USUAL.seconds(cost.result)
    assert cost.minutes(2) == pytest.approx((halves + once) / 60)
    assert cost.minutes(2, threads=2) == pytest.approx((2 * halves + once) / 60)
    twice = Speed(*(2 * rate for rate in vars(USUAL).values()))
    assert cost.minutes(8, twice) == pytest.approx(2 * cost.minutes(8))
    assert USUAL.seconds(cost.training) < halves


def test_check_says_time_and_memory(particles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = check(particles / "particles.star", tiny())
    assert re.match(r"about \d+ min on this machine", report.facts["time"])
    assert re.match(r"\d\.\d GiB for both halves", report.facts["memory"])
    monkeypatch.setattr("cryogan.checking.available_memory_gib", lambda: 0.5)
    short = check(particles / "particles.star", tiny())
    assert "memory-short" in [finding.code for finding in short.findings]
    assert "of 0.5 that are free here" in short.facts["memory"]
