"""The symmetry of a run's half maps: what is recorded, what a user is told, and the command that uses it."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import TINY, finished, verdict
from cryogan.cli import main
from cryogan.cli.app import app
from cryogan.cli.flags import chosen_settings
from cryogan.config import resolve
from cryogan.models.phantom import phantom
from cryogan.particles import write_volume
from cryogan.run.folder import RunFolder
from cryogan.run.handover import with_symmetry
from cryogan.run.plan import Plan
from cryogan.run.symmetry import FoundSymmetry, read_symmetry
from cryogan.run.verdict import record_path, write_verdict
from cryogan.validation import SymmetryScore, SymmetrySuggestion

BOX, PIXEL = 32, 4.0


def score(symmetry: str, value: float, **changes: float) -> SymmetryScore:
    made = SymmetryScore(symmetry, value / 2, 0.5, 0.01, value, value, 0.1, 0.1)
    return replace(made, **changes)


def found(*scores: SymmetryScore) -> FoundSymmetry:
    return FoundSymmetry(SymmetrySuggestion(scores, 9.0))


@pytest.fixture
def run(particles: Path, tmp_path: Path) -> RunFolder:
    """A run in C1 whose half maps are the D2 phantom."""
    return RunFolder(finished(tmp_path / "run", particles, phantom(BOX, PIXEL, 1), symmetry="C1"))


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    main([*map(str, arguments), "--json", "--quiet"])
    values: dict[str, object] = json.loads(capsys.readouterr().out)
    return values


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("scores", "codes", "suggested"),
    [
        ([score("D2", 0.99), score("C2", 1.01)], ["symmetry-found"], "D2"),
        ([score("D2", 0.98), score("C2", 1.0, chance=0.9)], ["symmetry-found"], "D2"),
        ([score("D2", 0.98, chance=0.9, chance_coarse=0.9)], ["symmetry-none"], None),
        ([score("C2", 0.92)], ["symmetry-near"], None),
        ([score("C2", 0.92, error=0.05)], ["symmetry-found"], "C2"),
        ([score("C4", 0.6, coarse=0.97), score("C2", 1.0)], ["symmetry-found", "symmetry-near"], "C2"),
        ([score("D4", 1.0), score("C4", 0.93), score("C2", 1.0)], ["symmetry-found"], "D4"),
        ([score("D7", 1.0), score("C5", 1.0)], ["symmetry-round"], None),
        ([score("C4", 1.0), score("D2", 1.0)], ["symmetry-round"], None),
        ([score("C2", 0.3)], ["symmetry-none"], None),
    ],
)
def test_what_is_said_of_scores(scores: list[SymmetryScore], codes: list[str], suggested: str | None) -> None:
    said = found(*scores)
    assert [finding.code for finding in said.findings] == codes
    assert said.suggested == suggested
    assert FoundSymmetry.from_values(json.loads(json.dumps(said.values))) == said


def test_a_chance_that_is_not_known_is_recorded_as_none() -> None:
    said = found(score("C2", 0.99, chance=-np.inf, chance_coarse=-np.inf))
    assert said.values["groups"][0]["chance"] is None
    assert FoundSymmetry.from_values(said.values) == said
    assert "chance reaches unknown" in said.findings[0].sentence


def test_the_command_finds_the_symmetry_of_a_run(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    values = answer(capsys, "symmetry", run.path)
    assert values["suggested"] == "D2"
    assert {group["symmetry"] for group in values["groups"] if group["status"] == "supported"} == {"D2", "C2"}
    recorded = read_symmetry(run)
    assert recorded is not None
    assert recorded.suggested == "D2"
    command, *arguments = shlex.split(values["command"])
    assert command == "cryogan"
    chosen = app.parse_args(arguments, print_error=False)[1].arguments
    assert chosen["out"] == Path(f"{run.path}_D2")
    assert chosen["particles"] == Plan.read(run.path).particles
    assert chosen["noise"] == Plan.read(run.path).noise
    assert chosen_settings(None, None, chosen["settings"]).symmetry == "D2"


def test_the_command_keeps_the_settings_of_the_run(run: RunFolder) -> None:
    plan = Plan.read(run.path)
    changed = plan.settings.model_copy(update={"max_shift": 7.0, "refine": True, "keep_gradient": True, "seed": 9})
    words = shlex.split(with_symmetry(run, replace(plan, settings=changed), "C3"))
    assert {"--refine", "--keep-gradient", "--symmetry", "--max-shift"} <= set(words)
    assert words[words.index("--max-shift") + 1] == "7.0"
    assert "--seed" not in words


def test_the_command_takes_half_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator, density = np.random.default_rng(0), phantom(BOX, PIXEL, 1)
    halves = [tmp_path / f"half{half}.mrc" for half in (1, 2)]
    for path in halves:
        noise = 0.05 * density.max() * generator.standard_normal(density.shape)
        write_volume(path, (density + noise).astype(np.float32), PIXEL)
    main(["symmetry", *map(str, halves)])
    text = capsys.readouterr().out
    assert text.startswith("The half maps have the symmetry D2, which was not imposed")
    assert "\nD2  supported: score " in text
    assert "given twice" in refusal(capsys, "symmetry", halves[0], halves[0])
    assert "Give a run's folder" in refusal(capsys, "symmetry")


def test_nothing_is_looked_for_in_a_map_that_is_not_resolved(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_verdict(record_path(run), verdict(None))
    values = answer(capsys, "symmetry", run.path)
    assert values["suggested"] is None
    assert values["groups"] == []
    assert "not: resolved" in str(values["reason"])
    recorded = read_symmetry(run)
    assert recorded is not None
    assert [finding.code for finding in recorded.findings] == ["symmetry-unknown"]


def test_details_that_the_verdict_does_not_support_are_not_compared(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_verdict(record_path(run), verdict(10))
    assert answer(capsys, "symmetry", run.path)["finest_A"] == pytest.approx(BOX * PIXEL / 10)


def test_a_run_with_a_symmetry_is_refused(particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished(tmp_path / "imposed", particles, phantom(BOX, PIXEL, 1))
    assert "was made with --symmetry D2" in refusal(capsys, "symmetry", folder)


def test_a_run_in_c1_ends_with_what_is_known_of_its_symmetry(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = resolve("default", None, TINY["matching"] | {"symmetry": "C1"}).flags()
    out = tmp_path / "run"
    values = answer(
        capsys, "reconstruct", particles / "particles.star", "--noise", particles / "noise.star", "--out", out, *options
    )
    recorded = read_symmetry(RunFolder(out))
    assert recorded is not None
    assert values["symmetry"] == json.loads(json.dumps(recorded.values))
    assert recorded.findings[0].code in [finding["code"] for finding in values["findings"]]
    report = (out / "report.html").read_text()
    assert recorded.findings[0].sentence[:40] in report
    if recorded.suggested:
        assert f"--symmetry {recorded.suggested} " in report
