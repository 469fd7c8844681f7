"""What `cryogan check` measures in the files' pixels."""

import re
from pathlib import Path

import numpy as np

from cryogan.checking import check
from cryogan.config import Settings
from cryogan.models.phantom import phantom
from cryogan.particles import open_stack
from cryogan.simulation import simulate
from cryogan.simulation.disturbances import Disturbances


def test_sums_of_half_precision_do_not_overflow(tmp_path: Path) -> None:
    """Images of mean 3,000 and s.d. 100, of which one has a hot pixel; a float16 holds no number over 65,504."""
    simulate(phantom(32, 5.0, 1), 5.0, tmp_path / "set", count=60, snr=0.2, micrographs=10)
    path = tmp_path / "set" / "particles.mrcs"
    stack = open_stack(path)
    assert stack.dtype == np.float16
    images = 3000 + 100 * stack.astype(np.float32)
    images[7, 3, 4] = 60_000
    np.memmap(path, stack.dtype, "r+", 1024, stack.shape)[:] = images
    facts = check(path.with_name("particles.star"), Settings(box=32, batch_size=8)).facts
    numbers = re.match(r"mean ([\d.e+]+), s\.d\. ([\d.e+]+) ", facts["background"])
    assert numbers is not None
    mean, deviation = map(float, numbers.groups())
    assert abs(mean - 3000) < 20
    assert abs(deviation - 100) < 60  # the hot pixel is in the mean of 60
    assert facts["hot pixels"].startswith("1 of 60 images")


def checked(folder: Path, keep_gradient: bool, ice_gradient: float = 0.0) -> tuple[float, str, set[str]]:
    """Return the ramp that `check` finds, the end of its sentence, and the codes of all findings."""
    if not folder.exists():
        simulate(
            phantom(32, 5.0, 1),
            5.0,
            folder,
            count=300,
            snr=0.05,
            noise="white",
            micrographs=10,
            disturbances=Disturbances(ice_gradient=ice_gradient),
        )
    settings = Settings(box=32, batch_size=8, keep_gradient=keep_gradient)
    report = check(folder / "particles.star", settings)
    ramp, rest = report.facts["gradient"].split(" ", 1)
    return float(ramp), rest.split("; ")[1], {finding.code for finding in report.findings}


def test_the_gradient_of_the_background_is_said(tmp_path: Path) -> None:
    ramp, fate, codes = checked(tmp_path / "flat", True)
    assert ramp < 0.05
    assert fate == "it is kept"
    assert "gradient-kept" not in codes
    ramp, fate, codes = checked(tmp_path / "ramp", False, ice_gradient=0.6)
    assert abs(ramp - 0.6) < 0.05
    assert fate == "it is subtracted"
    assert "gradient-kept" not in codes
    assert "gradient-kept" in checked(tmp_path / "ramp", True)[2]
