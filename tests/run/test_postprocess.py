"""The files at the end of a run, and of runs that were ended early: absent, or as good as their name."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from builders import prepared, tiny
from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.particles import read_volume, write_volume
from cryogan.run import warnings
from cryogan.run.folder import HALVES, Outcome, RunFolder
from cryogan.run.half import train
from cryogan.run.plan import Plan
from cryogan.run.postprocess import postprocess
from cryogan.run.reconstruct import reconstruct
from cryogan.watch.run import WatchedRun

RESULTS = ("map.mrc", "mask.mrc", "half*_map_unfil.mrc", "fsc.*", "open.cxc", "report.html", "figures/fsc*.png")


def results(folder: RunFolder) -> list[Path]:
    return [path for pattern in RESULTS for path in folder.path.glob(pattern)]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def trained(folder: RunFolder, half: int, stopped: Callable[[], bool]) -> Outcome:
    """Train a half and record how it ended, as the process of a run does."""
    outcome = train(Plan.read(folder.path), folder.path, half, lambda _: None, stopped)
    folder.record_outcome(outcome, half)
    return outcome


@pytest.fixture(params=["in the first step", "with one half finished"])
def stopped(request: pytest.FixtureRequest, particles: Path, tmp_path: Path) -> RunFolder:
    folder = RunFolder(prepared(tmp_path / "run", particles, tiny(search_steps=2, starts=1)))
    folder.record_outcome(Outcome.RUNNING)
    early = request.param == "in the first step"
    assert trained(folder, 1, lambda: early) is (Outcome.STOPPED if early else Outcome.FINISHED)
    assert trained(folder, 2, lambda: True) is Outcome.STOPPED
    folder.record_outcome(Outcome.STOPPED)
    return folder


def test_a_stopped_run_has_no_results_and_says_how_to_go_on(
    stopped: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not results(stopped)
    for path in stopped.snapshots.glob("*.mrc"):
        assert np.ptp(read_volume(path)[0]) > 0
    remedy = f"is not finished. Go on with: cryogan reconstruct --resume {stopped.path}"
    for command in ("figures", "refine", "poses"):
        assert remedy in refusal(capsys, command, stopped.path)
    assert remedy in refusal(capsys, "fsc", *stopped.half_maps, "--out", stopped.path / "fsc")
    assert not results(stopped)
    watched = WatchedRun(stopped.path)
    watched.poll()
    assert watched.status["state"] == "stopped"
    assert watched.status["fsc"] is None


def test_results_of_a_time_before_the_run_went_on_are_not_taken_for_its_end(
    stopped: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """--max-minutes had ended the run with maps; it was resumed, and then stopped."""
    for half_map in stopped.half_maps:
        write_volume(half_map, np.random.default_rng(0).standard_normal((32, 32, 32)).astype(np.float32), 4.0)
    stopped.fsc_csv.write_text("shell\n")
    for command in ("figures", "refine", "poses"):
        assert f"--resume {stopped.path}" in refusal(capsys, command, stopped.path)
    watched = WatchedRun(stopped.path)
    watched.poll()
    assert watched.status["fsc"] is None


@pytest.mark.parametrize("empty", HALVES)
def test_nothing_is_made_of_an_empty_half_map(empty: int, particles: Path, tmp_path: Path) -> None:
    folder = RunFolder(prepared(tmp_path / "run", particles, tiny()))
    for half in HALVES:
        volume = np.random.default_rng(half).standard_normal((32, 32, 32)).astype(np.float32)
        write_volume(folder.final(half), volume * (half != empty), 4.0)
    with pytest.raises(InputError, match=rf"The map of half {empty} is empty: .* --invert; .* --resume {folder.path}"):
        postprocess(folder, Plan.read(folder.path))
    assert not results(folder)


def test_time_that_ends_in_the_search_is_said(particles: Path, tmp_path: Path) -> None:
    """Even after a step that would not have been recorded; only --resume is offered then."""
    chosen = tiny(search_steps=1200, max_minutes=0.5001)
    result = reconstruct(
        particles / "particles.star", tmp_path / "run", chosen, console=Console(file=io.StringIO(), width=200)
    )
    folder = RunFolder(tmp_path / "run")
    assert folder.outcome() is Outcome.OUT_OF_TIME
    assert result.convergence.finding.code == warnings.OUT_OF_TIME_IN_SEARCH.code
    assert [folder.records(half)[-1]["step"] for half in HALVES] == [1, 1]
    half1, half2, mean = (read_volume(path)[0] for path in (*folder.half_maps, folder.map))
    assert not np.array_equal(half1, half2)
    np.testing.assert_allclose(mean, (half1 + half2) / 2, atol=1e-6 * np.abs(mean).max())
    text = folder.report.read_text()
    _, _, following = text.partition("<h2>Next</h2>")
    assert f"cryogan reconstruct --resume {folder.path}" in following
    assert "relion" not in following
    assert "before the search for a map was done" in text
