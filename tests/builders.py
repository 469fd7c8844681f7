"""Settings and run folders that take seconds, for the tests of several modules."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryogan.config import Settings, resolve
from cryogan.particles import write_volume
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.held_out import HeldOut, HeldOutShells
from cryogan.run.inputs import read_inputs
from cryogan.run.likeness import Likeness
from cryogan.run.outcome import Outcome
from cryogan.run.plan import Plan
from cryogan.run.reconstruct import prepare
from cryogan.run.verdict import Evidence, Verdict
from cryogan.validation import Shape

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


def finished(folder: Path, particles: Path, density: np.ndarray, **changes: object) -> Path:
    """A run on `particles` as it is left at its end, with this map in place of its half maps and its map."""
    run = RunFolder(prepared(folder, particles, resolve("default", None, _SHARED | changes)))
    for path in (*run.half_maps, run.map):
        write_volume(path, density.astype(np.float32), Plan.read(folder).pixel_size)
    run.record_outcome(Outcome.FINISHED)
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


def verdict(last: int | None) -> Verdict:
    """A verdict on half maps of 128 A that agree to 9 A, of which shell 8 to `last` is supported; None: no shell."""
    z = tuple(None if shell < 8 else 5.0 if last is not None and shell <= last else 0.5 for shell in range(16))
    held_out = HeldOut(128.0, 400, 9.0, (HeldOutShells(5, 8, z, z, z, half_z=(z, z)),))
    auc = {"all": 0.6, "frequency": 0.55, "direction": 0.5}
    likeness = Likeness(400, auc, 0.02, *[(1.0,) * 16] * 6, None, 0.95, 0.05, 60.0, 4.0, 500, 20.0)
    return Verdict(Evidence(9.0, 9.0, 0.95, 0.6, 100.0, 1, Shape(0.4, 0.05, 2.0), held_out, likeness))
