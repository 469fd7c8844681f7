"""Settings and run folders that take seconds, for the tests of several modules."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cryogan.config import Settings, resolve
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.inputs import read_inputs
from cryogan.run.reconstruct import prepare

_SHARED: dict[str, object] = {"symmetry": "D2", "max_shift": 4.0, "seed": 3, "threads": 1, "batch_size": 16}
TINY: dict[str, dict[str, object]] = {
    "matching": _SHARED
    | {
        "critic": "matching",
        "orientations": 800,
        "search_steps": 10,
        "search_batch": 50,
        "marching_steps": 1,
        "marching_images": 200,
        "starts": 2,
    },
    "wasserstein": _SHARED
    | {
        "critic": "wasserstein",
        "steps": 30,
        "critic_steps": 2,
        "penalty_every": 2,
        "critic_width": 4,
        "coarse_to_fine": False,
        "starts": 1,
        "critic_warmup": 4,
    },
}

# Columns of an optics table for images of 16 px, as the STAR files of `tests/particles` have them.
TWO_GROUPS: dict[str, Any] = {
    "rlnOpticsGroup": [1, 2],
    "rlnOpticsGroupName": ["a", "b"],
    "rlnImagePixelSize": [2.5] * 2,
    "rlnImageSize": [16] * 2,
    "rlnImageDimensionality": [2] * 2,
    "rlnVoltage": [300.0, 200.0],
    "rlnSphericalAberration": [2.7, 1.4],
    "rlnAmplitudeContrast": [0.1] * 2,
}


def tiny(critic: str = "matching", **changes: object) -> Settings:
    """Settings of a run on the 400 particles of `particles` that takes seconds."""
    values = TINY[critic] | changes
    if "stages" in changes:  # in the place of these
        values = {name: value for name, value in values.items() if name not in ("steps", "coarse_to_fine")}
    return resolve("default", None, values)


def prepared(folder: Path, particles: Path, settings: Settings, *, noise: bool = True) -> Path:
    """Prepare a run's folder, as its halves find it, for the set in the folder `particles`."""
    patches = particles / "noise.star" if noise else None
    prepare(RunFolder(folder), read_inputs(particles / "particles.star", patches, None, settings))
    return folder


def wait_for_records(run: Path, process: subprocess.Popen[str]) -> None:
    """Wait until both halves of a run have made a step."""
    end, log = time.monotonic() + 120, RunFolder(run).progress
    while time.monotonic() < end and process.poll() is None:
        lines = log.read_text().splitlines(True) if log.exists() else []
        if {json.loads(line)["half"] for line in lines if "\n" in line} == set(HALVES):
            return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"no progress: {process.communicate()[1]}")
