"""RELION reads what is simulated."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cryogan.models.phantom import phantom
from cryogan.particles import open_stack
from cryogan.simulation import simulate


@pytest.mark.skipif(shutil.which("relion_stack_create") is None, reason="RELION is not installed (Debian: relion)")
def test_relion_3_reads_float32_particles(tmp_path: Path) -> None:
    simulate(phantom(16, 5.0, 0), 5.0, tmp_path / "set", count=12, float32=True)
    command = ["relion_stack_create", "--i", "particles.star", "--o", "again"]
    done = subprocess.run(command, cwd=tmp_path / "set", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    written, read = (open_stack(tmp_path / "set" / f"{name}.mrcs") for name in ("particles", "again"))
    np.testing.assert_array_equal(read, written)
