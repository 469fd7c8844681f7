"""Resolution by direction: the FSC of two half maps in cones, and how evenly views sample Fourier space."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.ndimage import uniform_filter1d

from cryogan.errors import InputError
from cryogan.grids import frequency_axis
from cryogan.validation.checks import Array, cubic, half_frequency, positive
from cryogan.validation.fsc import FscCurves, crossing_shells, without_mask_correlation
from cryogan.validation.masks import check_mask

THRESHOLD = 0.143
DIRECTIONS = 256  # of cones, over the half sphere
SMOOTHED = 5  # shells: few coefficients are in a cone, and the molecule may have no power in all of one shell's
SAMPLED = 1024  # directions in which views are counted
VIEWS_AT_ONCE = 1 << 14


@dataclass(frozen=True, eq=False)
class ConicalFsc:
    """FSC of two half maps in N cones of Fourier space.

    Attributes:
        directions: (N, 3), axes of the cones, unit vectors x, y, z with z > 0; a cone holds k and -k.
        curves: (N, D//2+1), FSC in each cone, corrected for the mask.
        resolution: (N,), A, where their mean over 5 shells falls below 0.143.
        half_angle: of a cone, degrees.
        area_ratio: cFAR, see `conical_fsc`.
    """

    directions: Array
    curves: Array
    resolution: Array
    half_angle: float
    area_ratio: float


def half_sphere(count: int) -> Array:
    """Spread unit vectors (count, 3) evenly over the half sphere z > 0, along a Fibonacci spiral."""
    index = np.arange(count) + 0.5
    z, azimuth = index / count, np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=1)


def conical_fsc(
    half1: npt.ArrayLike, half2: npt.ArrayLike, mask: npt.ArrayLike, curves: FscCurves, half_angle: float = 20.0
) -> ConicalFsc:
    """Compute the FSC of two masked half maps in cones about 256 directions, and cFAR.

    Each shell is divided into the coefficients within `half_angle` of an axis, or of its opposite. What the mask
    correlates is taken from the phase-randomised FSC of whole shells, as a cone holds too few coefficients to tell. A
    shell in which a cone holds none has the value of the whole shell.

    cFAR, the conical FSC area ratio, is the smallest area under a cone's curve over the largest (cryoSPARC 4.4,
    Orientation Diagnostics, which calls values under 0.5 a sign of preferred orientation). Here all areas run from
    shell 1 to where the FSC of the whole map falls below 0.143, negative values left out: each cone's own first
    crossing would often be a shell in which the molecule happens to have no power. As the smallest over the largest of
    noisy numbers cFAR stays below 1 for isotropic maps, and depends on mask and box.

    Args:
        half1: (D, D, D).
        half2: (D, D, D), in the same frame.
        mask: (D, D, D), that of `curves`.
        curves: FSC of the half maps, from `fsc_curves` with the mask.
        half_angle: degrees.

    Raises:
        InputError: maps, mask and curves differ in shape, the maps are not cubic or not finite, or the angle is not
            above 0.
    """
    first, second = cubic(half1, "first map"), cubic(half2, "second map")
    box = len(first)
    if second.shape != first.shape or len(curves.masked) != box // 2 + 1:
        raise InputError("The maps and their FSC differ in box. Compute the FSC of these maps.")
    window, cosine = check_mask(mask, box), np.cos(np.radians(positive(half_angle, "half angle")))
    one, other = (fft.rfftn(density * window).ravel() for density in (first, second))
    products = np.stack([(one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2])
    radius, directions = half_frequency(box).ravel(), half_sphere(DIRECTIONS)
    units = (_frequencies(box) / np.maximum(radius, 1)[:, None]).astype(np.float32)
    shell = np.rint(radius).astype(np.int64)
    by_shell = np.split(np.argsort(shell, kind="stable"), np.cumsum(np.bincount(shell))[:-1])
    masked = np.ones((DIRECTIONS, box // 2 + 1))
    for number in range(1, box // 2 + 1):
        index = by_shell[number]
        inside = np.abs(units[index] @ directions.T.astype(np.float32)) >= cosine
        # In units of the shell's own power, single precision does.
        part = products[:, index]
        _, power1, power2 = part.sum(axis=1)
        scale = np.array([np.sqrt(power1) * np.sqrt(power2), power1, power2])[:, None]
        scaled = np.divide(part, scale, out=np.zeros_like(part), where=scale > 0)
        cross, power1, power2 = (scaled.astype(np.float32) @ inside.astype(np.float32)).astype(np.float64)
        power = np.sqrt(power1) * np.sqrt(power2)
        whole = np.full(DIRECTIONS, curves.masked[number])
        masked[:, number] = np.divide(cross, power, out=whole, where=power > 0)
    randomised_from = box * curves.pixel_size / curves.randomised_from
    corrected = without_mask_correlation(masked, curves.phase_randomised, randomised_from)
    smooth = uniform_filter1d(corrected, SMOOTHED, axis=1, mode="nearest")
    resolution = box * curves.pixel_size / crossing_shells(smooth, THRESHOLD, box)
    last = int(crossing_shells(curves.corrected[None], THRESHOLD, box)[0])
    areas = corrected[:, 1 : last + 1].clip(min=0).sum(axis=1)
    area_ratio = float(areas.min() / areas.max()) if areas.max() > 0 else 0.0
    return ConicalFsc(directions, corrected, resolution, half_angle, area_ratio)


def _frequencies(box: int) -> Array:
    """Frequencies (D * D * (D//2+1), 3), x, y and z, of a half spectrum, cycles per box."""
    axis = frequency_axis(box)
    z, y, x = np.meshgrid(axis, axis, np.arange(box // 2 + 1), indexing="ij")
    frequencies: Array = np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float64)
    return frequencies


def sampling_compensation_factor(views: npt.ArrayLike, group: npt.ArrayLike, radius: float) -> float:
    """Compute how evenly views sample Fourier space: SCF (Baldwin and Lyumkis 2020, Prog. Biophys. Mol. Biol. 150:160).

    A frequency is sampled by the views perpendicular to it: s(k) counts the views v with ``|k v| < 1 / (2 radius)``,
    half a voxel at that radius. SCF = 1 / (mean s  mean 1/s) over the directions k, the factor by which the spectral
    signal-to-noise ratio falls below that of as many uniform views: 1 for uniform views, 8 / pi^2 = 0.81 for side
    views alone (evenly about an axis). A direction without any view counts as with one, where SCF would be 0.

    Args:
        views: (N, 3), viewing directions in the map's frame, unit vectors.
        group: (n, 3, 3), point group of the map; each view counts as its n equal ones.
        radius: shell at which the sampling is judged, that of the resolution.

    Raises:
        InputError: there is no view, or the radius is not above 0.
    """
    given = np.asarray(views, dtype=np.float64).reshape(-1, 3)
    if not len(given):
        raise InputError("There are no views. Give at least one.")
    half_thickness = 0.5 / positive(radius, "Fourier radius")
    equal = np.einsum("gij,nj->gni", np.asarray(group, dtype=np.float64), given).reshape(-1, 3).astype(np.float32)
    directions, sampling = half_sphere(SAMPLED).astype(np.float32), np.zeros(SAMPLED)
    for start in range(0, len(equal), VIEWS_AT_ONCE):
        heights = np.abs(directions @ equal[start : start + VIEWS_AT_ONCE].T)
        sampling += np.count_nonzero(heights < half_thickness, axis=1)
    sampling = np.maximum(sampling, 1)
    return float(1 / (sampling.mean() * (1 / sampling).mean()))
