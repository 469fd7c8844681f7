"""Pixels that hold no measurement: blank, repeated or not finite."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RUN = 16  # equal neighbours in a row; two integer counts of s.d. 1 are equal with 0.28, so 16 never are by chance
BLANK_SHARE = 0.05  # of an image's pixels: with more of them broken, its mean, s.d. and noise are not its own
_SUSPECT = 0.03  # share of pixels equal to a neighbour, from which on the broken ones are counted
REPEATED = 0.5  # of a line's pixels equal to those of the next line: one is a copy of the other


def broken_pixels(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the pixels of an image that are not finite, constant over a run, or copied from the next row or column.

    Motion correction leaves such bands at the borders of micrographs: filled with zeros or a mean, or the last row
    repeated.

    Args:
        image: (H, W).

    Returns:
        (H, W), True where a pixel is broken.
    """
    broken: NDArray[np.bool_] = ~np.isfinite(image)
    for axis in (0, 1):
        lines = np.moveaxis(image, axis, 0)
        equal = lines[1:] == lines[:-1]
        starts = ndimage.minimum_filter1d(equal.view(np.int8), RUN, axis=0, mode="constant")
        # A filter of even length reaches further to one side: the second is turned, to undo the first.
        runs = ndimage.maximum_filter1d(starts, RUN, axis=0, mode="constant", origin=-1)
        repeated = equal.mean(axis=1) > REPEATED
        marked = (runs > 0) | repeated[:, None]
        of_axis = np.moveaxis(broken, axis, 0)
        of_axis[1:] |= marked
        of_axis[:-1] |= marked
    return broken


def blank_in_part(images: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which images hold more than a twentieth of broken pixels: boxes that stick out of a micrograph, or masked.

    Args:
        images: (B, H, W).

    Returns:
        (B,), True where an image is blank in part.
    """
    rows = (images[:, 1:] == images[:, :-1]).mean(axis=(1, 2))
    columns = (images[:, :, 1:] == images[:, :, :-1]).mean(axis=(1, 2))
    blank: NDArray[np.bool_] = np.maximum(rows, columns) > _SUSPECT
    for index in np.flatnonzero(blank):
        blank[index] = broken_pixels(images[index]).mean() > BLANK_SHARE
    return blank
