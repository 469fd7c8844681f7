"""RELION itself reads what is written here."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryogan.particles import open_stack, read_particles, write_particles, write_stack, write_volume

needs_relion = pytest.mark.skipif(
    shutil.which("relion_stack_create") is None, reason="RELION is not installed (Debian package relion)"
)


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_relion
@pytest.mark.parametrize("source", ["star", "cs"])
def test_relion_makes_the_same_stack_of_written_particles(
    make_star: Callable[..., Path], make_cs: Callable[..., Path], tmp_path: Path, source: str
) -> None:
    table = read_particles(make_star() if source == "star" else make_cs()).select([4, 1, 3])
    write_particles(tmp_path / "written.star", table, np.array([1, 2, 1]))
    run(tmp_path, "relion_stack_create", "--i", "written.star", "--o", "again")
    original = open_stack(table.stacks[0])[table.image_index]
    np.testing.assert_array_equal(open_stack(tmp_path / "again.mrcs"), original)
    back = read_particles(tmp_path / "again.star")
    assert back.pixel_size == table.pixel_size
    for key in table.ctf:
        np.testing.assert_allclose(back.ctf[key], table.ctf[key], atol=1e-5)


@needs_relion
def test_relion_finds_the_images_from_the_folder_that_a_user_stands_in(
    make_star: Callable[..., Path], tmp_path: Path
) -> None:
    table = read_particles(make_star())
    (tmp_path / "run1").mkdir()
    write_particles(tmp_path / "run1" / "particles.star", table)
    run(tmp_path, "relion_stack_create", "--i", "run1/particles.star", "--o", "again")
    np.testing.assert_array_equal(open_stack(tmp_path / "again.mrcs"), open_stack(table.stacks[0]))


@needs_relion
def test_relion_reads_volume_and_stack_statistics(tmp_path: Path) -> None:
    data = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32) + 3
    write_volume(tmp_path / "v.mrc", data, 1.5)
    write_stack(tmp_path / "s.mrcs", data, 1.5)
    volume = run(tmp_path, "relion_image_handler", "--i", "v.mrc", "--stats")
    assert "v.mrc : (x,y,z,n)= 8 x 8 x 8 x 1 " in volume
    stack = run(tmp_path, "relion_image_handler", "--i", "s.mrcs", "--stats")
    assert "000008@s.mrcs : (x,y,z,n)= 8 x 8 x 1 x 1 " in stack
    assert "angpix = 1.5\n" in volume
    assert "angpix = 1.5\n" in stack
