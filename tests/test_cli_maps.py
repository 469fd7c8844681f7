"""The commands that read and write maps: their place, axes, grids and masks."""

import gzip
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryogan.cli import main
from cryogan.models.phantom import phantom
from cryogan.particles import MapHeader, read_map, read_volume, write_map, write_volume
from cryogan.validation import resample

BOX, PIXEL_SIZE = 32, 4.0
PLACED = MapHeader(PIXEL_SIZE, (200.0, 100.0, 50.0), (-16, -16, -16))


@pytest.fixture
def volume() -> np.ndarray:
    """A phantom without symmetry: only one rotation and hand of it is right."""
    density = phantom(BOX, PIXEL_SIZE, 3).copy()
    density[:, :, : BOX // 2] *= 0.3
    density[:, : BOX // 2] *= 0.6
    return density


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def permuted(path: Path, volume: np.ndarray) -> None:
    """Write a map with z along columns and x along sections."""
    with mrcfile.new(path) as file:
        file.set_data(np.ascontiguousarray(volume.transpose(2, 1, 0), dtype=np.float32))
        file.voxel_size = PIXEL_SIZE
        file.header.mapc, file.header.mapr, file.header.maps = 3, 2, 1


def test_align_writes_the_references_place(volume: np.ndarray, tmp_path: Path) -> None:
    write_map(tmp_path / "reference.mrc", volume, PLACED)
    write_map(tmp_path / "map.mrc", np.roll(volume, 2, axis=0), MapHeader(PIXEL_SIZE, (1.0, 2.0, 3.0)))
    run("align", tmp_path / "map.mrc", tmp_path / "reference.mrc", "--out", tmp_path / "aligned.mrc")
    aligned, header = read_map(tmp_path / "aligned.mrc")
    assert header == PLACED
    assert np.corrcoef(aligned.ravel(), volume.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("command", [("flip-hand",), ("symmetrise", "C1")])
def test_a_map_stays_in_its_place(command: tuple[str, ...], volume: np.ndarray, tmp_path: Path) -> None:
    write_map(tmp_path / "map.mrc", volume, PLACED)
    verb, *more = command
    run(verb, tmp_path / "map.mrc", *more, "--out", tmp_path / "out.mrc")
    assert read_map(tmp_path / "out.mrc")[1] == PLACED


def test_simulate_keeps_the_place_of_its_volume(volume: np.ndarray, tmp_path: Path) -> None:
    write_map(tmp_path / "map.mrc", volume, PLACED)
    run("simulate", "--volume", tmp_path / "map.mrc", "--particles", 4, "--out", tmp_path / "set")
    assert read_map(tmp_path / "set" / "truth.mrc")[1] == PLACED


def test_a_compressed_map_of_another_grid_is_aligned(volume: np.ndarray, tmp_path: Path) -> None:
    """27 voxels of 5.1 A are 34.4 of 4 A: neither grid divides the other."""
    write_volume(tmp_path / "reference.mrc", volume, PIXEL_SIZE)
    write_volume(tmp_path / "map.mrc", resample(volume, PIXEL_SIZE, 27, 5.1), 5.1)
    (tmp_path / "map.mrc.gz").write_bytes(gzip.compress((tmp_path / "map.mrc").read_bytes()))
    run("align", tmp_path / "map.mrc.gz", tmp_path / "reference.mrc", "--out", tmp_path / "aligned.mrc")
    aligned, pixel_size = read_volume(tmp_path / "aligned.mrc")
    assert (aligned.shape, pixel_size) == (volume.shape, PIXEL_SIZE)
    assert np.corrcoef(aligned.ravel(), volume.ravel())[0, 1] > 0.97


def test_permuted_axes_are_the_same_map(volume: np.ndarray, tmp_path: Path) -> None:
    write_volume(tmp_path / "map.mrc", volume, PIXEL_SIZE)
    permuted(tmp_path / "permuted.mrc", volume)
    for name in ("map", "permuted"):
        run("flip-hand", tmp_path / f"{name}.mrc", "--out", tmp_path / f"{name}_flipped.mrc")
    flipped, other = (read_volume(tmp_path / f"{name}_flipped.mrc")[0] for name in ("map", "permuted"))
    np.testing.assert_array_equal(flipped, other)
    assert np.abs(other - volume).max() > 0.1  # the other hand, not the same one
    run("fsc", tmp_path / "map.mrc", tmp_path / "permuted.mrc", "--out", tmp_path / "fsc")
    rows = (tmp_path / "fsc" / "fsc.csv").read_text().splitlines()[1:]
    np.testing.assert_allclose([float(row.split(",")[4]) for row in rows], 1, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "pixel_size", "message"),
    [
        (lambda ball: ball, PIXEL_SIZE / 2, "has 2.0000 A/px"),
        (lambda ball: ball, 0.0, "the voxel size is 0. Set it"),
        (lambda ball: 0 * ball, PIXEL_SIZE, "The mask is empty"),
        (lambda ball: 1 - ball, PIXEL_SIZE, "it is inverted"),
        (lambda ball: -ball, PIXEL_SIZE, "values go from -1 to 0"),
        (lambda ball: ball[:24, :24, :24], PIXEL_SIZE, "24 voxels a side, the map 32"),
    ],
)
def test_fsc_refuses_what_is_no_mask(
    mask: object,
    pixel_size: float,
    message: str,
    volume: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(mask)
    z, y, x = np.indices(volume.shape) - BOX // 2
    write_volume(tmp_path / "map.mrc", volume, PIXEL_SIZE)
    write_volume(tmp_path / "mask.mrc", mask((x**2 + y**2 + z**2 < 100).astype(np.float32)), pixel_size)
    shutil.copy(tmp_path / "map.mrc", tmp_path / "other.mrc")
    maps = (tmp_path / "map.mrc", tmp_path / "other.mrc")
    assert message in refusal(capsys, "fsc", *maps, "--mask", tmp_path / "mask.mrc", "--out", tmp_path / "fsc")
    assert not (tmp_path / "fsc").exists()


def test_fsc_of_a_map_with_itself_is_refused(
    volume: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(tmp_path / "half1.mrc", volume, PIXEL_SIZE)
    (tmp_path / "half2.mrc").symlink_to("half1.mrc")
    said = refusal(capsys, "fsc", tmp_path / "half1.mrc", tmp_path / "half2.mrc", "--out", tmp_path / "fsc")
    assert "half1.mrc is given twice. Give the two half maps." in said
    assert not (tmp_path / "fsc").exists()
