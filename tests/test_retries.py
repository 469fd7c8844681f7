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


def test_a_wrong_half_is_made_again_as_often_as_is_wished(
    particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, console = tiny(symmetry="D2"), Console(file=io.StringIO(), width=200)
    result = reconstruct(particles / "particles.star", tmp_path / "run", settings, console=console)
    run = RunFolder(result.folder)
    before = [read_volume(run.trained_map(half))[0] for half in HALVES]
    judged = []

    def judge(folder: Path, **_: Any) -> SimpleNamespace:
        judged.append(folder)
        return SimpleNamespace(wrong_half=2)  # always

    monkeypatch.setattr(finishing, "judge_run", judge)
    # Not at all, and not with the processes of this machine instead of a job's.
    assert finishing.finish(result, tiny(symmetry="D2", retries=0), console).result is result
    assert finishing.finish(result, settings, console, alone=False).result is result
    assert len(judged) == 2
    assert Plan.read(run.path).tries == (1, 1)

    assert finishing.finish(result, settings, console).result is not result
    after = [read_volume(run.trained_map(half))[0] for half in HALVES]
    assert len(judged) == 4
    assert np.array_equal(after[0], before[0])
    assert not np.array_equal(after[1], before[1])
    assert Plan.read(run.path).tries == (1, 2)
    assert run.is_finished
    assert "Half 2 is made again" in run.log.read_text()
