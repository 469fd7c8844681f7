"""Maps: MRC volumes with their voxel size and place, read and written."""

import bz2
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.files import replacing
from cryogan.particles.mrc import HEADER_BYTES, MrcHeader, compression, parse_header

_READERS = {"gunzip": gzip.decompress, "bunzip2": bz2.decompress}
_CUBIC = 1e-3  # relative difference of voxel sizes that are taken as equal
_RIGHT_ANGLE_TOLERANCE = 0.1  # degrees


@dataclass(frozen=True)
class MapHeader:
    """Voxel size of a map, and where programs that overlay maps place it.

    Attributes:
        pixel_size: A.
        origin: position of the first voxel, A along x, y and z.
        start: number of the first voxel along x, y and z (`nxstart` and so on).
    """

    pixel_size: float
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    start: tuple[int, int, int] = (0, 0, 0)


def read_volume(path: Path | str) -> tuple[NDArray[np.float32], float]:
    """Read a cubic map and its voxel size.

    Returns:
        The map (D, D, D) with axes z, y, x, and its voxel size in A.

    Raises:
        InputError: as `read_map`.
    """
    volume, header = read_map(path)
    return volume, header.pixel_size


def read_map(path: Path | str) -> tuple[NDArray[np.float32], MapHeader]:
    """Read a cubic map, also compressed by gzip or bzip2, with its voxel size and place.

    Axes that are stored in another order (`mapc`, `mapr`, `maps`) are brought to z, y, x.

    Returns:
        The map (D, D, D) with axes z, y, x, and its header.

    Raises:
        InputError: the file is missing, truncated or not MRC; the box or the voxels are not cubic; the voxel size
            is not given; or values are not finite.
    """
    path = Path(path)
    content, written = _content(path)
    header = parse_header(path, content[:HEADER_BYTES], (len(content), written))
    described = _describe(path, header)
    stored = np.frombuffer(content, header.dtype, int(np.prod(header.shape)), header.offset).reshape(header.shape)
    of_array = header.axes[::-1]
    with np.errstate(invalid="ignore"):  # a damaged float16 may be a signalling NaN
        volume = np.array(stored.transpose([of_array.index(axis) for axis in (3, 2, 1)]), np.float32, order="C")
    wrong = np.count_nonzero(~np.isfinite(volume))
    if wrong:
        raise InputError(
            f"{path}: {wrong} of {volume.size} voxels are NaN or infinite. Replace them, or make it again."
        )
    return volume, described


def _content(path: Path) -> tuple[bytes, int]:
    """The file's bytes, decompressed, and the time of its last change."""
    try:
        content, written = path.read_bytes(), path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path.") from None
    command = compression(content)
    if command is None:
        return content, written
    if command not in _READERS:
        raise InputError(f"{path}: is compressed. Decompress it ({command} -k {path}) and give the name it then has.")
    try:
        return _READERS[command](content), written
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: cannot be decompressed ({error}). Copy it again.") from None


def _describe(path: Path, header: MrcHeader) -> MapHeader:
    """Refuse what is no cubic map; voxel size and place of what is, with axes x, y, z."""
    depth, height, width = header.shape
    if sorted(header.axes) != [1, 2, 3]:
        raise InputError(
            f"{path}: columns, rows and sections are the axes {header.axes}; they must be 1, 2 and 3 once."
        )
    if not depth == height == width:
        raise InputError(f"{path}: the box is {width} x {height} x {depth} voxels. Give a cubic volume.")
    size = header.voxel_size[0]
    if not size > 0:
        raise InputError(
            f"{path}: the voxel size is {size:g}. Set it, "
            f"e.g. relion_image_handler --i {path} --o fixed.mrc --force_header_angpix 1.23 (your value)."
        )
    if any(other > 0 and abs(other / size - 1) > _CUBIC for other in header.voxel_size):
        raise InputError(
            f"{path}: the voxels are {' x '.join(f'{length:g}' for length in header.voxel_size)} A. Resample the map "
            "to cubic voxels, or correct its header with relion_image_handler --force_header_angpix."
        )
    if any(angle > 0 and abs(angle - 90) > _RIGHT_ANGLE_TOLERANCE for angle in header.angles):
        raise InputError(
            f"{path}: the cell's angles are {', '.join(f'{angle:g}' for angle in header.angles)} degrees. "
            "Resample the map to a cubic cell."
        )
    x, y, z = (header.start[header.axes.index(axis)] for axis in (1, 2, 3))
    return MapHeader(size, header.origin, (x, y, z))


def write_volume(path: Path | str, volume: NDArray[Any], pixel_size: float) -> None:
    """Write a map that begins at the origin; see `write_map`.

    Args:
        path: .mrc file; replaced if it exists.
        volume: (D, D, D) with axes z, y, x.
        pixel_size: A.
    """
    write_map(path, volume, MapHeader(pixel_size))


def write_map(path: Path | str, volume: NDArray[Any], header: MapHeader) -> None:
    """Write a map as float32, completely or not at all.

    Args:
        path: .mrc file; replaced if it exists.
        volume: (D, D, D) with axes z, y, x.
        header: voxel size and place, those of the map that this one was made from.
    """
    if volume.ndim != 3:
        raise ValueError(f"a volume has three axes, not {volume.ndim}")
    with replacing(Path(path)) as temporary, mrcfile.new(temporary, overwrite=True) as out:
        out.set_data(np.asarray(volume, dtype=np.float32))
        out.voxel_size = header.pixel_size
        out.header.origin = header.origin
        out.header.nxstart, out.header.nystart, out.header.nzstart = header.start
