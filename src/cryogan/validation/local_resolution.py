"""Local resolution: the FSC of two half maps in a window that is moved through the molecule."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from cryogan.errors import InputError
from cryogan.grids import centred_radius, falling_cosine, frequency_radius
from cryogan.validation.checks import Array, cubic, positive
from cryogan.validation.fsc import crossing_shells
from cryogan.validation.masks import check_mask

THRESHOLD = 0.5  # few coefficients are in a window: their FSC scatters by 0.1 to 0.2, and 0.143 says nothing
WINDOW = 5.0  # width at half height, over the resolution of the whole map
LARGEST = 0.5  # of the box, that width
STEPS = 4  # of the lattice of windows, in that width
INSIDE = 0.9  # value of the mask, whose edge lies in the solvent
VOXELS_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class LocalResolution:
    """Resolution of two half maps by place.

    Attributes:
        volume: (D, D, D), A; outside the molecule the coarsest value inside.
        inside: (D, D, D), voxels of the molecule.
        width_A: width of the window at half height, A.
    """

    volume: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]
    width_A: float

    @property
    def median(self) -> float:
        """Median over the voxels of the molecule, A."""
        return float(np.median(self.volume[self.inside]))

    @property
    def tenths(self) -> tuple[float, float]:
        """Resolutions, A, of which a tenth of the molecule is finer than the first, a tenth coarser than the second."""
        fine, coarse = np.percentile(self.volume[self.inside], (10, 90))
        return float(fine), float(coarse)


def local_resolution(
    half1: npt.ArrayLike, half2: npt.ArrayLike, pixel_size: float, mask: npt.ArrayLike, resolution_A: float
) -> LocalResolution | None:
    """Measure the resolution of two half maps around each point of the molecule.

    A soft spherical window, 5 times as wide as the resolution of the whole map, is centred on the points of a lattice
    inside the mask, four in its width. The FSC of the windowed half maps gives the resolution at its centre (Cardone,
    Heymann and Steven 2013, J. Struct. Biol. 184:226), which is interpolated linearly, as 1/A, between the points.

    The threshold is 0.5, as in cryoSPARC. `relion_postprocess --locres` takes 0.143 of an FSC that is corrected by
    random phases beyond 25 A, which molecules at 10 to 20 A do not have; its numbers are finer. Nothing is corrected
    here: the window carries signal and noise over about 0.4 / `width_A` in frequency, so that values are too fine by up
    to that where the FSC falls steeply; values coarser than a third of the window's width are rough, and what lies
    within half a window is mixed.

    Args:
        half1: (D, D, D).
        half2: (D, D, D), in the same frame.
        pixel_size: A.
        mask: soft mask around the molecule, (D, D, D).
        resolution_A: resolution of the whole map, A; it sets the width of the window.

    Returns:
        None where the window would be wider than half of the box, or the mask holds no point of the lattice.

    Raises:
        InputError: maps and mask differ in shape, are not cubic or not finite, or a length is not above 0.
    """
    first, second = cubic(half1, "first map"), cubic(half2, "second map")
    if first.shape != second.shape:
        raise InputError(f"The maps are {first.shape} and {second.shape}. Resample one to the other's box.")
    box = len(first)
    inside = check_mask(mask, box) > INSIDE
    width = WINDOW * positive(resolution_A, "resolution") / positive(pixel_size, "pixel size")
    if width > LARGEST * box:
        return None
    step = round(width / STEPS)
    axis = np.arange(box // 2 % step, box, step)
    sampled = inside[np.ix_(axis, axis, axis)]
    if not sampled.any():
        return None
    window = _window(width)
    curves = _windowed_fsc((first, second), axis[np.argwhere(sampled)], window)
    frequency = np.full(sampled.shape, np.nan)
    frequency[sampled] = crossing_shells(curves, THRESHOLD, len(window)) / (len(window) * pixel_size)
    volume = (1 / _interpolate(frequency, axis, box)).astype(np.float32)
    volume[~inside] = volume[inside].max()
    return LocalResolution(volume, inside, width * pixel_size)


def _window(width: float) -> npt.NDArray[np.float32]:
    """A ball with a raised-cosine edge from a quarter of the width to three quarters, in the smallest even box."""
    size = 2 * int(np.ceil(0.75 * width))
    return falling_cosine(centred_radius(size, axes=3), width / 4, width / 2).astype(np.float32)


def _windowed_fsc(maps: tuple[Array, Array], points: npt.NDArray[np.int64], window: npt.NDArray[np.float32]) -> Array:
    """FSC (P, M//2+1) of maps (D, D, D) times the window (M, M, M) centred on each point (P, 3), in z, y, x."""
    size = len(window)
    shells = np.rint(frequency_radius(size, axes=3)).ravel() == np.arange(size // 2 + 1)[:, None]
    by_shell = shells.T.astype(np.float32)
    # Padded by half a window, a window's first voxel has the number of its centre in the map.
    views = [
        np.lib.stride_tricks.sliding_window_view(np.pad(density.astype(np.float32), size // 2), window.shape)
        for density in maps
    ]
    curves = []
    for part in np.array_split(points, -(-len(points) * window.size // VOXELS_AT_ONCE)):
        one, other = (fft.rfftn(view[tuple(part.T)] * window, axes=(1, 2, 3)).reshape(len(part), -1) for view in views)
        cross = (one * other.conj()).real @ by_shell
        power = np.sqrt((np.abs(one) ** 2 @ by_shell).astype(np.float64) * (np.abs(other) ** 2 @ by_shell))
        curves.append(np.divide(cross, power, out=np.zeros_like(power), where=power > 0))
    return np.concatenate(curves)


def _interpolate(values: Array, axis: npt.NDArray[np.int64], box: int) -> Array:
    """Interpolate values (n, n, n) at lattice points linearly to (box, box, box); NaN takes the nearest value."""
    nearest = ndimage.distance_transform_edt(np.isnan(values), return_distances=False, return_indices=True)
    filled = values[tuple(nearest)]
    place = np.clip((np.arange(box) - axis[0]) / (axis[1] - axis[0]), 0, len(axis) - 1)
    weights = np.clip(1 - np.abs(place[:, None] - np.arange(len(axis))), 0, None)
    volume: Array = np.einsum("zk,yj,xi,kji->zyx", weights, weights, weights, filled, optimize=True)
    return volume
