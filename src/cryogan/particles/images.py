"""Preprocessed particle images: one box, one background, one sign."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryogan.errors import InputError
from cryogan.particles.mrc import read_images
from cryogan.particles.table import ParticleTable

_SCAN_BATCH = 256


class ParticleImages:
    """The images of a particle table at the working box, ready for the critic.

    Each image is cropped to an even box (an odd one loses its last row and column, which leaves the centre
    at box // 2), Fourier-cropped to `box`, multiplied by -1 if `invert`, and shifted and scaled so that the
    pixels outside the circle of radius_A (A, about pixel box // 2) have mean 0 and s.d. 1.

    Images that hold NaN or infinite values, or that are constant outside the circle (empty or masked), are
    dropped; `dropped` counts them, `kept_rows` (N,) are the rows of the given table that stayed, `table` is
    the table of those. Up to memory_limit_bytes the result is held in memory; beyond it every batch is read
    and preprocessed anew, to the same numbers.

    pixel_size: A at the working box. cropped_odd: the file's box was odd.
    Raises InputError if `box` is odd or larger than the file's, the circle does not fit, or no image stays; and,
    then and later, if an image cannot be read or its stack has changed since the table was read.
    """

    def __init__(
        self,
        table: ParticleTable,
        box: int,
        radius_A: float,
        invert: bool = False,
        memory_limit_bytes: int = 2 << 30,
    ) -> None:
        even_box = table.box - table.box % 2
        if box % 2 or not 2 <= box <= even_box:
            raise InputError(
                f"{table.source}: a working box of {box} pixels is not possible; choose an even number from "
                f"2 to {even_box}, the box of the images."
            )
        self.box = box
        self.cropped_odd = table.box % 2 == 1
        self.pixel_size = table.pixel_size * even_box / box
        self.radius_A = radius_A
        self._even_box = even_box
        self._sign = np.float32(-1 if invert else 1)
        self._background = _outside_circle(box, radius_A / self.pixel_size)
        self._file_background = _outside_circle(even_box, radius_A / table.pixel_size)
        if not 0 < radius_A <= box / 2 * self.pixel_size:
            raise InputError(
                f"{table.source}: a circle of radius {radius_A:g} A does not fit the box of "
                f"{box * self.pixel_size:g} A; choose at most half of that."
            )
        self._cache: NDArray[np.float32] | None = None
        self.table = table
        self.kept_rows = self._scan(memory_limit_bytes)
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
        batch = np.empty((len(rows), self.box, self.box), dtype=np.float32)
        for part in self._in_file_order(rows):
            batch[part], _ = self._read(rows[part])
        return batch

    def _scan(self, memory_limit_bytes: int) -> NDArray[np.int64]:
        """Look at every image once, keep the set in memory if it fits, and return the rows that stay."""
        count = len(self.table)
        cache = None
        if count * self.box * self.box * np.dtype(np.float32).itemsize <= memory_limit_bytes:
            cache = np.empty((count, self.box, self.box), dtype=np.float32)
        good = np.zeros(count, dtype=np.bool_)
        for part in self._in_file_order(np.arange(count)):
            images, good[part] = self._read(part)
            if cache is not None:
                cache[part] = images
        if not good.any():
            raise InputError(
                f"{self.table.source}: all {count} images are NaN or constant, if only outside the circle "
                f"of {self.radius_A:g} A; extract them again, without a mask."
            )
        self._cache = cache if cache is None or good.all() else cache[good]
        return np.flatnonzero(good)

    def _in_file_order(self, rows: NDArray[np.integer]) -> Iterator[NDArray[np.int64]]:
        """Positions in `rows`, in parts that each ascend through one stack."""
        stacks, images = self.table.stack_index[rows], self.table.image_index[rows]
        order = np.lexsort((images, stacks))
        for run in np.split(order, np.flatnonzero(np.diff(stacks[order])) + 1):
            for start in range(0, len(run), _SCAN_BATCH):
                yield run[start : start + _SCAN_BATCH]

    def _read(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Rows of one stack, preprocessed, and which of them are usable; the others come back as zeros."""
        stack = self.table.stack_index[rows[0]]
        stored = read_images(self.table.stacks[stack], self.table.headers[stack], self.table.image_index[rows])
        with np.errstate(over="ignore", invalid="ignore"):  # damaged images are left out, not warned of
            return self._preprocess(stored[:, : self._even_box, : self._even_box].astype(np.float32))

    def _preprocess(self, raw: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        good = np.isfinite(raw).all(axis=(1, 2))
        raw[~good] = 0
        # Judged before the crop, whose ringing would pass for noise around a masked particle.
        outside = np.take(raw.reshape(len(raw), -1), self._file_background, axis=1)
        good &= outside.max(axis=1) > outside.min(axis=1)
        images = fourier_crop(raw, self.box)
        # np.take, unlike a mask, lays out each image's pixels in one run: no sum depends on the batch.
        background = np.take(images.reshape(len(images), -1), self._background, axis=1).astype(np.float64)
        mean, deviation = background.mean(axis=1), background.std(axis=1)
        good &= (deviation > 0) & np.isfinite(images).all(axis=(1, 2)) & np.isfinite(deviation)
        images[~good], mean[~good] = 0, 0
        scale = np.where(good, self._sign / np.where(good, deviation, 1), 0)
        normalised = (images - mean[:, None, None]) * scale[:, None, None]
        return normalised.astype(np.float32), good


def fourier_crop(images: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    """Resample (..., D, D), D even, to (..., box, box), box even and at most D, by cropping the spectrum.

    Pixel values keep their level (a constant image keeps its value) and the centre D // 2 goes to box // 2.
    Only the disc |k| < box / 2 is kept, without the square's corners: projections of a volume have nothing
    there, and a critic would tell them from particles by that alone. An image within the disc is resampled
    exactly.
    """
    side = images.shape[-1]
    half = box // 2
    spectrum = fft.rfft2(images)[..., : half + 1]
    rows = np.concatenate([spectrum[..., :half, :], spectrum[..., -half:, :]], axis=-2)
    ky, kx = fft.fftfreq(box, 1 / box), np.arange(half + 1)
    rows *= np.hypot(ky[:, None], kx) < half
    cropped: NDArray[np.float32] = fft.irfft2(rows, s=(box, box)) * np.float32((box / side) ** 2)
    return cropped


def _outside_circle(box: int, radius: float) -> NDArray[np.int64]:
    """Flat indices of the pixels farther than `radius` pixels from pixel (box // 2, box // 2)."""
    y, x = np.indices((box, box)) - box // 2
    return np.flatnonzero(x**2 + y**2 > radius**2)
