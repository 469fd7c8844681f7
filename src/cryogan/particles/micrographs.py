"""Micrographs, and where in them background is found."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from cryogan.errors import InputError
from cryogan.particles.blank import broken_pixels
from cryogan.particles.mrc import open_stack, read_header
from cryogan.particles.stacks import find_file
from cryogan.particles.star import StarTable, read_star
from cryogan.particles.table import common_pixel_size

_BINS = 32  # along a patch's side, for its variance


@dataclass(frozen=True)
class Micrographs:
    """N micrographs of one pixel size.

    Attributes:
        names: as in the STAR file.
        files: where they were found.
        pixel_size: A.
        table: rows of the STAR file.
        optics: its optics table, if it has one.
    """

    names: list[str]
    files: list[Path]
    pixel_size: float
    table: StarTable
    optics: StarTable | None


def read_micrographs(path: Path, data_dir: Path | None = None) -> Micrographs:
    """Read a RELION micrograph STAR (3.0, or 3.1 with optics).

    Args:
        path: the STAR file. The micrographs are searched for beside it and in the folders above.
        data_dir: another folder in which to look for them.

    Raises:
        InputError: no column or pixel size, several pixel sizes, a missing file, or a micrograph named twice.
    """
    blocks = read_star(path)
    table = next((block for block in blocks.values() if "rlnMicrographName" in block), None)
    if table is None or not len(table):
        raise InputError(f"{path}: no block has rows of _rlnMicrographName. Give a micrograph STAR file.")
    names = table.texts("rlnMicrographName")
    _, first = np.unique(names, return_index=True)
    if len(first) < len(names):
        row = int(np.setdiff1d(np.arange(len(names)), first)[0])
        raise InputError(
            f"{table.where(row)}: the micrograph {names[row][:200]} is named twice. Remove one of the rows."
        )
    folders = [*path.absolute().parents, *([] if data_dir is None else [data_dir])]
    files = []
    for row, name in enumerate(names):
        found = find_file(name, folders)
        if found is None:
            raise InputError(
                f"{table.where(row)}: the micrograph {name[:200]} was not found. Name its folder with --data-dir."
            )
        files.append(found)
    optics = blocks.get("optics")
    return Micrographs(names, files, _pixel_size(path, table, optics, files[0]), table, optics)


def _pixel_size(path: Path, table: StarTable, optics: StarTable | None, first: Path) -> float:
    for block in (optics, table):
        for name in ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"):
            if block is not None and name in block and len(block):
                return common_pixel_size(block.floats(name), block.where)
    if "rlnDetectorPixelSize" in table and "rlnMagnification" in table:
        with np.errstate(all="ignore"):
            sizes = table.floats("rlnDetectorPixelSize") * 1e4 / table.floats("rlnMagnification")
        return common_pixel_size(sizes, table.where)
    if not _is_tiff(first) and read_header(first).pixel_size > 0:
        return read_header(first).pixel_size
    raise InputError(f"{path}: no pixel size. Add _rlnMicrographPixelSize (A) to data_optics.")


def read_micrograph(path: Path) -> NDArray[np.float32]:
    """Read a micrograph (H, W), MRC or TIFF.

    The first row of a TIFF is at the top, where y is largest: RELION, IMOD, EMAN2 and MotionCor2 turn the rows over
    when they read or write TIFF, so that coordinates are those in the MRC.

    Raises:
        InputError: it cannot be read, or is a movie.
    """
    if _is_tiff(path):
        with _opened(path) as tiff:
            image: NDArray[Any] = tiff.asarray()
        if not image.size:  # how a damaged first page is read
            raise _unreadable(path, ValueError("no pixels"))
        image = image[None, ::-1] if image.ndim == 2 else image
    else:
        image = open_stack(path)
    _require_one(path, image.shape)
    micrograph: NDArray[np.float32] = np.array(image[0], dtype=np.float32)
    return micrograph


def micrograph_shape(path: Path) -> tuple[int, int]:
    """Height and width of a micrograph, without its pixels.

    Raises:
        InputError: as `read_micrograph`.
    """
    if _is_tiff(path):
        with _opened(path) as tiff:
            shape = tiff.series[0].shape
        shape = (1, *shape) if len(shape) == 2 else shape
    else:
        shape = read_header(path).shape
    _require_one(path, shape)
    return shape[1], shape[2]


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF; what goes wrong in the block is an InputError."""
    try:
        with tifffile.TiffFile(path) as tiff:
            yield tiff
    except (OSError, ValueError, IndexError, tifffile.TiffFileError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as TIFF ({error}). Copy it again, or convert it to MRC.")


def _require_one(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or shape[0] != 1:
        raise InputError(f"{path}: is not one image (shape {shape}). Give the sum of the movie.")


def fill_broken(micrograph: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Find the broken pixels of a micrograph (H, W) and put the mean of the others there.

    Returns:
        The micrograph, all 0 if no pixel is good, and where it is broken (H, W); see `broken_pixels`.
    """
    broken = broken_pixels(micrograph)
    if not broken.any():
        return micrograph, broken
    mean = 0.0 if broken.all() else micrograph[~broken].mean(dtype=np.float64)
    return np.where(broken, np.float32(mean), micrograph), broken


def whole_places(places: NDArray[np.int64], broken: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Tell which patches about centres (..., 2) x, y hold no broken pixel; see `cut`."""
    height, width = broken.shape
    counts = np.zeros((height + 1, width + 1), dtype=np.int64)
    counts[1:, 1:] = broken.cumsum(0, dtype=np.int64).cumsum(1)
    top = np.clip(places[..., 1] - side // 2, 0, height - side)
    left = np.clip(places[..., 0] - side // 2, 0, width - side)
    inside = counts[top + side, left + side] - counts[top, left + side] - counts[top + side, left] + counts[top, left]
    whole: NDArray[np.bool_] = inside == 0
    return whole


def grid_places(shape: tuple[int, ...], side: int, overlap: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Place square patches on a grid that covers a micrograph and begins at a random corner.

    Args:
        shape: (H, W) of the micrograph.
        side: side of a patch, pixels.
        overlap: fraction of its side, 0 to below 1, by which a patch overlaps its neighbour.
        generator: for the corner.

    Returns:
        Centres (n, 2) x, y.
    """
    step = max(1, round(side * (1 - overlap)))
    y, x = (
        np.arange(generator.integers(min(step, length - side + 1)), length - side + 1, step) + side // 2
        for length in shape
    )
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def quiet_places(
    micrograph: NDArray[np.float32],
    broken: NDArray[np.bool_],
    particles: NDArray[np.float64],
    side: int,
    radius: float,
    count: int,
) -> NDArray[np.int64]:
    """Find square patches of background, those of lowest variance first.

    No patch comes nearer to a particle's centre than `radius`, and none holds a broken pixel. Patches do not overlap,
    or by at most half if there is no room otherwise.

    Args:
        micrograph: (H, W), finite.
        broken: (H, W), pixels that are no measurement; see `fill_broken`.
        particles: centres (m, 2) x, y, pixels.
        side: side of a patch, pixels.
        radius: radius of a particle, pixels.
        count: the most patches to return.

    Returns:
        Centres (n, 2) x, y, pixels.
    """
    bin_ = max(1, side // _BINS)
    height, width = (length // bin_ for length in micrograph.shape)
    blocks = micrograph[: height * bin_, : width * bin_].reshape(height, bin_, width, bin_)
    binned = blocks.mean((1, 3), dtype=np.float64)
    window, half = max(1, side // bin_), side / 2
    mean = ndimage.uniform_filter(binned, window, mode="nearest")
    variance = ndimage.uniform_filter(binned**2, window, mode="nearest") - mean**2
    x, y = ((np.arange(length) + 0.5) * bin_ for length in (width, height))
    free = (y[:, None] >= half) & (y[:, None] <= micrograph.shape[0] - half)
    free = free & (x >= half) & (x <= micrograph.shape[1] - half)
    for px, py in particles:
        # From the particle's centre to the nearest point of the patch.
        dx, dy = np.maximum(np.abs(x - px) - half, 0), np.maximum(np.abs(y - py) - half, 0)
        free &= np.hypot(dx, dy[:, None]) >= radius
    if broken.any() and min(broken.shape) >= side:
        centres = np.stack(np.meshgrid(np.rint(x), np.rint(y)), axis=-1).astype(np.int64)
        free &= whole_places(centres, broken, side)
    return _lowest(np.where(free, variance, np.inf), x, y, side, count)


def _lowest(
    variance: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], side: int, count: int
) -> NDArray[np.int64]:
    """Centres (n, 2) x, y of the lowest finite variance (y, x), apart by `side`, then by half of it."""
    places: list[tuple[int, int]] = []
    for apart in (side, side / 2):
        left = variance.copy()
        for px, py in places:
            left[(np.abs(y - py) < apart)[:, None] & (np.abs(x - px) < apart)] = np.inf
        while len(places) < count and np.isfinite(left.min()):
            row, column = np.unravel_index(int(left.argmin()), left.shape)
            px, py = round(x[column]), round(y[row])
            places.append((px, py))
            left[(np.abs(y - py) < apart)[:, None] & (np.abs(x - px) < apart)] = np.inf
    return np.array(places, dtype=np.int64).reshape(-1, 2)


def cut(micrograph: NDArray[np.float32], places: NDArray[np.int64], side: int) -> NDArray[np.float32]:
    """Cut patches (n, side, side) about centres (n, 2) x, y; one that sticks out by a pixel is moved inside."""
    top = np.clip(places[:, ::-1] - side // 2, 0, np.array(micrograph.shape) - side)
    return np.stack([micrograph[r : r + side, c : c + side] for r, c in top])
