"""Which of several maps show the same structure: pairwise correlation at low resolution, and clusters of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from cryogan.validation.alignment import Alignment, align
from cryogan.validation.checks import Array
from cryogan.validation.masks import low_pass, soft_mask

SAME = 0.8  # correlation from which on two maps are one structure
COARSE_A = 30.0
LEAST_SHELLS = 8  # up to the cut-off: with fewer, any two molecules of one size look alike


@dataclass(frozen=True)
class Cutoff:
    """Resolution at which maps are compared.

    Attributes:
        resolution_A: A.
        reason: why it is not 30 A; empty where it is.
    """

    resolution_A: float
    reason: str = ""

    @classmethod
    def of(cls, width_A: float, pixel_size: float, finest_A: float) -> "Cutoff":
        """Choose 30 A; finer in a small box, of which 30 A is the outline, and never finer than the maps are.

        Args:
            width_A: width of the box, A.
            pixel_size: the coarsest of the maps, A.
            finest_A: the finest resolution of the maps, A.
        """
        cutoff = cls(COARSE_A)
        if width_A / LEAST_SHELLS < COARSE_A:
            cutoff = cls(width_A / LEAST_SHELLS, f"so that the box of {width_A:.0f} A holds {LEAST_SHELLS} shells")
        if finest_A > cutoff.resolution_A:
            cutoff = cls(finest_A, "as no half maps agree to a finer resolution")
        if 2 * pixel_size > cutoff.resolution_A:
            cutoff = cls(2 * pixel_size, "the Nyquist limit")
        return cutoff

    def __str__(self) -> str:
        return f"{self.resolution_A:.1f} A{f', {self.reason}' if self.reason else ''}"


@dataclass(frozen=True, eq=False)
class Agreement:
    """How N maps agree, each with each other.

    Attributes:
        correlation: (N, N), correlation of the aligned maps.
        alignments: of map j, which moves, to map i, by (i, j) with i < j.
    """

    correlation: Array
    alignments: Mapping[tuple[int, int], Alignment]

    def to(self, reference: int, moving: int) -> Alignment:
        """Return the transform that places a map on another one."""
        if moving > reference:
            return self.alignments[reference, moving]
        return self.alignments[moving, reference].inverse()


def compare_maps(
    maps: Sequence[npt.ArrayLike],
    pixel_size: float,
    cutoff_A: float,
    advance: Callable[[int], object] = lambda _: None,
) -> Agreement:
    """Align each two of N maps, over rotation, shift and hand, and correlate them at low resolution.

    Args:
        maps: N maps (D, D, D).
        pixel_size: A, of all.
        cutoff_A: resolution of the low-pass filter, A.
        advance: called with 1 after each pair.

    Raises:
        InputError: a map is constant, or they differ in shape.
    """
    arrays = [np.asarray(volume, dtype=np.float64) for volume in maps]
    correlation, alignments = np.eye(len(arrays)), {}
    for i, j in combinations(range(len(arrays)), 2):
        alignments[i, j] = align(arrays[j], arrays[i], pixel_size)
        moved = alignments[i, j].apply(arrays[j], pixel_size).astype(np.float64)
        correlation[i, j] = correlation[j, i] = correlation_at(arrays[i], moved, pixel_size, cutoff_A)
        advance(1)
    return Agreement(correlation, alignments)


def correlation_at(first: Array, second: Array, pixel_size: float, cutoff_A: float) -> float:
    """Correlate two maps in one frame, low-passed, inside a soft mask around the molecule of their mean.

    Args:
        first: (D, D, D).
        second: (D, D, D), in any unit.
        pixel_size: A.
        cutoff_A: resolution of the low-pass filter, A.
    """
    scaled = [volume / volume.std() for volume in (first, second)]
    mask = soft_mask((scaled[0] + scaled[1]) / 2, pixel_size)
    a, b = (low_pass(volume, pixel_size, cutoff_A) for volume in scaled)
    a, b = (volume - np.average(volume, weights=mask) for volume in (a, b))
    return float((mask * a * b).sum() / np.sqrt((mask * a**2).sum() * (mask * b**2).sum()))


def same_structures(correlation: Array, same: float = SAME) -> list[list[int]]:
    """Divide maps into structures, by complete linkage: each two maps of a structure correlate.

    Single linkage would call the ends of a chain of maps one structure, each of them like the next, which is not what
    is meant by "the runs agree".

    Args:
        correlation: (N, N).
        same: correlation from which on two maps are one structure.

    Returns:
        The indices of the maps of each structure, the largest first.
    """
    if len(correlation) < 2:
        return [list(range(len(correlation)))]
    distance = squareform(1 - correlation, checks=False)
    labels = fcluster(linkage(distance, "complete"), 1 - same, "distance")
    structures = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return sorted(structures, key=lambda members: (-len(members), members))
