"""A user's mask that bounds the map: what is refused, what becomes of it, and runs with it."""

import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from builders import TINY, tiny, wait_for_records
from cryogan.config import Settings
from cryogan.errors import InputError
from cryogan.particles import read_volume, write_volume
from cryogan.refinement.half_set import HalfSet
from cryogan.run.folder import RunFolder
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan
from cryogan.run.reconstruct import reconstruct, resume
from cryogan.run.volume_mask import read_volume_mask
from cryogan.validation import soft_mask
from processes import cryogan

BOX, PIXEL = 32, 4.0
WIDTH = BOX * PIXEL
axis = np.arange(BOX) - BOX // 2
Z, Y, X = np.meshgrid(axis, axis, axis, indexing="ij")
BALL = (np.sqrt(X**2 + Y**2 + Z**2) < 10).astype(float)
BRICK = ((np.abs(X) < 10) & (np.abs(Y) < 7) & (np.abs(Z) < 5)).astype(float)  # D2, and no more


def written(path: Path, mask: np.ndarray, pixel_size: float = PIXEL) -> Path:
    write_volume(path, mask, pixel_size)
    return path


@pytest.mark.parametrize(
    ("mask", "pixel_size", "message"),
    [
        (0 * BALL, PIXEL, "empty"),
        (BALL, 3.0, "the box of the particles has 128.0 A"),
        (5 * BALL, PIXEL, "Scale it"),
        (1 - BALL, PIXEL, "inverted"),
        (np.ones_like(BALL), PIXEL, "beyond 64 A from the centre"),
        (np.roll(BALL, 5, axis=0), PIXEL, "average over D2 only to 0.[78]"),
    ],
)
def test_refused(tmp_path: Path, mask: np.ndarray, pixel_size: float, message: str) -> None:
    path = written(tmp_path / "mask.mrc", mask, pixel_size)
    with pytest.raises(InputError, match=f"mask.mrc: .*{message}"):
        read_volume_mask(path, BOX, WIDTH, "D2")


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="NaN"):
        path = written(tmp_path / "mask.mrc", np.where(BALL > 0, np.nan, 0))
    with pytest.raises(InputError, match="NaN or infinite"):
        read_volume_mask(path, BOX, WIDTH, "D2")


def test_a_mask_that_is_not_there_is_refused_before_anything_is_written(particles: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.mrc: cannot be read"):
        reconstruct(particles / "particles.star", tmp_path / "run", tiny(mask=tmp_path / "none.mrc"))
    assert not (tmp_path / "run").exists()


def test_is_brought_to_a_box_with_its_centre_and_its_volume(tmp_path: Path) -> None:
    path = written(tmp_path / "mask.mrc", BRICK)
    same, coarse = (read_volume_mask(path, box, WIDTH, "D2").values for box in (BOX, BOX // 2))
    np.testing.assert_array_equal(same, BRICK)
    np.testing.assert_array_equal(coarse, BRICK[::2, ::2, ::2])  # its voxels are every second one
    fine = read_volume_mask(path, 2 * BOX, WIDTH, "D2").values
    np.testing.assert_allclose(fine[::2, ::2, ::2], BRICK)
    assert fine.mean() == pytest.approx(BRICK.mean(), rel=0.05)
    assert set(np.unique(fine)) == {0, 0.125, 0.25, 0.5, 1}  # between the voxels, and no ringing


def test_a_little_in_the_corners_is_cut_off(tmp_path: Path) -> None:
    mask = BRICK.copy()
    mask[2, 2, 2] = 1
    found = read_volume_mask(written(tmp_path / "mask.mrc", mask), BOX, WIDTH, "C1")
    assert found.cut == pytest.approx(1 / mask.sum())
    np.testing.assert_array_equal(found.values, BRICK)


def test_nearly_symmetric_is_averaged_and_said(tmp_path: Path) -> None:
    lump = BRICK.copy()
    lump[16:19, 16:19, 26:28] = 1  # on the +x end
    found = read_volume_mask(written(tmp_path / "mask.mrc", lump), BOX, WIDTH, "D2")
    assert not found.was_symmetric
    assert 0.95 < found.correlation < 0.999
    assert found.values[18, 18, 26] == pytest.approx(0.25)
    assert read_volume_mask(written(tmp_path / "brick.mrc", BRICK), BOX, WIDTH, "D2").was_symmetric


def masked(particles: Path, tmp_path: Path, critic: str, **changes: object) -> Settings:
    """Settings of a short run within a mask of the molecule."""
    truth, pixel_size = read_volume(particles / "truth.mrc")
    mask = written(tmp_path / "mask.mrc", soft_mask(truth, pixel_size, 12.0, 1.0, 3.0))
    return tiny(critic, mask=mask, **changes)


@pytest.mark.parametrize("critic", list(TINY))
def test_maps_are_zero_outside_and_the_mask_is_kept(particles: Path, tmp_path: Path, critic: str) -> None:
    chosen, run = masked(particles, tmp_path, critic), RunFolder(tmp_path / "run")
    inputs = read_inputs(particles / "particles.star", None, None, chosen)
    assert [found.code for found in inputs.findings].count("given-mask") == 1
    reconstruct(particles / "particles.star", run.path, chosen, console=Console(file=io.StringIO()))
    given, _ = read_volume(tmp_path / "mask.mrc")
    (tmp_path / "mask.mrc").unlink()  # the run has its own
    np.testing.assert_array_equal(read_volume(run.given_mask)[0], given)
    averaged = read_volume_mask(run.given_mask, BOX, WIDTH, "D2").values
    for half in (1, 2):
        density, _ = read_volume(run.final(half))
        assert not density[averaged == 0].any()
        assert density[averaged == 1].all()
    assert "mask.mrc" in run.report.read_text()
    moved = RunFolder(run.path.rename(tmp_path / "moved"))
    assert Plan.read(moved.path).mask == moved.given_mask
    half_set = HalfSet(Plan.read(moved.path), moved.particles, 1)
    np.testing.assert_allclose(half_set.volume.mask.numpy(), averaged)


def test_the_map_is_in_the_frame_of_the_mask(particles: Path, tmp_path: Path) -> None:
    chosen = masked(particles, tmp_path, "matching", search_steps=40, search_batch=200, orientations=1500, starts=1)
    run = RunFolder(tmp_path / "run")
    reconstruct(particles / "particles.star", run.path, chosen, console=Console(file=io.StringIO()))
    truth, (density, _) = read_volume(particles / "truth.mrc")[0], read_volume(run.final(1))
    assert np.corrcoef(truth.ravel(), density.ravel())[0, 1] > 0.8  # without an alignment


def test_resumed_as_if_nothing_had_happened(particles: Path, tmp_path: Path) -> None:
    longer = {"search_steps": 250}  # so that it is not at its end before it can be stopped
    settings = masked(particles, tmp_path, "matching", **longer)
    whole = tmp_path / "whole"
    reconstruct(particles / "particles.star", whole, settings, console=Console(file=io.StringIO()))
    options = [f"--{name.replace('_', '-')}={value}" for name, value in (TINY["matching"] | longer).items()]
    out = tmp_path / "out"
    command = ["reconstruct", str(particles / "particles.star"), "--out", str(out), *options]
    process = cryogan(*command, "--mask", str(settings.mask))
    wait_for_records(out, process)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert not RunFolder(out).is_finished
    (tmp_path / "mask.mrc").unlink()
    resume(out, console=Console(file=io.StringIO()))
    for half in (1, 2):
        first, second = (read_volume(RunFolder(folder).final(half))[0] for folder in (whole, out))
        np.testing.assert_array_equal(first, second)
