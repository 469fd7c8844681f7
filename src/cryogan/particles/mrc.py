"""MRC files: memory-mapped image stacks in, volumes and stacks out."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp
from numpy.typing import DTypeLike, NDArray

from cryogan.errors import InputError
from cryogan.files import replacing

_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_LARGEST_SIDE = 1 << 16  # a small number read in the wrong byte order is larger than this


@dataclass(frozen=True)
class MrcHeader:
    """What finds a file's images: shape (N, H, W), dtype with byte order, offset in bytes, A per pixel.

    written: size in bytes and time in nanoseconds of the file's last change, as the header was read.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    pixel_size: float
    written: tuple[int, int]


def read_header(path: Path | str) -> MrcHeader:
    """Read an MRC header and check that the file holds the data it announces.

    mrcfile's own readers refuse a file without 'MAP ' or machine stamp, or warn, and say nothing of how much
    of a truncated stack is whole; so the header is judged here by its sizes. pixel_size is 0 where the file
    gives none. Raises InputError for a file that is missing, truncated, not MRC or of an unsupported mode.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            raw = file.read(HEADER_DTYPE.itemsize)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path.") from None
    if len(raw) < HEADER_DTYPE.itemsize:
        raise InputError(f"{path}: is shorter than an MRC header ({len(raw)} bytes); copy it again.")
    header = np.frombuffer(raw, dtype=HEADER_DTYPE)[0]
    try:
        stamped = byte_order_from_machine_stamp(header["machst"])
    except ValueError:
        stamped = "<"
    for order in (stamped, "<" if stamped == ">" else ">"):
        header = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order))[0]
        width, height, count = int(header["nx"]), int(header["ny"]), int(header["nz"])
        mode, extended = int(header["mode"]), int(header["nsymbt"])
        sides_fit = 0 < width < _LARGEST_SIDE and 0 < height < _LARGEST_SIDE and count > 0
        if sides_fit and 0 <= mode < _LARGEST_SIDE and extended >= 0:
            break
    else:
        raise InputError(f"{path}: is not an MRC file (no sensible sizes in its header); give a .mrc or .mrcs.")
    if mode not in _MODES:
        raise InputError(
            f"{path}: MRC mode {mode} is not supported (only 0, 1, 2, 6 and 12 are); convert it to float, "
            "e.g. with relion_image_handler."
        )
    dtype = np.dtype(_MODES[mode]).newbyteorder(order)
    offset = HEADER_DTYPE.itemsize + extended
    whole = max(status.st_size - offset, 0) // (width * height * dtype.itemsize)
    if whole < count:
        raise InputError(f"{path}: holds {whole} whole images of {count}; copy it again.")
    columns = int(header["mx"])
    pixel_size = float(header["cella"]["x"]) / columns if columns > 0 else 0.0
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        pixel_size = 0.0
    return MrcHeader((count, height, width), dtype, offset, pixel_size, (status.st_size, status.st_mtime_ns))


def open_stack(path: Path | str) -> NDArray[Any]:
    """Map the images of a .mrcs or .mrc file read-only: (N, H, W), in the file's own dtype and byte order.

    Mode 0 is signed, as in MRC2014 and mrcfile. One 2-D image is a stack of one. Raises InputError as
    read_header does.
    """
    header = read_header(path)
    return np.memmap(path, dtype=header.dtype, mode="r", offset=header.offset, shape=header.shape)


def read_images(path: Path, header: MrcHeader, indices: Iterable[int]) -> NDArray[Any]:
    """Read images (n, H, W) of a stack, in the file's own dtype and byte order.

    They are not mapped: where a mapped file was cut short or its disk fails, the system kills the process.
    Raises InputError if an image cannot be read, or the file is not what it was when `header` was read.
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
                    raise InputError(f"{path}: image {index + 1} is cut off; copy the file again.")
    except OSError as error:
        raise _lost(path, error) from None
    return images


def require_unchanged(path: Path, header: MrcHeader) -> None:
    """Raise InputError if the file is not what it was when `header` was read."""
    try:
        _require_unchanged(path, header, path.stat())
    except OSError as error:
        raise _lost(path, error) from None


def _require_unchanged(path: Path, header: MrcHeader, status: os.stat_result) -> None:
    if (status.st_size, status.st_mtime_ns) != header.written:
        raise InputError(
            f"{path}: has changed since it was first read ({header.written[0]} bytes then, {status.st_size} now); "
            "put the old file back and go on with --resume, or start a new run."
        )


def _lost(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror}); bring the file back and go on with --resume.")


def read_volume(path: Path | str) -> tuple[NDArray[np.float32], float]:
    """Read a cubic volume: float32 (D, D, D), axes z, y, x, and its voxel size in A.

    Raises InputError for a box that is not cubic, a voxel size that is not given, and as read_header does.
    """
    header = read_header(path)
    depth, height, width = header.shape
    if not depth == height == width:
        raise InputError(f"{path}: the box is {width} x {height} x {depth} voxels; give a cubic volume.")
    if not header.pixel_size > 0:
        raise InputError(
            f"{path}: the voxel size is {header.pixel_size:g}; set it, "
            f"e.g. relion_image_handler --i {path} --o fixed.mrc --force_header_angpix 1.23 (your value)."
        )
    with np.errstate(invalid="ignore"):  # a damaged float16 may be a signalling NaN
        return np.array(open_stack(path), dtype=np.float32), header.pixel_size


def write_volume(path: Path | str, volume: NDArray[Any], pixel_size: float) -> None:
    """Write a volume (D, D, D), axes z, y, x, as float32 with its voxel size in A, whole or not at all."""
    if volume.ndim != 3:
        raise ValueError(f"a volume has three axes, not {volume.ndim}")
    with replacing(Path(path)) as temporary, mrcfile.new(temporary, overwrite=True) as out:
        out.set_data(np.asarray(volume, dtype=np.float32))
        out.voxel_size = pixel_size


def write_stack(path: Path | str, images: NDArray[Any], pixel_size: float, dtype: DTypeLike = np.float32) -> None:
    """Write images (N, H, W) as a stack of float32 or float16, pixel size in A, whole or not at all."""
    if images.ndim != 3:
        raise ValueError(f"a stack has three axes, not {images.ndim}")
    if np.dtype(dtype) not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise ValueError(f"a stack is written as float16 or float32, not {np.dtype(dtype)}")
    with replacing(Path(path)) as temporary, mrcfile.new(temporary, overwrite=True) as out:
        out.set_data(np.asarray(images, dtype=dtype))
        # mrcfile takes any 3-D array for a volume.
        out.set_image_stack()
        out.voxel_size = pixel_size
