"""The particle images of a set, in memory where they fit."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles.downsample_cache import in_stack
from cryogan.particles.preprocess import ImageReader
from cryogan.particles.table import ParticleTable

MEMORY_LIMIT = 2 << 30  # bytes of images that a process holds


class ParticleImages:
    """The usable images of a particle table at the working box, ready for the critic; see `ImageReader`.

    Images that are not usable (empty or masked, NaN) are dropped; `dropped` counts them, `kept_rows` (N,) are
    the rows of the given table that stayed, `table` is the table of those. Up to memory_limit_bytes the result
    is held in memory; beyond it every batch is read and preprocessed anew, to the same numbers. They are read
    from `cropped`, if given, a stack that `crop` has made of this table or of one that holds it. Images that are
    not held are all looked at once, to find the unusable ones, unless `cropped` says which these are or the caller
    that there are none (`checked`).

    Raises InputError as `ImageReader` does, or if no image stays.
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
    ) -> None:
        usable = np.ones(len(table), dtype=np.bool_) if checked else None
        if cropped is None:
            self._reader = ImageReader(table, box, radius_A, invert)
        else:
            placed, usable = in_stack(table, cropped)
            self._reader = ImageReader(placed, box, radius_A)
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
        """Rows of at most `count` images, evenly over the set."""
        return np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64))

    def batch(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Preprocessed images, float32 (B, box, box), in the order of `rows` (of this object's table)."""
        rows = np.asarray(rows)
        if self._cache is not None:
            cached: NDArray[np.float32] = self._cache[rows]
            return cached
        return self._reader.read(self.kept_rows[rows])[0]

    def _scan(self, memory_limit_bytes: int, usable: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Keep the set in memory if it fits, and return the rows that stay; look at every image once if need be."""
        count = len(self.table)
        cache = None
        if count * self.box * self.box * np.dtype(np.float32).itemsize <= memory_limit_bytes:
            cache = np.empty((count, self.box, self.box), dtype=np.float32)
        good = np.zeros(count, dtype=np.bool_)
        if cache is None and usable is not None:
            good = usable
        else:
            for part in self._reader.in_file_order(np.arange(count)):
                images, good[part] = self._reader.read(part)
                if cache is not None:
                    cache[part] = images
        if not good.any():
            raise InputError(
                f"{self.table.source}: all {count} images are NaN, blank in part or constant"
                + ("" if self.radius_A is None else f", if only outside the circle of {self.radius_A:g} A")
                + "; extract them again, without a mask."
            )
        rows = np.flatnonzero(good)
        if cache is not None:
            for row, kept in enumerate(rows if len(rows) < count else ()):
                cache[row] = cache[kept]  # in place: `cache[good]` would hold the set twice
            self._cache = cache[: len(rows)]
        return rows
