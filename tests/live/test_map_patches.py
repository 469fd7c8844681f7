"""Background patches of a map."""

from pathlib import Path

import numpy as np
import pytest

from cryogan.config import resolve
from cryogan.live import map_patches
from cryogan.live.folder import LiveFolder
from cryogan.particles import read_particles
from cryogan.particles.preprocess import ImageReader

SETTINGS = resolve("default", None, {"box": 24})


def test_patches_are_those_of_a_run_at_the_working_box(particles: Path, tmp_path: Path) -> None:
    folder = LiveFolder(tmp_path)
    folder.make()
    star = map_patches.write_patches(folder, 3, particles / "noise.star", None, SETTINGS)
    assert star == folder.map_noise(3)
    ours, theirs = (read_particles(file, need_ctf=False) for file in (star, particles / "noise.star"))
    assert ours.micrographs.tolist() == theirs.micrographs.tolist()
    assert (ours.box, ours.pixel_size) == (24, pytest.approx(theirs.pixel_size * theirs.box / 24))
    radius, rows = 0.875 * 32 * 4.0 / 2, np.arange(len(theirs))
    wanted, _ = ImageReader(theirs, 24, radius).read(rows)
    found, _ = ImageReader(ours, 24, radius, keep_gradient=True).read(rows)
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_they_are_at_most_so_many(particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = LiveFolder(tmp_path)
    folder.make()
    monkeypatch.setattr(map_patches, "MOST", 50)
    table = read_particles(
        map_patches.write_patches(folder, 1, particles / "noise.star", None, SETTINGS), need_ctf=False
    )
    assert len(table) == 50
    assert len(set(table.micrographs.tolist())) == 20  # of all micrographs
