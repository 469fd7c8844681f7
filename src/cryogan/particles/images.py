"""The particle images of a set, in memory where they fit."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.parallel.threads import map_in_threads
from cryogan.particles.downsample_cache import in_stack
from cryogan.particles.preprocess import ImageReader
from cryogan.particles.table import ParticleTable

MEMORY_LIMIT = 2 << 30  # bytes of images that a process holds


def evenly_spread(length: int, count: int) -> NDArray[np.int64]:
    """Return at most `count` indices that are evenly spread over `length`."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64))


class ParticleImages:
    """The usable images of a particle table at the working box, ready for the critic.

    They are read and preprocessed by `ImageReader`. Images that are not usable (empty or masked, NaN) are dropped.

    Args:
        table: the particles.
        box: working box, pixels.
        radius_A: radius of the circle, A, outside which there is background; None: patches with particles anywhere.
        invert: whether protein is dark.
        memory_limit_bytes: up to this the images are held in memory; beyond it every batch is read and preprocessed
            anew, to the same numbers.
        cropped: a stack that `crop` has made of this table, or of one that holds it, to read instead of the files.
        checked: that no image is unusable. Otherwise images that are not held are all read once, to find the unusable
            ones, unless `cropped` says which these are.
        keep_gradient: whether the plane fitted to each image's background is not subtracted.

    Attributes:
        table: the particles that are left.
        kept_rows: (N,) the rows of the given table that are left.
        dropped: number of images that are not usable.
        pixel_size: A, at the working box.
        cropped_odd: whether the last row and column of an odd box were left out.

    Raises:
        InputError: as from `ImageReader`, or no image is left.
    """

    def __init__(
        self,
        table: ParticleTable,
        box: int,
        radius_A: float | None,
        invert: bool = False,
        memory_limit_bytes: int = MEMORY_LIMIT,
        cropped: Path | None = None,
        checked: bool = False,
        *,
        keep_gradient: bool = False,
    ) -> None:
        usable = np.ones(len(table), dtype=np.bool_) if checked else None
        if cropped is None:
            self._reader = ImageReader(table, box, radius_A, invert, keep_gradient)
        else:
            placed, usable = in_stack(table, cropped)
            self._reader = ImageReader(placed, box, radius_A, keep_gradient=True)  # none is left to subtract
        self.box, self.radius_A = box, radius_A
        self.cropped_odd = table.pixel_sizes is None and table.box % 2 == 1
        self.pixel_size = self._reader.pixel_size
        self._cache: NDArray[np.float32] | None = None
        self.table = table
        self.kept_rows = self._scan(memory_limit_bytes, usable)
        self.dropped = len(table) - len(self.kept_rows)
        if self.dropped:
            self.table = table.select(self.kept_rows)

    def __len__(self) -> int:
        return len(self.table)

    def spread(self, count: int) -> NDArray[np.int64]:
        """Return rows of at most `count` images, evenly spread over the set."""
        return evenly_spread(len(self), count)

    def batch(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return preprocessed images, float32 (B, box, box), in the order of `rows` (B,) of `table`."""
        rows = np.asarray(rows)
        if self._cache is not None:
            cached: NDArray[np.float32] = self._cache[rows]
            return cached
        return self._reader.read(self.kept_rows[rows])[0]

    def _scan(self, memory_limit_bytes: int, usable: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Keep the set in memory if it fits, and return the usable rows; read every image once if need be."""
        count = len(self.table)
        cache = None
        if count * self.box * self.box * np.dtype(np.float32).itemsize <= memory_limit_bytes:
            cache = np.empty((count, self.box, self.box), dtype=np.float32)
        good = np.zeros(count, dtype=np.bool_)
        if cache is None and usable is not None:
            good = usable
        else:

            def read(part: NDArray[np.int64]) -> None:
                images, good[part] = self._reader.read(part)
                if cache is not None:
                    cache[part] = images

            map_in_threads(read, list(self._reader.in_file_order(np.arange(count))))
        if not good.any():
            raise InputError(
                f"{self.table.source}: all {count} images are NaN, blank in part or constant"
                + ("" if self.radius_A is None else f", if only outside the circle of {self.radius_A:g} A")
                + ". Extract them again, without a mask."
            )
        rows = np.flatnonzero(good)
        if cache is not None:
            for row, kept in enumerate(rows if len(rows) < count else ()):
                cache[row] = cache[kept]  # in place: `cache[good]` would hold the set twice
            self._cache = cache[: len(rows)]
        return rows
