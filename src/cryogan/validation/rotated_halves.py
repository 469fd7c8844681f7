"""How well half maps keep a symmetry: the half maps' correlation with it, and without it, by shell.

Half map 1 is compared with half map 2 under a rotation of the point group, and with half map 2 as it is. Both
correlations are those of maps with different noise, so their ratio is 1 for a map that has the symmetry, however noisy
the half maps are. What any molecule has in common with its turned copy does not count: shells below `FIRST_SHELL` and
the radial average about the centre of mass are left out, and each shell counts by its coefficients and by the half
maps' FSC, not by its power.
"""

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from cryogan.errors import InputError
from cryogan.physics.symmetry import point_group
from cryogan.validation.alignment import COARSE_BOX, FINE_BOX, Comparison, Pose, inscribed
from cryogan.validation.checks import Array, cubic, half_frequency, positive
from cryogan.validation.fsc import fsc
from cryogan.validation.masks import low_pass
from cryogan.validation.point_group_score import SymmetryScore
from cryogan.validation.shape import DENSEST, OUTLINE_A, OUTLINE_SHARE, radial_average
from cryogan.validation.structures import LEAST_SHELLS

FIRST_SHELL = 3  # below is the molecule's outline
AGREED = 0.143  # FSC of the half maps, to which shells are compared
WEAK = 0.1  # standard error of the score 1 from which on half maps tell too little
FILLED = np.pi / 6  # part of the box that an inscribed sphere fills, hence of the coefficients that are independent


class HalvesUnderRotation:
    """Two half maps, prepared to be compared under rotations.

    Args:
        half1: Half map 1 (D, D, D).
        half2: Half map 2, in the frame of half map 1.
        pixel_size: A.
        resolution_A: Finest resolution compared; default: where the half maps' FSC falls below 0.143.

    Attributes:
        finest_A: Finest resolution compared, A.
        coarse: Comparison of the half maps, whitened and weighted by their FSC, in a small box.
        fine: The same in a larger box.

    Raises:
        InputError: The maps are not cubic or not finite, differ in shape, or agree on too few shells.
    """

    def __init__(
        self, half1: npt.ArrayLike, half2: npt.ArrayLike, pixel_size: float, resolution_A: float | None = None
    ) -> None:
        halves = [cubic(half1, "first half map"), cubic(half2, "second half map")]
        box, width = len(halves[0]), len(halves[0]) * positive(pixel_size, "pixel size")
        centre = _centre_of_mass((halves[0] + halves[1]) / 2, pixel_size)
        first, second = (_without_ball(half, centre) for half in halves)
        curve = fsc(first, second)
        limit = min(FINE_BOX, box) // 2 - 1 if resolution_A is None else int(width / positive(resolution_A, "limit"))
        agreed = np.flatnonzero(curve[: limit + 1] >= AGREED)
        last = min(int(agreed[-1]), limit, min(FINE_BOX, box) // 2 - 1)
        if last < LEAST_SHELLS:
            raise InputError(
                f"The half maps are compared on {last} shells, to {width / max(last, 1):.0f} A: symmetry cannot be "
                f"told from their outline. Give half maps that agree on {LEAST_SHELLS} shells or more."
            )
        used = (np.arange(len(curve)) >= FIRST_SHELL) & (np.arange(len(curve)) <= last)
        amplitude = np.sqrt(np.where(used, curve, 0).clip(min=0))
        first, second = (_with_spectrum(half, amplitude) for half in (first, second))
        self.finest_A = width / last
        self.coarse, self.fine = (Comparison(second, first, min(box, size), last) for size in (COARSE_BOX, FINE_BOX))
        self._without_it = self.fine.by_shell(np.eye(3), np.zeros(3)).clip(min=0)
        coefficients = np.bincount(np.rint(half_frequency(self.fine.box)).astype(int).ravel())
        self._independent = FILLED * coefficients[: len(self._without_it)]
        self._weight = self._independent * self._without_it * used[: len(self._without_it)]
        self._is_fine = np.arange(len(self._weight)) > (FIRST_SHELL + last) / 2
        if self._error(1.0) > WEAK:
            raise InputError(
                "The half maps agree too weakly to tell whether they have a symmetry (standard error "
                f"{self._error(1.0):.0%}). Give half maps of more particles."
            )

    def score(self, symmetry: str, frame: Pose) -> SymmetryScore:
        """Score a point group.

        Args:
            symmetry: Name of the group, as for `cryogan.physics.symmetry.group_generators`.
            frame: Rotation of the map into the group's frame, and the group's centre (`shift`), voxels of `fine`.
        """
        elements = point_group(symmetry)[1:]
        angles = Rotation.from_matrix(elements).magnitude().round(6)
        ratios = [self.ratios(rotations_in_map(frame, elements[angles == angle]), frame) for angle in np.unique(angles)]
        whole, coarse, fine = np.min(ratios, axis=0)
        without_it = float((self._weight * self._without_it).sum() / self._weight.sum())
        return SymmetryScore(
            symmetry, float(whole * without_it), without_it, self._error(float(whole)), float(coarse), float(fine)
        )

    def ratios(self, rotations: Array, frame: Pose) -> Array:
        """Correlation under rotations (n, 3, 3) over that without: in all shells, the coarser and the finer half."""
        curve = np.mean([self.fine.by_shell(r, (np.eye(3) - r) @ frame.shift) for r in rotations], axis=0)
        parts = np.stack([np.ones_like(self._is_fine), ~self._is_fine, self._is_fine])
        return np.asarray((parts * self._weight * curve).sum(1) / (parts * self._weight * self._without_it).sum(1))

    def _error(self, ratio: float) -> float:
        """Standard error of a ratio: that of a correlation c of n numbers is (1 - c^2) / sqrt(n)."""
        with_it, without_it = ((1 - (r * self._without_it) ** 2) ** 2 for r in (ratio, 1.0))
        variance = self._weight**2 / self._independent * (with_it + ratio**2 * without_it)
        return float(np.sqrt(variance.sum()) / (self._weight * self._without_it).sum())


def rotations_in_map(frame: Pose, elements: Array) -> Array:
    """Rotations (n, 3, 3) of a map that are elements (n, 3, 3) of a point group in a frame of the map."""
    return np.asarray(frame.rotation.T @ elements @ frame.rotation)


def _centre_of_mass(volume: Array, pixel_size: float) -> Array:
    """Centre of mass of the molecule, (3,) voxels from the centre voxel, z, y, x."""
    density = low_pass(volume, pixel_size, max(OUTLINE_A, 2 * pixel_size))
    density -= np.median(density)
    density[density < OUTLINE_SHARE * np.quantile(density, DENSEST)] = 0
    return np.asarray(ndimage.center_of_mass(density)) - len(volume) // 2


def _without_ball(volume: Array, centre: Array) -> Array:
    """Centre a map, and subtract its background and its radial average: a ball or a hollow shell has any symmetry."""
    centred = fft.ifftn(ndimage.fourier_shift(fft.fftn(volume), -centre)).real
    molecule = inscribed(centred)
    return inscribed(molecule - radial_average(molecule))


def _with_spectrum(volume: Array, amplitude: Array) -> Array:
    """Give the shells of a map the root mean square amplitudes (D // 2 + 1,), 0 beyond."""
    spectrum, shell = fft.rfftn(volume), np.rint(half_frequency(len(volume))).astype(int)
    power = np.bincount(shell.ravel(), (np.abs(spectrum) ** 2).ravel()) / np.bincount(shell.ravel())
    gain = np.zeros_like(power)
    gain[: len(amplitude)] = amplitude / np.sqrt(power[: len(amplitude)]).clip(min=np.finfo(float).tiny)
    return inscribed(fft.irfftn(spectrum * gain[shell], s=volume.shape, axes=(0, 1, 2)))
