"""The report of a run, and its warnings."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cryogan.config import resolve
from cryogan.run.plan import Plan, make_plan
from cryogan.run.report import Convergence, judge_convergence, warn, warn_of_views, write_report
from cryogan.validation import Alignment, FscCurves, fsc_curves

PIXEL, BOX = 4.0, 32


@pytest.fixture
def plan(particles: Path) -> Plan:
    made, _, _ = make_plan(particles / "particles.star", None, None, resolve("default", None, {"symmetry": "D2"}))
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
    (only,) = warn(plan, alignment(), curves(), ball(8), 9.0)
    assert "hand is unknown" in only


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"alignment": alignment(0.5, 0.4)}, "The half maps disagree"),
        ({"alignment": alignment(0.95, 0.94)}, "almost as well mirrored"),
        ({"resolution": 30.0}, "agree only to 30 A"),
        ({"mask": ball(15.5)}, "box may be too tight"),
        ({"curves": curves(noise=2.0)}, "dips at low frequencies"),
    ],
)
def test_each_doubt_is_said(plan: Plan, change: dict[str, object], word: str) -> None:
    good = {"alignment": alignment(), "curves": curves(), "mask": ball(8), "resolution": 9.0}
    assert any(word in text for text in warn(plan, **(good | change)))


def test_missing_views_are_said() -> None:
    assert not warn_of_views(np.ones(768))
    coverage = np.ones(768)
    coverage[:100] = 0.1
    (said,) = warn_of_views(coverage)
    assert said.startswith("Views are missing: 13% of all directions")


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
    assert re.search(r"Not converged: .* grew by 4\.0 shells .*; more --marching-steps may help", gaining.sentence)
    moving = judge_convergence(plan, [course(plan, 0.01), course(plan, 0.2)], {end: half})
    assert not moving.reached
    assert "changed by 10.5% a step; more" in moving.sentence
    late = judge_convergence(plan, [course(plan, 0.01), course(plan, 0.01, 100)], {})
    assert not late.reached
    assert f"--max-minutes ended the run after 100 of {end} steps" in late.sentence


@pytest.fixture
def report(plan: Plan, particles: Path, tmp_path: Path) -> Path:
    odd = dataclasses.replace(plan, particles=particles / "<b>odd & name</b>.star")
    (tmp_path / "figures").mkdir()
    odd.write(tmp_path)
    moving = Convergence(False, "Not converged: it moves.")
    write_report(tmp_path, odd, alignment(), curves(), ball(8), (9.0, 10.0), moving)
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
    assert text.count("Not converged: it moves.") == 2  # among the warnings, and as an answer


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_chromium_shows_the_report(report: Path, tmp_path: Path) -> None:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*command, "--dump-dom", f"file://{report}"], capture_output=True, text=True, timeout=60)
    assert "<h2>What came out</h2>" in done.stdout
