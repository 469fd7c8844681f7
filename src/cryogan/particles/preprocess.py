"""Particle images as the critic sees them: one box, one background, one sign."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryogan.errors import InputError
from cryogan.grids import centred_radius, fit_spectrum, frequency_radius
from cryogan.particles.aberrations import Columns, correct
from cryogan.particles.mrc import read_images
from cryogan.particles.table import ParticleTable

_SCAN_BATCH = 256


class ImageReader:
    """The images of a particle table at the working box, read and preprocessed each time.

    Each image is cropped to an even box (an odd one loses its last row and column, which leaves the centre
    at box // 2), corrected for the aberrations that the table's `ctf` names (see `aberrations.correct`), Fourier-
    cropped to `box`, multiplied by -1 if `invert`, and shifted and scaled so that the pixels outside the circle of
    radius_A (A, about pixel box // 2) have mean 0 and s.d. 1. With radius_A None (patches, with particles anywhere)
    shift and scale stay as they are in the file.

    pixel_size: A at the working box. cropped_odd: the file's box was odd.
    Raises InputError if `box` is odd or larger than the file's, or the circle does not fit; then and later, if an
    image cannot be read or its stack has changed since the table was read.
    """

    def __init__(self, table: ParticleTable, box: int, radius_A: float | None, invert: bool = False) -> None:
        even_box = table.box - table.box % 2
        if box % 2 or not 2 <= box <= even_box:
            raise InputError(
                f"{table.source}: a working box of {box} pixels is not possible; choose an even number from "
                f"2 to {even_box}, the box of the images."
            )
        self.table, self.box, self.radius_A = table, box, radius_A
        self.cropped_odd = table.box % 2 == 1
        self.pixel_size = table.pixel_size * even_box / box
        self._even_box = even_box
        self._sign = np.float32(-1 if invert else 1)
        self._background = _outside_circle(box, radius_A and radius_A / self.pixel_size)
        self._file_background = _outside_circle(even_box, radius_A and radius_A / table.pixel_size)
        if radius_A is not None and not 0 < radius_A <= box / 2 * self.pixel_size:
            raise InputError(
                f"{table.source}: a circle of radius {radius_A:g} A does not fit the box of "
                f"{box * self.pixel_size:g} A; choose at most half of that."
            )

    def read(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Images (B, box, box) of these rows, and which of them are usable; the others come back as zeros.

        Not usable are images that hold NaN or infinite values, or are constant outside the circle.
        """
        images = np.empty((len(rows), self.box, self.box), dtype=np.float32)
        good = np.empty(len(rows), dtype=np.bool_)
        for part in self.in_file_order(rows):
            images[part], good[part] = self._read_stack(rows[part])
        return images, good

    def in_file_order(self, rows: NDArray[np.integer]) -> Iterator[NDArray[np.int64]]:
        """Positions in `rows`, in parts that each ascend through one stack."""
        stacks, images = self.table.stack_index[rows], self.table.image_index[rows]
        order = np.lexsort((images, stacks))
        for run in np.split(order, np.flatnonzero(np.diff(stacks[order])) + 1):
            for start in range(0, len(run), _SCAN_BATCH):
                yield run[start : start + _SCAN_BATCH]

    def _read_stack(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """`read` of rows of one stack."""
        stack = self.table.stack_index[rows[0]]
        stored = read_images(self.table.stacks[stack], self.table.headers[stack], self.table.image_index[rows])
        with np.errstate(over="ignore", invalid="ignore"):  # damaged images are left out, not warned of
            raw = stored[:, : self._even_box, : self._even_box].astype(np.float32)
            return self._preprocess(raw, {name: values[rows] for name, values in self.table.ctf.items()})

    def _preprocess(self, raw: NDArray[np.float32], ctf: Columns) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        good = np.isfinite(raw).all(axis=(1, 2))
        raw[~good] = 0
        # Judged before the crop, whose ringing would pass for noise around a masked particle.
        outside = np.take(raw.reshape(len(raw), -1), self._file_background, axis=1)
        good &= outside.max(axis=1) > outside.min(axis=1)
        images = fourier_crop(correct(raw, ctf, self.table.pixel_size), self.box)
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


def fourier_crop(images: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    """Resample (..., D, D), D even, to (..., box, box), box even and at most D, by cropping the spectrum.

    Pixel values keep their level (a constant image keeps its value) and the centre D // 2 goes to box // 2.
    Only the disc |k| < box / 2 is kept, without the square's corners: projections of a volume have nothing
    there, and a critic would tell them from particles by that alone. An image within the disc is resampled
    exactly.
    """
    side = images.shape[-1]
    spectrum = fit_spectrum(fft.rfft2(images), box) * (frequency_radius(box) < box // 2)
    cropped: NDArray[np.float32] = fft.irfft2(spectrum, s=(box, box)) * np.float32((box / side) ** 2)
    return cropped


def _outside_circle(box: int, radius: float | None) -> NDArray[np.int64]:
    """Flat indices of the pixels farther than `radius` pixels from pixel (box // 2, box // 2); None: of all."""
    return np.flatnonzero(centred_radius(box) > (-1 if radius is None else radius))
