"""The report of a run, and its warnings."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from builders import verdict
from cryogan.config import resolve
from cryogan.run import warnings
from cryogan.run.folder import RunFolder
from cryogan.run.inputs import read_inputs
from cryogan.run.judgement import Convergence, judge_convergence, judge_maps, judge_views
from cryogan.run.plan import Plan
from cryogan.run.postprocess import Result
from cryogan.run.report import write_report
from cryogan.run.verdict import record_path, write_verdict
from cryogan.validation import Alignment, FscCurves, fsc_curves

PIXEL, BOX = 4.0, 32


@pytest.fixture
def plan(particles: Path) -> Plan:
    made, *_ = read_inputs(particles / "particles.star", None, None, resolve("default", None, {"symmetry": "D2"}))
    return made


def alignment(correlation: float = 0.95, other: float = 0.5) -> Alignment:
    return Alignment(np.eye(3), np.zeros(3), False, correlation, other)


def curves(noise: float = 0.1) -> FscCurves:
    generator = np.random.default_rng(0)
    signal = generator.standard_normal((BOX,) * 3)
    halves = (signal + noise * generator.standard_normal((BOX,) * 3) for _ in range(2))
    return fsc_curves(*halves, PIXEL)


def ball(radius: float) -> np.ndarray:
    axis = np.arange(BOX) - BOX // 2
    return (np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) < radius).astype(np.float32)


def test_a_good_run_has_no_warning_but_the_hand(plan: Plan) -> None:
    (only,) = judge_maps(plan, alignment(), curves(), ball(8), 9.0)
    assert only.code == "hand-unknown"
    assert only.severity == "note"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"alignment": alignment(0.5, 0.4)}, "halves-disagree"),
        ({"alignment": alignment(0.95, 0.94)}, "halves-mirrored"),
        ({"resolution": 30.0}, "outline-only"),
        ({"mask": ball(15.5)}, "tight-box"),
        ({"curves": curves(noise=2.0)}, "fsc-dip"),
    ],
)
def test_each_doubt_is_said(plan: Plan, change: dict[str, object], code: str) -> None:
    good = {"alignment": alignment(), "curves": curves(), "mask": ball(8), "resolution": 9.0}
    assert code in [finding.code for finding in judge_maps(plan, **(good | change))]


def test_missing_views_are_said() -> None:
    assert not judge_views(np.ones(768))
    coverage = np.ones(768)
    coverage[:100] = 0.1
    (found,) = judge_views(coverage)
    assert found.sentence.startswith("Views are missing (preferred orientation): 13% of the directions")


def course(plan: Plan, change: float, steps: int | None = None) -> list[dict[str, float]]:
    return [{"step": float(step), "map_change": change} for step in range(1, (steps or plan.total_steps) + 1)]


def test_has_it_converged(plan: Plan) -> None:
    before, end = plan.total_steps - 3, plan.total_steps
    nothing, half, most = (np.repeat([1.0, 0.0], [n, 17 - n]) for n in (0, 8, 12))
    half[14:] = np.nan  # of a coarser box

    still = [course(plan, 0.01), course(plan, 0.03)]
    same = judge_convergence(plan, still, {1: nothing, before: half, end: half})
    assert same.reached
    assert re.match(
        r"Converged: over the last 10% .* changed by 2\.0% a step, .* 0\.0 shells over the last", same.sentence
    )
    gaining = judge_convergence(plan, still, {before: half, end: most})
    assert not gaining.reached
    assert re.search(r"Not converged: .* grew by 4\.0 shells .*\. More --marching-steps may help", gaining.sentence)
    moving = judge_convergence(plan, [course(plan, 0.01), course(plan, 0.2)], {end: half})
    assert not moving.reached
    assert "changed by 10.5% a step. More" in moving.sentence
    late = judge_convergence(plan, [course(plan, 0.01), course(plan, 0.01, 100)], {})
    assert not late.reached
    assert f"--max-minutes ended the run after 100 of {end} steps" in late.sentence


@pytest.fixture
def report(plan: Plan, particles: Path, tmp_path: Path) -> Path:
    odd = dataclasses.replace(plan, particles=particles / "<b>odd & name</b>.star")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "volume_over_time.png").write_bytes(b"a picture")
    odd.write(tmp_path)
    moving = warnings.NOT_CONVERGED(part=0.1, change=0.2, trend="", setting="--steps")
    findings = (warnings.HAND_UNKNOWN(), moving)
    convergence = Convergence(False, moving)
    result = Result(tmp_path, 9.0, 10.0, alignment(), curves(), ball(8), convergence, map_findings=findings)
    write_verdict(record_path(RunFolder(tmp_path)), verdict(last=9))
    write_report(RunFolder(tmp_path), odd, result)
    return tmp_path / "report.html"


def test_report_is_one_offline_file_and_escapes_names(report: Path) -> None:
    text = report.read_text()
    assert report.stat().st_size < 8 << 20
    assert not re.search(r"(src|href)=.(?!data:)", text)
    assert "&lt;b&gt;odd &amp; name&lt;/b&gt;.star" in text
    assert "9.00 A (FSC 0.143, mask-corrected; 10.00 A unmasked)" in text
    assert "relion_refine_mpi --auto_refine" in text
    assert "symmetry = D2" in text
    assert "hand is unknown" in text
    assert "Verdict: Resolved to 14.2 A (half maps agree to 9.0 A, held-out particles support it to 14.2 A)." in text
    assert "for a paper&#39;s table and for EMDB" in text
    assert (
        text.count("the map changed by 20.0% a step. More --steps may help.") == 2
    )  # among the warnings, and as an answer


def test_report_opens_with_verdict_picture_and_next_command(report: Path) -> None:
    text = report.read_text()
    places = [text.index(part) for part in ("Verdict: Resolved", "<img", "cryogan refine", "two half maps from zero")]
    assert places == sorted(places)
    assert places[0] < text.index("<h2>")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_chromium_shows_the_report(report: Path, tmp_path: Path) -> None:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*command, "--dump-dom", f"file://{report}"], capture_output=True, text=True, timeout=60)
    assert "<h2>What came out</h2>" in done.stdout
