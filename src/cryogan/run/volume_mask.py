"""A user's mask that bounds the map in place of a sphere: read, checked, and brought to a box."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from cryogan.errors import InputError
from cryogan.grids import centred_radius
from cryogan.particles import read_volume
from cryogan.physics.symmetry import Symmetriser
from cryogan.validation.masks import ROUNDING, check_mask

SAME_WIDTH = 0.01  # relative difference of the boxes' widths
SYMMETRIC = 0.95  # least correlation of a mask with its average over the point group
EXACT = 0.999  # from which on that average is not worth a word
CORNERS = 0.02  # largest share of a mask in the corners of the box, where it is cut off


@dataclass(frozen=True)
class VolumeMask:
    """A mask at a box.

    Attributes:
        values: (D, D, D) from 0 to 1, the average of the mask that was given over the point group.
        correlation: of the two.
        cut: share of the mask in the corners of the box, beyond the inscribed sphere, that was cut off.
    """

    values: NDArray[np.float32]
    correlation: float
    cut: float

    @property
    def was_symmetric(self) -> bool:
        """Whether the mask that was given has the symmetry."""
        return self.correlation >= EXACT


def read_volume_mask(path: Path, box: int, width_A: float, symmetry: str) -> VolumeMask:
    """Read a mask, bring it to a box, centre voxel on centre voxel, and average it over the point group.

    Args:
        path: MRC file.
        box: D, voxels.
        width_A: width of the particles' box, A.
        symmetry: point group.

    Raises:
        InputError: the file is no cubic map with a voxel size, has another width, values outside [0, 1], none above
            0, is inverted, reaches into the corners of the box, or does not have the symmetry.
    """
    given, pixel_size = read_volume(path)
    size = len(given)
    if abs(size * pixel_size / width_A - 1) > SAME_WIDTH:
        raise InputError(
            f"{path}: the mask is {size} voxels of {pixel_size:.3f} A, {size * pixel_size:.1f} A; the box of the "
            f"particles has {width_A:.1f} A. Pad or crop it to that width, or correct its header with "
            "relion_image_handler --force_header_angpix."
        )
    try:
        mask = _at_box(check_mask(given, size), width_A / box / pixel_size, box)
        check_mask(mask, box)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    corners = centred_radius(box, axes=3) > box / 2
    cut = float(mask[corners].sum() / mask.sum())
    if cut > CORNERS:
        raise InputError(
            f"{path}: {cut:.0%} of the mask is in the corners of the box, which a turn of the map cuts off. Set it to "
            f"0 beyond {width_A / 2:.0f} A from the centre."
        )
    mask[corners] = 0
    average = Symmetriser(symmetry, box, device=torch.device("cpu"), dtype=torch.float64)(torch.from_numpy(mask))
    values = average.numpy()
    correlation = float((mask * values).sum() / np.sqrt((mask**2).sum() * (values**2).sum()))
    if correlation < SYMMETRIC:
        raise InputError(
            f"{path}: the mask correlates with its average over {symmetry} only to {correlation:.2f}. Give a mask "
            "about the axes of that point group, such as one made of a map of this program, or another --symmetry."
        )
    return VolumeMask(values.astype(np.float32), correlation, cut)


def _at_box(mask: NDArray[np.float64], scale: float, box: int) -> NDArray[np.float64]:
    """Interpolate a mask linearly at voxels `scale` of its own apart; by Fourier series, a sharp edge would ring."""
    offset = len(mask) // 2 - scale * (box // 2)
    shape = (box, box, box)
    values = ndimage.affine_transform(mask, np.full(3, scale), offset, shape, order=1, mode="grid-constant")
    values[values < ROUNDING] = 0
    return np.minimum(values, 1)
