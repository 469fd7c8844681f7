"""Collections that the real programs write: RELION's extraction that is run again, and cryosparc-tools' datasets."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cryosparc.dataset import Dataset

from cryogan.config import resolve
from cryogan.live.folder import LiveFolder
from cryogan.live.ledger import Ledger
from cryogan.live.source import Source
from cryogan.models.phantom import phantom
from cryogan.particles import read_particles, read_star, write_cs_particles, write_star
from cryogan.simulation import simulate

PREPROCESS = shutil.which("relion_preprocess")
MICROGRAPHS, EACH = 6, 10
SETTINGS = resolve("default", None, {"box": 24})


def take_up(source: Source, ledger: Ledger) -> int:
    """Look twice, so that all stands still; the number of particles that were taken up."""
    taken = 0
    for _ in range(2):
        look = source.look()
        ledger.follow_names(look)
        while new := ledger.new(look):
            taken += ledger.take_up(source, new, 0.0).taken
    return taken


def following(path: Path, out: Path) -> tuple[Source, Ledger]:
    folder = LiveFolder(out)
    folder.make()
    return Source(path, folder.copies), Ledger(folder, SETTINGS)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with micrographs and a file of coordinates for each."""
    made, project = tmp_path / "made", tmp_path / "project"
    options = {"snr": 10.0, "max_shift": 4.0, "micrographs": MICROGRAPHS, "write_micrographs": True}
    simulate(phantom(32, 4.0, 1), 4.0, made, count=MICROGRAPHS * EACH, float32=True, seed=1, **options)
    (project / "Micrographs").mkdir(parents=True)
    for micrograph in made.glob("micrograph_*.mrc"):
        micrograph.rename(project / "Micrographs" / micrograph.name)
    table = read_star(made / "particles.star")["particles"]
    for number in range(MICROGRAPHS):
        rows = [row for row, name in enumerate(table.texts("rlnMicrographName")) if f"_{number:04d}" in name]
        columns = {
            f"rlnCoordinate{axis}": [float(table.floats(f"rlnCoordinate{axis}")[row]) for row in rows] for axis in "XY"
        }
        write_star(project / "Micrographs" / f"micrograph_{number:04d}_pick.star", {"": columns})
    shutil.copy(made / "micrographs.star", project / "all.star")
    return project


def extract(project: Path, micrographs: int) -> Path:
    """Extract the particles of the first micrographs, as a scheme runs the same job again when there are more."""
    lines = (project / "all.star").read_text().splitlines(keepends=True)
    rows = [line for line in lines if line.startswith("micrograph_")]
    text = "".join(line for line in lines if line not in rows[micrographs:])
    (project / "micrographs_ctf.star").write_text(
        re.sub(r"^(micrograph_)", r"Micrographs/\1", text, flags=re.MULTILINE)
    )
    star = project / "Extract" / "job005" / "particles.star"
    star.parent.mkdir(parents=True, exist_ok=True)
    command = [str(PREPROCESS), "--i", "micrographs_ctf.star", "--coord_dir", "./", "--coord_suffix", "_pick.star"]
    command += ["--part_star", "Extract/job005/particles.star", "--part_dir", "Extract/job005/", "--extract"]
    command += ["--extract_size", "32", "--norm", "--bg_radius", "12", "--only_do_unfinished"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    return star


@pytest.mark.skipif(PREPROCESS is None, reason="RELION is not installed")
def test_an_extraction_of_relion_that_is_run_again(project: Path, tmp_path: Path) -> None:
    star = extract(project, 2)
    source, ledger = following(star, tmp_path / "live")
    assert take_up(source, ledger) == 2 * EACH
    for micrographs in (3, 6):
        before = len(ledger)
        assert extract(project, micrographs) == star
        assert take_up(source, ledger) == micrographs * EACH - before
    assert take_up(source, ledger) == 0
    assert sorted(ledger.taken) == sorted(read_particles(star).image_names())
    assert not ledger.withdrawn
    units = {name.partition("@")[2] for name in ledger.taken}
    assert len(units) == MICROGRAPHS


def test_datasets_that_cryosparc_tools_write(particles: Path, tmp_path: Path) -> None:
    export = tmp_path / "exports"
    export.mkdir()
    table = read_particles(particles / "particles.star")
    whole = tmp_path / "whole.cs"
    zeros, ones = np.zeros((len(table), 3)), np.ones(len(table), dtype=np.int64)
    write_cs_particles(whole, table, zeros, zeros[:, :2], ones, source=table.source, dark=False)
    dataset = Dataset.load(whole)
    source, ledger = following(export, tmp_path / "live")
    assert source.look().away is False
    dataset.slice(0, 150).save(export / "group1.cs")
    assert take_up(source, ledger) == 150
    dataset.slice(150, 400).save(export / "group2.cs")
    assert take_up(source, ledger) == 250
    dataset.slice(0, 160).save(export / "group1.cs")  # written again, with particles that the other has, too
    assert take_up(source, ledger) == 0
    assert len(ledger) == 400
