"""A small project of RELION, for the tests of the jobs that run in one."""

import re
from pathlib import Path

from builders import TINY
from cryogan.models.phantom import phantom
from cryogan.simulation import simulate

BOX, PIXEL, WORKING_BOX = 48, 3.0, 32
# As labels of a form: seconds on one core.
LABELS = {name: str(value) for name, value in TINY["matching"].items() if name != "critic"} | {
    "box": str(WORKING_BOX),
    "starts": "1",
}


def simulated(folder: Path, **settings: object) -> Path:
    """Simulate 120 particles of the D2 phantom, in float32 unless `settings` of `simulate` say otherwise."""
    simulate(
        phantom(BOX, PIXEL, 1),
        PIXEL,
        folder,
        count=120,
        snr=10.0,
        max_shift=4.0,
        micrographs=10,
        seed=1,
        **{"float32": True} | settings,
    )
    return folder


def make_relion_project(project: Path) -> Path:
    """Make Extract/job001 in it: 120 particles of the D2 phantom, and the micrographs that they are in."""
    job = project / "Extract" / "job001"
    simulated(job, write_micrographs=True)
    for file in (job / "particles.star", job / "micrographs.star"):
        text = file.read_text().replace("@particles.mrcs", f"@{job.relative_to(project)}/particles.mrcs")
        file.write_text(re.sub(r"\b(micrograph_\d+\.mrc)", rf"{job.relative_to(project)}/\1", text))
    return project
