"""Particle images as the critic sees them: one box, one background, one sign."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles.background import PlaneFit, outside_circle
from cryogan.particles.blank import blank_in_part
from cryogan.particles.correction import Columns, correct
from cryogan.particles.mrc import read_images
from cryogan.particles.resample import Resampler, fourier_crop
from cryogan.particles.table import ParticleTable

_SCAN_BATCH = 64
_ROUNDING = 1e-5  # of the background's range: what is left of a plane by the rounding of float32


@dataclass(frozen=True)
class _Grid:
    """The pixels of one kind of images: what of them is background, and how they get to the working box."""

    box: int  # even
    pixel_size: float  # A
    background: NDArray[np.int64]
    plane: PlaneFit | None  # to subtract
    resample: Callable[[NDArray[np.float32]], NDArray[np.float32]]


class ImageReader:
    """The images of a particle table at the working box, read and preprocessed each time.

    Each image is cropped to an even box (an odd one loses its last row and column, which leaves the centre
    at box // 2), freed of the plane fitted to its background, corrected for magnification, beam tilt and trefoil (see
    `correct`), Fourier-cropped to `box`, multiplied by -1 if `invert`, and shifted and scaled so that its background
    has mean 0 and s.d. 1. Background are the pixels outside the circle of radius_A about pixel box // 2. Images of
    another width or pixel size than the table's common grid are resampled to it.

    Args:
        table: N particles.
        box: working box, pixels, even.
        radius_A: of the circle, A; with None (patches, with particles anywhere) shift, scale and gradient stay as in
            the file.
        invert: whether protein is dark.
        keep_gradient: whether the plane fitted to each image's background is not subtracted.

    Attributes:
        pixel_size: A, at the working box.
        cropped_odd: whether the box of the files is odd.

    Raises:
        InputError: `box` is odd or larger than the files', or the circle does not fit; then and later, if an image
            cannot be read or its stack has changed since the table was read.
    """

    def __init__(
        self,
        table: ParticleTable,
        box: int,
        radius_A: float | None,
        invert: bool = False,
        keep_gradient: bool = False,
    ) -> None:
        even_box = table.box - table.box % 2
        if box % 2 or not 2 <= box <= even_box:
            raise InputError(
                f"{table.source}: a working box of {box} pixels is not possible. Choose an even number from "
                f"2 to {even_box}, the box of the images."
            )
        self.table, self.box, self.radius_A = table, box, radius_A
        self.cropped_odd = table.pixel_sizes is None and table.box % 2 == 1
        self.pixel_size = table.pixel_size * even_box / box
        # Where particles may be anywhere, a fitted plane would follow them: there is no background to fit it to.
        self._subtracts_plane = radius_A is not None and not keep_gradient
        self._sign = np.float32(-1 if invert else 1)
        self._background = outside_circle(box, radius_A and radius_A / self.pixel_size)
        if radius_A is not None and not 0 < radius_A <= box / 2 * self.pixel_size:
            raise InputError(
                f"{table.source}: a circle of radius {radius_A:g} A does not fit the box of "
                f"{box * self.pixel_size:g} A. Choose at most half of that."
            )
        self._grids, self._grid_index = self._find_grids(even_box)

    def _find_grids(self, even_box: int) -> tuple[list[_Grid], NDArray[np.int64]]:
        """Return the kinds of images, and (N,) which of them each is of."""
        table = self.table
        if table.pixel_sizes is None:
            return [self._grid(even_box, table.pixel_size)], np.zeros(len(table), dtype=np.int64)
        boxes = np.array([header.shape[2] for header in table.headers])[table.stack_index]
        kinds, index = np.unique(np.stack([boxes - boxes % 2, table.pixel_sizes]), axis=1, return_inverse=True)
        return [self._grid(int(side), float(size)) for side, size in kinds.T], index.reshape(-1)

    def _grid(self, side: int, pixel_size: float) -> _Grid:
        radius = None if self.radius_A is None else min(self.radius_A / pixel_size, side / 2)
        background = outside_circle(side, radius)
        plane = PlaneFit(side, background) if self._subtracts_plane else None
        if abs(side * pixel_size / (self.box * self.pixel_size) - 1) < 1e-6 and self.box <= side:
            return _Grid(side, pixel_size, background, plane, lambda images: fourier_crop(images, self.box))
        margin = side // 2 if radius is None else int(side / 2 - radius)
        resampler = Resampler(side, pixel_size, self.box, self.pixel_size, margin)
        return _Grid(side, pixel_size, background, plane, resampler)

    def read(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read images, and say which are usable.

        Not usable are images with NaN or infinite values, constant or nothing but a plane outside the circle, or blank
        in part.

        Args:
            rows: (B,) of the table.

        Returns:
            float32 (B, box, box), zero where an image is not usable; bool (B,), whether it is.
        """
        images = np.empty((len(rows), self.box, self.box), dtype=np.float32)
        good = np.empty(len(rows), dtype=np.bool_)
        for part in self.in_file_order(rows):
            images[part], good[part] = self._read_stack(rows[part])
        return images, good

    def in_file_order(self, rows: NDArray[np.integer]) -> Iterator[NDArray[np.int64]]:
        """Yield positions in `rows`, in parts that each ascend through one stack, of images of one kind."""
        stacks = self.table.stack_index[rows] * len(self._grids) + self._grid_index[rows]
        images = self.table.image_index[rows]
        order = np.lexsort((images, stacks))
        for run in np.split(order, np.flatnonzero(np.diff(stacks[order])) + 1):
            for start in range(0, len(run), _SCAN_BATCH):
                yield run[start : start + _SCAN_BATCH]

    def _read_stack(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read rows of one part of `in_file_order`."""
        stack, grid = self.table.stack_index[rows[0]], self._grids[self._grid_index[rows[0]]]
        stored = read_images(self.table.stacks[stack], self.table.headers[stack], self.table.image_index[rows])
        with np.errstate(over="ignore", invalid="ignore"):  # damaged images are left out, not warned of
            raw = stored[:, : grid.box, : grid.box].astype(np.float32)
            return self._preprocess(raw, grid, {name: values[rows] for name, values in self.table.ctf.items()})

    def _preprocess(
        self, raw: NDArray[np.float32], grid: _Grid, ctf: Columns
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        good = np.isfinite(raw).all(axis=(1, 2))
        raw[~good] = 0
        # Judged before the crop, whose ringing would pass for noise around a masked particle.
        spread = _spread(raw, grid.background)
        good &= (spread > 0) & ~blank_in_part(raw)
        if grid.plane is not None:
            raw = grid.plane.subtract(raw)
            good &= _spread(raw, grid.background) > _ROUNDING * spread
        images = grid.resample(correct(raw, ctf, grid.pixel_size))
        # np.take, unlike a mask, lays out each image's pixels in one run: no sum depends on the batch.
        background = np.take(images.reshape(len(images), -1), self._background, axis=1).astype(np.float64)
        mean, deviation = background.mean(axis=1), background.std(axis=1)
        good &= (deviation > 0) & np.isfinite(images).all(axis=(1, 2)) & np.isfinite(deviation)
        if self.radius_A is None:
            mean, deviation = np.zeros_like(mean), np.ones_like(deviation)
        images[~good], mean[~good] = 0, 0
        scale = np.where(good, self._sign / np.where(good, deviation, 1), 0)
        normalised = (images - mean[:, None, None]) * scale[:, None, None]
        return normalised.astype(np.float32), good


def _spread(images: NDArray[np.float32], pixels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the range (B,) of the values of images (B, D, D) at flat indices of pixels."""
    values: NDArray[np.float32] = np.ptp(np.take(images.reshape(len(images), -1), pixels, axis=1), axis=1)
    return values
