"""The record of a run."""

import tomllib
from dataclasses import replace
from pathlib import Path

from builders import tiny
from cryogan.run.folder import RunFolder
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan


def test_a_run_of_a_version_that_subtracted_no_plane_goes_on_without(particles: Path, tmp_path: Path) -> None:
    plan = read_inputs(particles / "particles.star", None, None, tiny()).plan
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    record = RunFolder(tmp_path).record
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if not line.startswith("keep_gradient")))
    assert not plan.settings.keep_gradient
    assert Plan.read(tmp_path).settings.keep_gradient


def test_a_plan_that_is_written_again_keeps_the_checksums_of_the_input(particles: Path, tmp_path: Path) -> None:
    plan = read_inputs(particles / "particles.star", None, None, tiny()).plan
    plan.write(tmp_path, {"particles.star": "sha256 0"})
    replace(plan, threads=plan.threads + 1).write(tmp_path)
    record = tomllib.loads(RunFolder(tmp_path).record.read_text())
    assert record["checksums"] == {"particles.star": "sha256 0"}
    assert Plan.read(tmp_path).threads == plan.threads + 1
