"""A half map that alone is found wrong is made again; here the verdict is told what to find."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from builders import tiny
from cryogan.particles import read_volume
from cryogan.refinement import finish as finishing
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.plan import Plan
from cryogan.run.reconstruct import reconstruct


@pytest.mark.parametrize("retries", [1, 0])
def test_a_wrong_half_is_made_again_as_often_as_is_wished(
    retries: int, particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, console = tiny(retries=retries, symmetry="D2"), Console(file=io.StringIO(), width=200)
    result = reconstruct(particles / "particles.star", tmp_path / "run", settings, console=console)
    run = RunFolder(result.folder)
    before = [read_volume(run.trained_map(half))[0] for half in HALVES]
    judged = []

    def judge(folder: Path, **_: Any) -> SimpleNamespace:
        judged.append(folder)
        return SimpleNamespace(wrong_half=2)  # always

    monkeypatch.setattr(finishing, "judge_run", judge)
    finished = finishing.finish(result, settings, console)
    after = [read_volume(run.trained_map(half))[0] for half in HALVES]
    assert len(judged) == 1 + retries
    assert np.array_equal(after[0], before[0])
    assert np.array_equal(after[1], before[1]) == (retries == 0)
    assert Plan.read(run.path).tries == (1, 1 + retries)
    assert (finished.result is result) == (retries == 0)
    assert run.is_finished
    assert ("Half 2 is made again" in run.log.read_text()) == (retries == 1)


def test_a_half_of_a_job_is_not_made_again_on_this_machine(
    particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, console = tiny(symmetry="D2"), Console(file=io.StringIO(), width=200)
    result = reconstruct(particles / "particles.star", tmp_path / "run", settings, console=console)
    monkeypatch.setattr(finishing, "judge_run", lambda *_, **__: SimpleNamespace(wrong_half=1))
    assert finishing.finish(result, settings, console, alone=False).result is result
    assert Plan.read(result.folder).tries == (1, 1)
