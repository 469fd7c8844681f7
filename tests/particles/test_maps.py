import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.particles import MapHeader, read_map, read_volume, write_map, write_volume

BOX, PIXEL_SIZE = 8, 1.274


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((BOX, BOX, BOX)).astype(np.float32)


def write(path: Path, values: np.ndarray, **header: object) -> Path:
    """A map by mrcfile, with other values in fields of its header."""
    with mrcfile.new(path) as file:
        file.set_data(values)
        file.voxel_size = PIXEL_SIZE
        for name, value in header.items():
            file.header[name] = value
    return path


def test_round_trip(tmp_path: Path, volume: np.ndarray) -> None:
    write_volume(tmp_path / "v.mrc", volume, PIXEL_SIZE)
    back, pixel_size = read_volume(tmp_path / "v.mrc")
    np.testing.assert_array_equal(back, volume)
    assert pixel_size == pytest.approx(PIXEL_SIZE, rel=1e-6)
    assert mrcfile.validate(tmp_path / "v.mrc")
    with mrcfile.open(tmp_path / "v.mrc") as file:
        assert file.header.ispg == 1
        assert file.header.origin.tolist() == (0, 0, 0)


def test_origin_and_first_voxel_are_kept(tmp_path: Path, volume: np.ndarray) -> None:
    header = MapHeader(PIXEL_SIZE, (200.0, 100.0, 50.0), (-16, 3, -4))
    write_map(tmp_path / "v.mrc", volume, header)
    _, back = read_map(tmp_path / "v.mrc")
    assert (back.origin, back.start) == (header.origin, header.start)
    with mrcfile.open(tmp_path / "v.mrc") as file:
        assert file.header.origin.tolist() == (200, 100, 50)
        assert file.nstart.tolist() == (-16, 3, -4)


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (1, 3, 2), (2, 3, 1), (3, 1, 2)])
def test_axes_in_any_order_are_brought_to_x_y_z(tmp_path: Path, volume: np.ndarray, axes: tuple[int, int, int]) -> None:
    """axes: which of x, y, z are columns, rows and sections; the array has sections first, `volume` has z first."""
    of_array = {1: 2, 2: 1, 3: 0}
    stored = np.ascontiguousarray(volume.transpose([of_array[axis] for axis in axes[::-1]]))
    start = dict(zip(("nxstart", "nystart", "nzstart"), (10 * axis for axis in axes), strict=True))
    path = write(tmp_path / "v.mrc", stored, **dict(zip(("mapc", "mapr", "maps"), axes, strict=True)), **start)
    back, header = read_map(path)
    np.testing.assert_array_equal(back, volume)
    assert header.start == (10, 20, 30)


def test_axes_that_are_none(tmp_path: Path, volume: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"v\.mrc: columns, rows and sections are the axes \(1, 1, 3\)"):
        read_map(write(tmp_path / "v.mrc", volume, mapr=1))
    back, _ = read_map(write(tmp_path / "w.mrc", volume, mapc=0, mapr=0, maps=0))  # as old programs leave them
    np.testing.assert_array_equal(back, volume)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_compressed_maps_are_read(tmp_path: Path, volume: np.ndarray, compress: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / "v.map", volume)
    path.write_bytes(compress(path.read_bytes()))
    back, pixel_size = read_volume(path)
    np.testing.assert_array_equal(back, volume)
    assert pixel_size == pytest.approx(PIXEL_SIZE, rel=1e-6)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"v\.map: cannot be decompressed .*\. Copy it again"):
        read_volume(path)


def test_other_compressions_are_named(tmp_path: Path, volume: np.ndarray) -> None:
    path = write(tmp_path / "v.map.xz", volume)
    path.write_bytes(lzma.compress(path.read_bytes()))
    with pytest.raises(InputError, match=r"is compressed\. Decompress it \(unxz -k .*v\.map\.xz\)"):
        read_volume(path)


def test_volumes_that_cannot_be_used(tmp_path: Path, volume: np.ndarray) -> None:
    write_volume(tmp_path / "v.mrc", np.zeros((4, 4, 6)), 1.0)
    with pytest.raises(InputError, match=r"the box is 6 x 4 x 4 voxels\. Give a cubic volume"):
        read_volume(tmp_path / "v.mrc")
    write_volume(tmp_path / "w.mrc", np.zeros((4, 4, 4)), 0.0)
    with pytest.raises(InputError, match=r"w\.mrc: the voxel size is 0\. Set it.*--force_header_angpix"):
        read_volume(tmp_path / "w.mrc")
    with pytest.raises(InputError, match=r"x\.mrc: the voxels are 1 x 1 x 2 A\. Resample"):
        read_volume(write(tmp_path / "x.mrc", volume, cella=np.array((8, 8, 16), dtype="f4,f4,f4")))
    with pytest.raises(InputError, match=r"y\.mrc: the cell's angles are 90, 90, 120 degrees"):
        read_volume(write(tmp_path / "y.mrc", volume, cellb=np.array((90, 90, 120), dtype="f4,f4,f4")))
    volume[0, 0, :3] = np.nan, np.inf, -np.inf
    with pytest.warns(RuntimeWarning, match="NaN"):  # mrcfile's
        path = write(tmp_path / "z.mrc", volume)
    with pytest.raises(InputError, match=r"z\.mrc: 3 of 512 voxels are NaN or infinite"):
        read_volume(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_volume(tmp_path / "none.mrc")


def test_a_volume_has_three_axes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="three axes"):
        write_volume(tmp_path / "v.mrc", np.ones((4, 4)), 1.0)
    assert not list(tmp_path.iterdir())
