"""A checkout that is on the path but not installed, as on clusters and in containers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
FEW = (
    "--orientations=100",
    "--search-steps=1",
    "--search-batch=20",
    "--starts=1",
    "--marching-steps=1",
    "--marching-images=64",
)
HIDE_METADATA = """
import importlib.metadata, runpy, sys
real = importlib.metadata.distribution

def without_cryogan(name):
    if name == "cryogan":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)

importlib.metadata.distribution = without_cryogan
sys.argv = ["cryogan", *sys.argv[1:]]
runpy.run_module("cryogan.cli", run_name="__main__")
"""


@pytest.mark.parametrize("verb", ["reconstruct", "doctor"])
def test_it_runs_without_package_metadata(verb: str, particles: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["reconstruct", particles / "particles.star", *FEW, "--out", run] if verb == "reconstruct" else [verb]
    done = subprocess.run(
        [sys.executable, "-c", HIDE_METADATA, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if verb == "reconstruct":
        assert (run / "map.mrc").exists()
