"""The folder of a run: its names, its records, and how the run ended."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builders import prepared, tiny
from cryogan.errors import InputError
from cryogan.run.folder import HALVES, Outcome, RunFolder
from cryogan.run.inputs import read_inputs
from cryogan.run.reconstruct import prepare


def test_a_record_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    lines = [json.dumps({"half": 1, "step": step, "critic_gap": 1.0}) for step in (1, 2, 3)]
    # A disk that was full for a while, and a run that was killed.
    (tmp_path / "progress.jsonl").write_text(f"{lines[0]}\n{lines[1][:20]}{lines[1]}\n{lines[2]}\n{lines[0][:9]}")
    assert [record["step"] for record in RunFolder(tmp_path).records(1)] == [1, 3]


def test_a_look_at_a_folder_loads_no_libraries(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from cryogan.run.folder import RunFolder; "
        f"RunFolder(Path({str(tmp_path)!r})).state(); "
        "print({'torch', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_how_a_run_ended_is_recorded(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.snapshots.mkdir()
    folder.record_outcome(Outcome.RUNNING)
    assert folder.state() == "stopped"  # nothing works in it
    with folder.working():
        assert folder.state() == "running"
        folder.request_stop()
        assert folder.state() == "stopping"
        folder.record_outcome(Outcome.FINISHED, 1)
        folder.record_outcome(Outcome.OUT_OF_TIME, 2)
        assert not folder.is_trained  # without maps
        for half in HALVES:
            folder.final(half).touch()
        assert folder.is_trained
        assert folder.state() == "comparing"
        folder.record_outcome(Outcome.OUT_OF_TIME)
    assert folder.state() == "finished"
    folder.record_outcome(Outcome.RUNNING)  # resumed
    assert folder.outcome(1) is Outcome.RUNNING
    assert not folder.is_trained


def test_folders_of_version_0_1_have_no_record_of_the_outcome(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.snapshots.mkdir()
    folder.record.write_text("[plan]\nstages = [{ box = 16, steps = 5 }, { box = 16, steps = 4 }]\n")
    assert folder.state() == "stopped"
    folder.snapshot(1, 9).touch()
    assert folder.outcome(1) is Outcome.FINISHED
    assert folder.outcome(2) is Outcome.STOPPED
    folder.snapshot(2, 9).touch()
    assert folder.is_trained
    assert folder.trained_map(2) == folder.snapshot(2, 9)
    assert folder.state() == "stopped"
    folder.fsc_csv.touch()
    assert folder.state() == "finished"


@pytest.mark.parametrize("content", ["", "not JSON", '{"run": "nonsense"}'])
def test_a_spoilt_record_of_the_outcome_means_that_it_has_not_ended(content: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.outcome_record.write_text(content)
    assert folder.outcome() is Outcome.RUNNING
    assert folder.state() == "stopped"


def test_a_start_that_was_interrupted_is_begun_anew(particles: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")

    def interrupted() -> None:
        with folder.preparing():
            folder.particles.write_text("half a file")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not folder.is_run
    prepare(folder, read_inputs(particles / "particles.star", None, None, tiny()))
    assert folder.is_run
    assert not folder.unfinished_start.exists()
    with pytest.raises(InputError, match="is not an empty folder"):
        folder.require_new()


def test_a_folder_of_somebody_else_is_not_taken_for_a_start(particles: Path, tmp_path: Path) -> None:
    (tmp_path / "particles.star").write_text("theirs")
    with pytest.raises(InputError, match="is not an empty folder"):
        prepared(tmp_path, particles, tiny())
    assert (tmp_path / "particles.star").read_text() == "theirs"


def test_the_readme_names_files_that_the_folder_names(particles: Path, tmp_path: Path) -> None:
    run = prepared(tmp_path / "run", particles, tiny())
    text = RunFolder(run).readme.read_text()
    for name in ("outcome.json", "half1_map_unfil.mrc, half2_map_unfil.mrc", "half1.pt, half2.pt", "report.html"):
        assert f"  {name}\n" in text
