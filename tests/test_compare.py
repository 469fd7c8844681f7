"""Comparison of finished runs: structures, scores by particles that are kept for choosing, and what a user is told."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from builders import finished, prepared, tiny
from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.models.phantom import phantom
from cryogan.refinement.compare import compare_runs
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.run_scores import FinishedRun, compare_scores
from cryogan.run.comparison import ComparedRun, RunComparison, Score, figure_path, record_path
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.plan import Plan
from cryogan.validation import flip_hand, resample

BOX, PIXEL = 32, 4.0
FEW = {"orientations": 800}
SCALE = 6.6  # of the phantom in the particles, whose unit is the noise's s.d.
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def runs(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A right map, another molecule, and the right map in the other hand; each run has halves of its own."""
    folder = tmp_path_factory.mktemp("runs")
    right, wrong = (SCALE * phantom(BOX, PIXEL, seed) for seed in (1, 2))
    maps = {"right": right, "wrong": wrong, "mirrored": flip_hand(right)}
    return [
        finished(folder / name, particles, density, seed=seed, **FEW)
        for seed, (name, density) in enumerate(maps.items())
    ]


@pytest.fixture(scope="module")
def compared(runs: list[Path]) -> RunComparison:
    return compare_runs(runs, runs[0].parent / "comparison", console=QUIET)


def test_runs_of_one_structure_are_found_and_the_other_is_named(compared: RunComparison, runs: list[Path]) -> None:
    right, wrong, mirrored = runs
    assert compared.answer == "several"
    assert [[run.folder for run in structure] for structure in compared.structures] == [[right, mirrored], [wrong]]
    assert [run.mirrored for run in compared.runs if run.folder != wrong] == [False, True]
    assert compared.cutoff_A == 16.0
    assert compared.best is not None
    assert compared.best.folder in (right, mirrored)
    assert str(compared.best.folder) in compared.sentence
    (finding,) = compared.findings
    assert (finding.code, finding.severity) == ("runs-differ", "warning")
    assert f"{right}, {mirrored}; {wrong}" in finding.sentence


def test_a_wrong_map_has_a_lower_score_and_the_other_hand_has_not(compared: RunComparison) -> None:
    right, wrong, mirrored = (run.score for run in compared.runs)
    assert right is not None
    assert wrong is not None
    assert mirrored is not None
    assert wrong.deficit > 10 * wrong.deficit_error
    assert max(right.deficit, mirrored.deficit) < 0.05 * wrong.deficit
    assert min(right.deficit, mirrored.deficit) == 0
    assert wrong.deficit == pytest.approx(max(right.mean, mirrored.mean) - wrong.mean)


def test_the_scores_are_of_the_same_particles_and_none_of_them_judges_a_run(runs: list[Path]) -> None:
    choosing, halves = [], []
    for run in runs:
        plan, file = Plan.read(run), RunFolder(run).particles
        chosen = [HalfSet(plan, file, half, part="choose").names for half in HALVES]
        reported = [HalfSet(plan, file, half, part="report").names for half in HALVES]
        every = [HalfSet(plan, file, half).names for half in HALVES]
        assert all(sorted(a + b) == sorted(both) for a, b, both in zip(chosen, reported, every, strict=True))
        choosing.append({name for names in chosen for name in names})
        halves.append(set(chosen[0]))
    assert choosing[0] == choosing[1] == choosing[2]
    assert halves[0] != halves[1]
    assert 50 < len(choosing[0]) < 150  # a quarter of 400


def test_at_most_so_many_judge_a_run(runs: list[Path]) -> None:
    plan, file = Plan.read(runs[0]), RunFolder(runs[0]).particles
    few, all_of_them = (HalfSet(plan, file, 1, at_most, "report").names for at_most in (20, None))
    assert len(few) == 20
    assert set(few) < set(all_of_them)


def test_frequencies_beyond_the_cutoff_do_not_matter(runs: list[Path]) -> None:
    """Of two scores to 20 A and 8 A the finer is higher, where the map is right."""
    run = FinishedRun(runs[0])
    coarse, fine = (run.scores(cutoff) for cutoff in (20.0, 8.0))
    assert coarse.keys() == fine.keys()
    assert np.mean(list(fine.values())) > 1.1 * np.mean(list(coarse.values()))


def test_scores_are_compared_by_the_particles_that_all_runs_have() -> None:
    count, (first, second) = compare_scores([{"a": 1.0, "b": 3.0, "c": 90.0}, {"b": 5.0, "a": 5.0, "d": 0.0}])
    assert count == 2
    assert second == Score(5.0, 0.0, 0.0)
    assert first == Score(2.0, 3.0, pytest.approx(1.0))  # differences 4 and 2
    assert compare_scores([{"a": 1.0}, {"b": 1.0}]) == (0, [None, None])


def test_what_is_written_can_be_read(compared: RunComparison, runs: list[Path]) -> None:
    folder = runs[0].parent / "comparison"
    record = json.loads(record_path(folder).read_text())
    assert record["answer"] == "several"
    assert record["best"] == str(compared.best.folder if compared.best else None)
    assert len(record["correlation"]) == 3
    assert record["runs"][1]["score"]["deficit"] > 0
    assert figure_path(folder).read_bytes().startswith(b"\x89PNG")


def test_runs_on_other_grids_are_compared_but_not_scored(runs: list[Path], particles: Path, tmp_path: Path) -> None:
    density = resample(phantom(BOX, PIXEL, 1), PIXEL, 24, PIXEL * BOX / 24)
    coarse = finished(tmp_path / "coarse", particles, density, box=24, **FEW)
    found = compare_runs([runs[0], coarse], tmp_path / "out", console=QUIET)
    assert found.answer == "one"
    assert found.scored_particles == 0
    assert [finding.code for finding in found.findings] == ["runs-not-scored"]


def run(name: str, structure: int, mean: float | None) -> ComparedRun:
    score = None if mean is None else Score(mean, 10.0 - mean, 0.1)
    return ComparedRun(Path(name), structure, 9.0, False, score)


def comparison(*runs: ComparedRun) -> RunComparison:
    same = [[0.9 if a.structure == b.structure else 0.4 for b in runs] for a in runs]
    scored = 0 if runs[0].score is None else 100
    return RunComparison(runs, tuple(map(tuple, same)), 30.0, "30.0 A", scored)


def codes(found: RunComparison) -> list[str]:
    return [finding.code for finding in found.findings]


def test_the_answer_follows_the_structures() -> None:
    one = comparison(run("a", 1, 9.0), run("b", 1, 10.0))
    assert (one.answer, codes(one)) == ("one", [])
    assert one.best == one.runs[1]
    assert one.sentence.startswith("One structure: the 2 runs agree (correlation at least 0.90")
    none = comparison(run("a", 1, 9.0), run("b", 2, 10.0), run("c", 3, 8.0))
    assert (none.answer, none.best, codes(none)) == ("none", None, ["runs-disagree"])
    assert none.findings[0].severity == "error"
    assert "at most 0.40" in none.sentence
    unscored = comparison(run("a", 1, None), run("b", 1, None))
    assert (unscored.answer, unscored.best, codes(unscored)) == ("one", None, ["runs-not-scored"])


def test_the_best_is_of_the_largest_cluster_and_a_better_one_elsewhere_is_a_warning() -> None:
    minority = comparison(run("a", 1, 7.0), run("b", 1, 8.0), run("c", 2, 10.0))
    assert minority.best == minority.runs[1]
    assert codes(minority) == ["runs-differ", "runs-better-elsewhere"]
    assert minority.findings[1].sentence.startswith("c gives another structure")
    close = comparison(run("a", 1, 7.0), run("b", 1, 9.8), run("c", 2, 10.0))
    assert codes(close) == ["runs-differ"]
    tie = comparison(run("a", 1, 7.0), run("b", 1, 8.0), run("c", 2, 9.0), run("d", 2, 10.0))
    assert tie.best == tie.runs[3]
    assert codes(tie) == ["runs-differ"]


def test_the_command_answers_in_a_table_or_json(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [str(path) for path in (runs[0], runs[2])]
    main(["compare", *chosen, "--out", str(tmp_path / "out"), "--quiet", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] == "one"
    assert told["structures"] == [chosen]
    assert told["findings"] == []
    assert Path(told["picture"]).exists()


@pytest.mark.parametrize(
    ("names", "word"),
    [(["right"], "two runs"), (["right", "right/"], "given twice"), (["right", "nothing"], "not the folder of a run")],
)
def test_what_cannot_be_compared_is_refused(
    names: list[str], word: str, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *(f"{runs[0].parent}/{name}" for name in names), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert word in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_refused(particles: Path, runs: list[Path], tmp_path: Path) -> None:
    prepared(tmp_path / "begun", particles, tiny())
    with pytest.raises(InputError, match="--resume"):
        compare_runs([runs[0], tmp_path / "begun"], tmp_path / "out", console=QUIET)
