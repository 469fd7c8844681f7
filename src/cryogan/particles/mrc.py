"""MRC files: headers, and stacks of images. Maps are read in `maps`."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp
from numpy.typing import DTypeLike, NDArray

from cryogan.errors import InputError
from cryogan.files import replacing

HEADER_BYTES = HEADER_DTYPE.itemsize
AXES_XYZ = (1, 2, 3)
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_LARGEST_SIDE = 1 << 16  # a small number read in the wrong byte order is larger than this
_IMOD_WORD, _IMOD_STAMP, _BYTES_SIGNED = 38, 1146047817, 1  # in 4-byte words of the header; flags follow the stamp
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


@dataclass(frozen=True)
class MrcHeader:
    """Header of an MRC file.

    Attributes:
        shape: (sections, rows, columns), as stored: (N, H, W) of a stack of N images.
        dtype: data type of the values, with byte order.
        offset: bytes before the values.
        axes: which of x (1), y (2) and z (3) columns, rows and sections are.
        voxel_size: A along x, y and z; 0 if not given.
        angles: between the cell's axes, degrees; 0 if not given.
        origin: position of the first voxel, A along x, y and z.
        start: number of the first column, row and section.
        written: size in bytes and time in nanoseconds of the file's last change, as the header was read.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    axes: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    angles: tuple[float, float, float]
    origin: tuple[float, float, float]
    start: tuple[int, int, int]
    written: tuple[int, int]

    @property
    def pixel_size(self) -> float:
        """A; 0 if the header gives none, or pixels that are not square."""
        x, y = self.voxel_size[:2]
        return x if y == 0 or abs(y / x - 1) < 1e-3 else 0.0


def compression(start: bytes) -> str | None:
    """Command that decompresses a file with these first bytes; None if it is not compressed."""
    return next((command for magic, command in _COMPRESSED.items() if start.startswith(magic)), None)


def read_header(path: Path | str) -> MrcHeader:
    """Read the MRC header of an image stack and check that the file holds the data it announces.

    Raises:
        InputError: the file is missing, truncated, compressed, not MRC, of an unsupported mode, or stored with
            other axes than x along columns and y along rows.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            raw = file.read(HEADER_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path.") from None
    if (command := compression(raw)) is not None:
        raise InputError(f"{path}: is compressed. Decompress it ({command} -k {path}) and give the name it then has.")
    header = parse_header(path, raw, (status.st_size, status.st_mtime_ns))
    if header.axes != AXES_XYZ:
        raise InputError(
            f"{path}: its columns, rows and sections are the axes {header.axes}, not x, y, z = {AXES_XYZ}. "
            "Write the stack again with x along columns and y along rows."
        )
    return header


def parse_header(path: Path, raw: bytes, written: tuple[int, int]) -> MrcHeader:
    """Interpret the first `HEADER_BYTES` bytes of an MRC file of `written[0]` bytes.

    mrcfile's own readers refuse a file without 'MAP ' or machine stamp, or warn, and do not say how much of a
    truncated stack is whole; so the header is judged here by its sizes.

    Raises:
        InputError: as `read_header`, but for the axes.
    """
    if len(raw) < HEADER_BYTES:
        raise InputError(f"{path}: is shorter than an MRC header ({len(raw)} bytes). Copy it again.")
    header, order = _in_byte_order(path, raw)
    width, height, count = int(header["nx"]), int(header["ny"]), int(header["nz"])
    mode = int(header["mode"])
    if mode not in _MODES:
        raise InputError(
            f"{path}: MRC mode {mode} is not supported (only 0, 1, 2, 6 and 12 are). Convert it to float, "
            "e.g. with relion_image_handler."
        )
    kind = "u1" if mode == 0 and _bytes_are_unsigned(header, np.frombuffer(raw, f"{order}i4")) else _MODES[mode]
    dtype = np.dtype(kind).newbyteorder(order)
    offset = HEADER_BYTES + int(header["nsymbt"])
    whole = max(written[0] - offset, 0) // (width * height * dtype.itemsize)
    if whole < count:
        raise InputError(f"{path}: holds {whole} whole images of {count}. Copy it again.")
    x, y, z = (_voxel_size(float(header["cella"][axis]), int(header[f"m{axis}"])) for axis in "xyz")
    axes = (int(header["mapc"]), int(header["mapr"]), int(header["maps"]))
    return MrcHeader(
        shape=(count, height, width),
        dtype=dtype,
        offset=offset,
        axes=axes if any(axes) else AXES_XYZ,
        voxel_size=(x, y, z) if x > 0 else (0.0, 0.0, 0.0),
        angles=_finite(header["cellb"][name] for name in ("alpha", "beta", "gamma")),
        # Before MRC2000, whose files say 'MAP ', the place of the origin held something else.
        origin=_finite(header["origin"][axis] if header["map"] == b"MAP " else 0.0 for axis in "xyz"),
        start=(int(header["nxstart"]), int(header["nystart"]), int(header["nzstart"])),
        written=written,
    )


def _in_byte_order(path: Path, raw: bytes) -> tuple[np.void, Literal["<", ">"]]:
    """The header's record in the byte order in which its sizes are sensible, and that order."""
    header = np.frombuffer(raw, dtype=HEADER_DTYPE)[0]
    try:
        stamped_big = byte_order_from_machine_stamp(header["machst"]) == ">"
    except ValueError:
        stamped_big = False
    orders: tuple[Literal["<", ">"], ...] = (">", "<") if stamped_big else ("<", ">")
    for order in orders:
        header = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order))[0]
        sides_fit = 0 < header["nx"] < _LARGEST_SIDE and 0 < header["ny"] < _LARGEST_SIDE and header["nz"] > 0
        if sides_fit and 0 <= header["mode"] < _LARGEST_SIDE and header["nsymbt"] >= 0:
            return header, order
    raise InputError(f"{path}: is not an MRC file (no sensible sizes in its header). Give a .mrc or .mrcs.")


def _bytes_are_unsigned(header: np.void, words: NDArray[np.int32]) -> bool:
    """Whether mode 0 means 0 to 255: by IMOD's stamp, else by a maximum that no signed byte reaches.

    MRC2014 and mrcfile take the bytes as signed; IMOD, EMAN2 and old versions of cisTEM write unsigned ones.
    """
    if words[_IMOD_WORD] == _IMOD_STAMP:
        return not words[_IMOD_WORD + 1] & _BYTES_SIGNED
    return bool(header["dmin"] >= 0 and header["dmax"] > np.iinfo(np.int8).max)


def _voxel_size(length: float, count: int) -> float:
    size = length / count if count > 0 else 0.0
    return size if np.isfinite(size) and size > 0 else 0.0


def _finite(values: Iterable[Any]) -> tuple[float, float, float]:
    x, y, z = (float(value) if np.isfinite(value) else 0.0 for value in values)
    return x, y, z


def open_stack(path: Path | str) -> NDArray[Any]:
    """Memory-map the images of a .mrcs or .mrc file read-only.

    Returns:
        (N, H, W) in the file's dtype and byte order; one 2-D image is a stack of one.

    Raises:
        InputError: as `read_header`.
    """
    header = read_header(path)
    return np.memmap(path, dtype=header.dtype, mode="r", offset=header.offset, shape=header.shape)


def read_images(path: Path, header: MrcHeader, indices: Iterable[int]) -> NDArray[Any]:
    """Read some images of a stack.

    They are not memory-mapped: if a mapped file is cut short or its disk fails, the system kills the process.

    Args:
        path: the stack.
        header: as it was read before.
        indices: indices of the n images, from 0.

    Returns:
        (n, H, W) in the file's dtype and byte order.

    Raises:
        InputError: an image cannot be read, or the file has changed since `header` was read.
    """
    _, height, width = header.shape
    chosen = list(indices)
    images = np.empty((len(chosen), height, width), dtype=header.dtype)
    try:
        with path.open("rb", buffering=0) as file:
            _require_unchanged(path, header, os.fstat(file.fileno()))
            for image, index in zip(images, chosen, strict=True):
                file.seek(header.offset + int(index) * image.nbytes)
                if file.readinto(image.view(np.uint8)) != image.nbytes:
                    raise InputError(f"{path}: image {index + 1} is cut off. Copy the file again.")
    except OSError as error:
        raise _lost(path, error) from None
    return images


def require_unchanged(path: Path, header: MrcHeader) -> None:
    """Check that a stack has not changed since its header was read.

    Raises:
        InputError: it has, or it is gone.
    """
    try:
        _require_unchanged(path, header, path.stat())
    except OSError as error:
        raise _lost(path, error) from None


def _require_unchanged(path: Path, header: MrcHeader, status: os.stat_result) -> None:
    if (status.st_size, status.st_mtime_ns) != header.written:
        raise InputError(
            f"{path}: has changed since it was first read ({header.written[0]} bytes then, {status.st_size} now). "
            "Put the old file back and go on with --resume, or start a new run."
        )


def _lost(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror}). Bring the file back and go on with --resume.")


def write_stack(path: Path | str, images: NDArray[Any], pixel_size: float, dtype: DTypeLike = np.float32) -> None:
    """Write an image stack, completely or not at all.

    Args:
        path: .mrcs or .mrc file; replaced if it exists.
        images: (N, H, W).
        pixel_size: A.
        dtype: float32 or float16.
    """
    if images.ndim != 3:
        raise ValueError(f"a stack has three axes, not {images.ndim}")
    if np.dtype(dtype) not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise ValueError(f"a stack is written as float16 or float32, not {np.dtype(dtype)}")
    with replacing(Path(path)) as temporary, mrcfile.new(temporary, overwrite=True) as out:
        out.set_data(np.asarray(images, dtype=dtype))
        # mrcfile takes any 3-D array for a volume.
        out.set_image_stack()
        out.voxel_size = pixel_size
