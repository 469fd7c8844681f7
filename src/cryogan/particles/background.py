"""The background of particle images: the pixels outside the particle's circle, and the plane fitted to them."""

import numpy as np
from numpy.typing import NDArray

from cryogan.grids import centred_axis, centred_radius


def outside_circle(box: int, radius: float | None) -> NDArray[np.int64]:
    """Return flat indices of the pixels farther than `radius` pixels from (box // 2, box // 2); of all for None."""
    return np.flatnonzero(centred_radius(box) > (-1 if radius is None else radius))


class PlaneFit:
    """Least-squares fit of a plane to the background of images, a + b x + c y.

    x and y are measured from the centre pixel in units of half a box: b and c are the plane's rise from the centre to
    the edge of the box. Every sum runs over one image alone, so that no result depends on the batch.

    Args:
        box: D, pixels.
        pixels: flat indices (M,) of the background.
    """

    def __init__(self, box: int, pixels: NDArray[np.int64]) -> None:
        self.pixels = pixels
        self._axis = centred_axis(box) / (box / 2)
        row, column = np.divmod(pixels, box)
        design = np.stack([np.ones(len(pixels)), self._axis[column], self._axis[row]], axis=1)
        self._weights = np.linalg.pinv(design)

    @property
    def noise_variance(self) -> float:
        """Variance of a slope, b or c, that is fitted to white noise of s.d. 1; the mean of both."""
        return float(np.square(self._weights[1:]).sum(axis=1).mean())

    def coefficients(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return a, b and c, (N, 3), of images (N, D, D)."""
        background = (image.reshape(-1)[self.pixels].astype(np.float64) for image in images)
        found = [(self._weights * values).sum(axis=1) for values in background]
        return np.array(found).reshape(-1, 3)

    def subtract(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return images (N, D, D) without the plane that fits their background."""
        flat = np.empty_like(images)
        for number, (a, b, c) in enumerate(self.coefficients(images)):
            flat[number] = images[number] - (a + b * self._axis + c * self._axis[:, None])
        return flat

    def median_ramp(self, images: NDArray[np.float32]) -> float:
        """Return the median amplitude of the background's linear ramp, beyond what the fit finds in white noise.

        The squared amplitude b^2 + c^2 in noise alone is exponentially distributed, with the median 2 ln 2 times the
        variance of a slope, which is subtracted. Noise that is stronger at low frequency leaves somewhat more.

        Args:
            images: (N, D, D); their background is not constant.

        Returns:
            At the edge of the box, in s.d. of the background's pixels around the plane.
        """
        flat = (self.subtract(image[None]).reshape(-1)[self.pixels] for image in images)
        variance = np.array([background.var(dtype=np.float64) for background in flat])
        squared = np.square(self.coefficients(images)[:, 1:]).sum(axis=1) / variance
        return float(np.sqrt(max(0.0, np.median(squared) - 2 * np.log(2) * self.noise_variance)))
