"""Images of one grid sampled on another: other pixel size, other box, the same centre."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryogan.grids import fit_spectrum, frequency_radius, interpolation_weights


def fourier_crop(images: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    """Resample images to a smaller box, of the same width in A, by cropping their spectrum.

    Pixel values keep their level (a constant image keeps its value) and the centre D // 2 goes to box // 2. Only the
    disc |k| < box / 2 is kept, without the square's corners: projections of a volume have nothing there, and a critic
    would tell them from particles by that alone. An image within the disc is resampled exactly.

    Args:
        images: (..., D, D), D even.
        box: pixels, even and at most D.

    Returns:
        (..., box, box).
    """
    side = images.shape[-1]
    spectrum = fit_spectrum(fft.rfft2(images), box) * (frequency_radius(box) < box // 2)
    cropped: NDArray[np.float32] = fft.irfft2(spectrum, s=(box, box)) * np.float32((box / side) ** 2)
    return cropped


class Resampler:
    """Resampling of images to a grid of another pixel size and width, by trigonometric interpolation.

    An image within the Nyquist disc of both grids is resampled exactly. Where the new grid is wider, the image is
    continued with its own margin, mirrored, which is background as far as it does not reach into the particle.

    Args:
        box: D, pixels, even, of the images.
        pixel_size: A, theirs.
        new_box: pixels, even.
        new_pixel_size: A, at least `pixel_size`.
        margin: pixels of the images that are background, at each edge.
    """

    def __init__(self, box: int, pixel_size: float, new_box: int, new_pixel_size: float, margin: int) -> None:
        self.new_box = new_box
        padded = max(box, 2 * int(np.ceil(new_box * new_pixel_size / pixel_size / 2 - 1e-6)))
        self._source = _mirrored(box, padded, max(1, min(margin, box // 2)))
        self._kernel = interpolation_weights(padded, new_box, new_pixel_size / pixel_size).astype(np.float32)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resample images (N, D, D) to (N, new_box, new_box)."""
        padded = images[:, self._source[:, None], self._source]
        resampled = self._kernel @ padded @ self._kernel.T
        return fourier_crop(resampled.astype(np.float32, copy=False), self.new_box)


def _mirrored(box: int, padded: int, margin: int) -> NDArray[np.int64]:
    """Return the pixel of an image's side that each pixel of the padded side shows."""
    place = np.arange(padded) - (padded - box) // 2
    beyond = np.where(place < 0, -1 - place, np.maximum(place - box, 0))  # pixels beyond the edge, from 0
    back = beyond % (2 * margin)
    inward = np.where(back < margin, back, 2 * margin - 1 - back)
    return np.where(place < 0, inward, np.where(place >= box, box - 1 - inward, place))
