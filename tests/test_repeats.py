"""Repeats of a run from two seeds: stopped and gone on with, compared, and what is offered."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from builders import tiny
from cryogan.cli import main
from cryogan.errors import InputError, Interrupted
from cryogan.particles import read_star
from cryogan.refinement.repeats import reconstruct_repeats
from cryogan.run.comparison import ComparedRun, RunComparison, Score
from cryogan.run.folder import RunFolder
from cryogan.run.plan import Plan
from cryogan.run.repeats import Repeats, RepeatsFolder

QUIET = Console(quiet=True)


class Impatient(Console):
    """The user presses Ctrl-C when the second run is announced."""

    def print(self, *objects: object, **options: object) -> None:
        if "Repeat 2 of 2" in str(objects):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def repeats(particles: Path) -> Repeats:
    settings = tiny(search_steps=20, search_batch=60, starts=1, verdict=False)
    return Repeats(2, settings, particles / "particles.star", particles / "noise.star")


@pytest.fixture(scope="module")
def stopped(repeats: Repeats, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of repeats in which the first run is finished and the second was not begun."""
    out = tmp_path_factory.mktemp("repeats") / "out"
    with pytest.raises(Interrupted, match=f"--resume {re.escape(str(out))}$"):
        reconstruct_repeats(repeats, out, console=Impatient())
    return out


@pytest.fixture(scope="module")
def log_of_first(stopped: Path) -> str:
    return RepeatsFolder(stopped).run(1).log.read_text()


@pytest.fixture(scope="module")
def made(stopped: Path, log_of_first: str, repeats: Repeats) -> RunComparison:
    return reconstruct_repeats(repeats, stopped, console=QUIET)


def test_each_repeat_is_a_run_of_its_own(made: RunComparison, stopped: Path, log_of_first: str) -> None:
    runs = [RepeatsFolder(stopped).run(number) for number in (1, 2)]
    assert runs[0].log.read_text() == log_of_first  # it was not run again
    assert [Plan.read(run.path).settings.seed for run in runs] == [3, 4]
    assert all(run.is_finished for run in runs)
    halves = [read_star(run.particles)["particles"].floats("rlnRandomSubset") for run in runs]
    assert (halves[0] != halves[1]).any()


def test_the_best_run_is_offered(made: RunComparison, stopped: Path) -> None:
    folder = RepeatsFolder(stopped)
    assert made.answer == "one"
    assert made.best is not None
    assert folder.best.resolve() == made.best.folder.resolve()
    assert not folder.best.readlink().is_absolute()  # the folder may be moved
    assert RunFolder(folder.best).map.exists()
    readme = folder.readme.read_text()
    assert made.sentence in readme
    files = re.findall(r"^(\S+):", readme.split("leads there.")[1], re.MULTILINE)
    assert {"comparison.json", "comparison.png", "repeats.toml"} <= set(files)
    assert {path.name for path in stopped.iterdir()} == {*files[:3], "repeat1", "repeat2", "best", "README.txt"}


def test_finished_repeats_are_compared_again_by_the_command(
    made: RunComparison, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["reconstruct", "--resume", str(stopped), "--quiet", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] == "one"
    assert told["best"] == str(made.best.folder if made.best else None)
    assert told["scored_particles"] == made.scored_particles > 0
    for name in ("map", "report", "picture", "folder"):
        assert Path(told[name]).exists()


def test_other_settings_are_refused_and_another_count_is_not(repeats: Repeats, stopped: Path) -> None:
    folder = RepeatsFolder(stopped)
    with pytest.raises(InputError, match="other particles or settings"):
        folder.begin(replace(repeats, settings=tiny(seed=5)))
    with pytest.raises(InputError, match="other particles or settings"):
        folder.begin(replace(repeats, noise=None))
    folder.begin(replace(repeats, count=5))
    assert folder.read() == replace(repeats, count=5).absolute()
    folder.begin(repeats)


def test_input_that_cannot_be_used_leaves_nothing(repeats: Repeats, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing"):
        reconstruct_repeats(replace(repeats, particles=tmp_path / "nothing.star"), tmp_path / "out", console=QUIET)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(InputError, match="not an empty folder"):
        reconstruct_repeats(repeats, tmp_path / "mine", console=QUIET)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["particles.star", "--out", "out", "--repeats", "1"], "--repeats 1"),
        (["--resume", "out", "--repeats", "3"], "--resume takes"),
        (["--repeats", "3", "--out", "out"], "Give the particles"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    arguments: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["reconstruct", *arguments])
    assert ended.value.code == 2
    assert word in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    RepeatsFolder(tmp_path).record.write_text("[repeats]\ncount = 2\n")
    with pytest.raises(InputError, match=r"no readable record of repeats, .*repeats\.toml"):
        RepeatsFolder(tmp_path).read()


def test_nothing_is_offered_where_no_two_runs_agree(tmp_path: Path) -> None:
    folder = RepeatsFolder(tmp_path)
    folder.best.symlink_to("repeat1", target_is_directory=True)  # of an earlier comparison
    runs = tuple(ComparedRun(folder.run(number).path, number, 9.0, False, Score(9.0, 0.0, 0.1)) for number in (1, 2))
    folder.offer(RunComparison(runs, ((1.0, 0.2), (0.2, 1.0)), 30.0, "30.0 A", 100))
    assert not folder.best.is_symlink()
    assert "No run is offered" in folder.readme.read_text()
    assert "Do not use these maps" in folder.readme.read_text()
