"""The processes of a run: signals, and processes that are killed."""

import os
import signal
from pathlib import Path

import pytest

from builders import wait_for_records
from processes import cryogan


def test_sigterm_to_the_parent_alone_is_an_interruption(particles: Path, tmp_path: Path) -> None:
    process = cryogan("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--max-shift", 4)
    wait_for_records(tmp_path / "out", process)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert all((tmp_path / "out" / f"half{half}.pt").exists() for half in (1, 2))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes of a run are found in /proc")
def test_halves_that_are_killed_are_told_of(particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = cryogan("reconstruct", particles / "particles.star", "--out", out, "--max-shift", 4)
    wait_for_records(out, process)
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "The process of half 1 was killed, as the system does when memory runs out" in err
    assert f"cryogan reconstruct --resume {out}" in err


def test_halves_end_when_their_parent_is_killed(particles: Path, tmp_path: Path) -> None:
    process = cryogan("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--max-shift", 4)
    wait_for_records(tmp_path / "out", process)
    process.kill()
    process.communicate(timeout=60)  # until nobody holds its pipes: the halves have ended, too
    assert all((tmp_path / "out" / f"half{half}.pt").exists() for half in (1, 2))
