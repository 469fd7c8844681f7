"""Two half maps and the particles of each half, ready to be tested: each half's particles with the other half's map."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.errors import InputError
from cryogan.particles import read_volume
from cryogan.particles.choosing import Part
from cryogan.refinement.half_set import HalfSet
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.plan import Plan
from cryogan.validation import FscCurves, fsc_curves, molecule_diameter, resolution_at, soft_mask

AT_MOST = 1000  # particles of each half that take part
AGREED, CLEARLY = 0.143, 0.5  # FSC of half maps


def finest_shell(curve: NDArray[np.float64]) -> int:
    """Return the last shell, 1 or more, to which an FSC is over 0.143, but for dips from which it comes back to 0.5.

    In a dip the molecule has no signal; what comes back to less may be noise.

    Args:
        curve: FSC (D // 2 + 1,).
    """
    back = int(np.flatnonzero(curve >= CLEARLY).max(initial=1))
    below = np.flatnonzero(curve[back + 1 :] < AGREED)
    return back + int(below[0]) if len(below) else len(curve) - 1


@dataclass(frozen=True, eq=False)
class HalfMapTest:
    """Half maps in one frame, and the particles of each half.

    Attributes:
        plan: Box, symmetry and all else that the particles are read with.
        half_maps: Map of half 1 and of half 2, (D, D, D) each.
        halves: Particles of half 1 and of half 2.
        independent: Whether each map is of its half alone; otherwise they are one map, of none of these particles.
    """

    plan: Plan
    half_maps: tuple[NDArray[np.float32], NDArray[np.float32]]
    halves: tuple[HalfSet, HalfSet]
    independent: bool = True

    @classmethod
    def of_run(cls, run: Path, part: Part = "report") -> "HalfMapTest":
        """Read the half maps of a finished run, and the particles of each half.

        Args:
            run: Folder of a finished `cryogan reconstruct`.
            part: The particles kept for choosing between runs, or the others, of which a run is judged.

        Raises:
            InputError: If it is not one, its particles were not picked, or its device is not here.
        """
        plan, folder = Plan.read(run), RunFolder(run)
        if not plan.is_picked:
            raise InputError(f"{run} is a run on patches with particles anywhere; this needs picked particles.")
        plan.require_device(run)
        folder.require_finished()
        torch.set_num_threads(plan.threads)
        half1, half2 = (read_volume(path)[0] for path in folder.half_maps)
        return cls.of(plan, (half1, half2), folder.particles, part=part)

    @classmethod
    def of(
        cls,
        plan: Plan,
        half_maps: tuple[NDArray[np.float32], NDArray[np.float32]],
        particles: Path,
        independent: bool = True,
        part: Part | None = None,
    ) -> "HalfMapTest":
        """Read the particles of each half.

        Args:
            plan: As the attribute.
            half_maps: As the attribute.
            particles: As for `cryogan.run.build.read_half`.
            independent: As the attribute.
            part: As for `HalfSet`; of those kept for choosing all are read, the same for each run.
        """
        at_most = None if part == "choose" else AT_MOST
        first, second = (HalfSet(plan, particles, half, at_most, part) for half in HALVES)
        return cls(plan, half_maps, (first, second), independent)

    @cached_property
    def maps(self) -> tuple[Tensor, Tensor]:
        """The map that the particles of half 1 and of half 2 are tested with: the other half's."""
        first, second = (torch.from_numpy(volume).to(self.plan.device) for volume in self.half_maps)
        return second, first

    @cached_property
    def mask(self) -> NDArray[np.float32]:
        """Soft mask around the molecule, (D, D, D)."""
        return soft_mask((self.half_maps[0] + self.half_maps[1]) / 2, self.plan.pixel_size)

    @cached_property
    def curves(self) -> FscCurves:
        """FSC of the half maps."""
        return fsc_curves(*self.half_maps, self.plan.pixel_size, self.mask, seed=self.plan.settings.seed)

    @cached_property
    def correlation(self) -> float:
        """Correlation of the half maps."""
        first, second = (half_map.ravel() for half_map in self.half_maps)
        return float(np.corrcoef(first, second)[0, 1])

    @property
    def width_A(self) -> float:
        """Width of the box, A."""
        return self.plan.box * self.plan.pixel_size

    @property
    def resolution(self) -> float:
        """Corrected FSC 0.143 of the half maps, A."""
        return resolution_at(self.curves.corrected, self.plan.pixel_size, 0.143, self.plan.box)

    @property
    def finest_A(self) -> float:
        """Resolution, A, to which the corrected FSC is over 0.143 but for dips, which that of hollow molecules has."""
        return self.width_A / finest_shell(np.nan_to_num(self.curves.corrected))

    @cached_property
    def molecule_diameter(self) -> float:
        """Diameter of a ball of the molecule's volume, A."""
        return molecule_diameter((self.half_maps[0] + self.half_maps[1]) / 2, self.plan.pixel_size)

    def weighted(self, side: int) -> Tensor:
        """Return the map that half `side` (0, 1) is tested with, (D, D, D), its shells weighted by the halves' FSC."""
        return self.halves[side].filtered(self.maps[side], self.curves.unmasked)

    def for_twins(self, side: int) -> Tensor:
        """Return the map from which twins of half `side` (0, 1) are simulated, (D, D, D).

        Its shells are weighted by the root of the halves' FSC: so they have the power of what the half maps agree on.
        """
        return self.halves[side].filtered(self.maps[side], np.sqrt(self.curves.unmasked.clip(0.0)))
