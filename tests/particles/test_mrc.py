import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.particles import open_stack, write_stack, write_volume
from cryogan.particles.mrc import read_header, read_images

# Where the header keeps things, in bytes (MRC2014).
MODE, CELL_X, AXES, MINIMUM, IMOD_STAMP, MAP, MACHINE_STAMP = 12, 40, 64, 76, 152, 208, 212
DTYPES = ["i1", "i2", "f4", "u2", "f2"]


def write_raw(path: Path, data: np.ndarray, order: str = "<", extended: int = 0) -> Path:
    """An MRC file byte for byte, so that the reader is not checked against a writer of its own kind."""
    data = data.astype(np.dtype(order + data.dtype.str[1:]))
    mode = {"i1": 0, "i2": 1, "f4": 2, "u2": 6, "f2": 12}[data.dtype.str[1:]]
    count, height, width = data.shape if data.ndim == 3 else (1, *data.shape)
    words = np.zeros(256, dtype=f"{order}i4")
    words[[0, 1, 2, 3, 7, 8, 9, 23]] = [width, height, count, mode, width, height, count, extended]
    header = bytearray(words.tobytes())
    header[CELL_X : CELL_X + 12] = np.array([width, height, count], f"{order}f4").tobytes()
    header[MAP : MAP + 4] = b"MAP "
    header[MACHINE_STAMP : MACHINE_STAMP + 4] = b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0"
    path.write_bytes(bytes(header) + b"\xab" * extended + data.tobytes())
    return path


def patch(path: Path, at: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)


@pytest.fixture
def data() -> np.ndarray:
    return np.random.default_rng(1).integers(-100, 100, (5, 6, 7))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_modes_byte_orders_and_extended_headers(tmp_path: Path, data: np.ndarray, dtype: str, order: str) -> None:
    data = np.abs(data) * 300 if dtype == "u2" else data  # values that int16 could not hold
    for extended in (0, 160):
        stack = open_stack(write_raw(tmp_path / "a.mrcs", data.astype(dtype), order, extended))
        assert stack.shape == (5, 6, 7)
        assert isinstance(stack, np.memmap)
        np.testing.assert_array_equal(stack.astype(np.int64), data.astype(dtype).astype(np.int64))


def test_agrees_with_mrcfile(tmp_path: Path, data: np.ndarray) -> None:
    for dtype in DTYPES:
        path = write_raw(tmp_path / "a.mrcs", data.astype(dtype))
        with mrcfile.open(path) as reference:
            np.testing.assert_array_equal(open_stack(path), reference.data)


def test_one_image_is_a_stack_of_one(tmp_path: Path, data: np.ndarray) -> None:
    assert open_stack(write_raw(tmp_path / "a.mrc", data[0].astype("f4"))).shape == (1, 6, 7)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_missing_map_and_machine_stamp_are_forgiven(tmp_path: Path, data: np.ndarray, dtype: str, order: str) -> None:
    path = write_raw(tmp_path / "a.mrcs", data.astype(dtype), order)
    patch(path, MAP, bytes(8))
    np.testing.assert_array_equal(open_stack(path), data.astype(dtype))


IMOD = 1146047817


def stamp(flags: int) -> bytes:
    return np.array([IMOD, flags], "<i4").tobytes()


def statistics(low: float, high: float) -> bytes:
    return np.array([low, high], "<f4").tobytes()


@pytest.mark.parametrize(
    ("at", "value", "unsigned"),
    [
        (IMOD_STAMP, stamp(0), True),  # the flag "bytes are signed" is clear
        (IMOD_STAMP, stamp(1), False),
        (MINIMUM, statistics(0, 255), True),
        (MINIMUM, statistics(0, 127), False),
        (MINIMUM, statistics(-3, 200), False),
        (MINIMUM, statistics(np.nan, np.nan), False),
    ],
)
def test_bytes_are_read_as_their_program_wrote_them(tmp_path: Path, at: int, value: bytes, unsigned: bool) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    path = write_raw(tmp_path / "a.mrcs", values.view(np.int8))
    patch(path, at, value)
    np.testing.assert_array_equal(open_stack(path), values if unsigned else values.view(np.int8))
    header = read_header(path)
    images = read_images(path, header, [3, 1]).astype(float)
    assert images.max() == (255 if unsigned else 127)


def test_the_stamp_counts_more_than_the_statistics(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrcs", np.zeros((1, 8, 8), np.int8))
    patch(path, MINIMUM, statistics(0, 255))
    patch(path, IMOD_STAMP, stamp(1))
    assert open_stack(path).dtype == np.int8


def test_stacks_with_other_axes_are_refused(tmp_path: Path, data: np.ndarray) -> None:
    path = write_raw(tmp_path / "a.mrcs", data.astype("f4"))
    assert read_header(path).axes == (1, 2, 3)  # all zero in this header, as old programs leave them
    patch(path, AXES, np.array([2, 1, 3], "<i4").tobytes())
    with pytest.raises(InputError, match=r"a\.mrcs: its columns, rows and sections are the axes \(2, 1, 3\)"):
        open_stack(path)


def test_pixels_that_are_not_square_have_no_size(tmp_path: Path, data: np.ndarray) -> None:
    path = write_raw(tmp_path / "a.mrcs", data.astype("f4"))
    assert read_header(path).pixel_size == 1.0
    patch(path, CELL_X, np.array([7.0, 12.0, 5.0], "<f4").tobytes())
    assert read_header(path).pixel_size == 0.0


@pytest.mark.parametrize(
    ("compress", "command"), [(gzip.compress, "gunzip"), (bz2.compress, "bunzip2"), (lzma.compress, "unxz")]
)
def test_compressed_stacks_are_refused_with_the_remedy(
    tmp_path: Path, data: np.ndarray, compress: Callable[[bytes], bytes], command: str
) -> None:
    path = write_raw(tmp_path / "a.mrcs", data.astype("f4"))
    path.write_bytes(compress(path.read_bytes()))
    with pytest.raises(InputError, match=rf"a\.mrcs: is compressed\. Decompress it \({command} -k .*a\.mrcs\)"):
        open_stack(path)


def test_a_truncated_stack_says_what_is_whole(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrcs", np.zeros((100, 8, 8), "f4"), extended=80)
    path.write_bytes(path.read_bytes()[: 1024 + 80 + 37 * 256 + 200])
    with pytest.raises(InputError, match=r"a\.mrcs: holds 37 whole images of 100\. Copy it again"):
        open_stack(path)
    write_raw(path, np.zeros((100, 8, 8), "f4"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="holds 99 whole images of 100"):
        open_stack(path)


@pytest.mark.parametrize("mode", [3, 4, 101])
def test_unsupported_modes(tmp_path: Path, data: np.ndarray, mode: int) -> None:
    path = write_raw(tmp_path / "a.mrcs", data.astype("f4"))
    patch(path, MODE, np.int32(mode).tobytes())
    with pytest.raises(InputError, match=rf"a\.mrcs: MRC mode {mode} is not supported.*Convert it"):
        open_stack(path)


def test_what_is_not_mrc(tmp_path: Path) -> None:
    (tmp_path / "short.mrc").write_bytes(b"abc")
    (tmp_path / "text.mrc").write_text("data_particles\n" * 200)
    with pytest.raises(InputError, match="shorter than an MRC header"):
        open_stack(tmp_path / "short.mrc")
    with pytest.raises(InputError, match="is not an MRC file"):
        open_stack(tmp_path / "text.mrc")
    with pytest.raises(InputError, match="cannot be read"):
        open_stack(tmp_path / "none.mrc")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_stack_round_trip(tmp_path: Path, dtype: type) -> None:
    images = np.random.default_rng(2).standard_normal((8, 8, 8)).astype(np.float16)
    write_stack(tmp_path / "s.mrcs", images, 2.5, dtype)
    with mrcfile.open(tmp_path / "s.mrcs") as file:
        assert file.is_image_stack()
        assert file.voxel_size.x == pytest.approx(2.5)
    stack = open_stack(tmp_path / "s.mrcs")
    assert stack.dtype == dtype
    np.testing.assert_array_equal(stack, images)
    assert mrcfile.validate(tmp_path / "s.mrcs")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "s.mrcs"
    write_stack(path, np.ones((2, 4, 4)), 1.0)
    before = path.read_bytes()
    with pytest.raises(RuntimeWarning, match="NaN"):  # mrcfile's, an error under pytest
        write_stack(path, np.full((2, 4, 4), np.nan), 1.0)
    with pytest.raises(ValueError, match="float16 or float32"):
        write_stack(path, np.ones((2, 4, 4)), 1.0, np.int16)
    with pytest.raises(ValueError, match="three axes"):
        write_volume(path, np.ones((4, 4)), 1.0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
