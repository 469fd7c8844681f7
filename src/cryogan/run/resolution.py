"""Where in a map, and in which directions, its half maps agree how well: files, figures, and what a user is told.

docs/resolution.md explains it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryogan.errors import Finding
from cryogan.particles import read_star, write_volume
from cryogan.physics.symmetry import point_group
from cryogan.report.figures import plot_directions, plot_local_resolution
from cryogan.rotations import euler_to_rotations
from cryogan.run import warnings
from cryogan.run.folder import MapFolder, RunFolder
from cryogan.run.judgement import COARSE_SHELLS
from cryogan.run.plan import Plan
from cryogan.validation import (
    ConicalFsc,
    FscCurves,
    LocalResolution,
    conical_fsc,
    local_resolution,
    resolution_at,
    sampling_compensation_factor,
)

UNEVEN = 0.5  # cFAR below which cryoSPARC speaks of preferred orientation
VIEWS = "Views of the poses"  # what is said of them, by this name
MOST = (5, 95)  # percentiles of directions


@dataclass(frozen=True, eq=False)
class MapResolution:
    """Resolution of a map by place and direction.

    Attributes:
        local: local resolution; None: the half maps agree to too few shells.
        directions: FSC in cones; None: the half maps agree to too few shells.
        scf: sampling compensation factor of the particles' poses; None: there are no poses.
    """

    local: LocalResolution | None = None
    directions: ConicalFsc | None = None
    scf: float | None = None

    @property
    def range_of_directions(self) -> tuple[float, float] | None:
        """Resolutions, A, between which those of nine tenths of the directions lie."""
        if self.directions is None:
            return None
        fine, coarse = np.percentile(self.directions.resolution, MOST)
        return float(fine), float(coarse)

    @property
    def facts(self) -> dict[str, str]:
        """What was found, in words, by what it is called."""
        facts = {"Local resolution": "not measured: the half maps agree to too few shells for windows in the box"}
        if self.local is not None:
            fine, coarse = self.local.tenths
            facts["Local resolution"] = (
                f"median {self.local.median:.1f} A; a tenth of the molecule is finer than {fine:.1f} A, a tenth "
                f"coarser than {coarse:.1f} A (FSC 0.5 in windows of {self.local.width_A:.0f} A)"
            )
        facts["Resolution by direction"] = f"not measured: the half maps agree to fewer than {COARSE_SHELLS} shells"
        if self.directions is not None and self.range_of_directions is not None:
            fine, coarse = self.range_of_directions
            facts["Resolution by direction"] = (
                f"{fine:.1f} to {coarse:.1f} A in nine tenths of the directions (FSC 0.143 in cones of "
                f"{self.directions.half_angle:.0f} degrees); cFAR {self.directions.area_ratio:.2f}"
            )
        if self.scf is not None:
            facts[VIEWS] = f"SCF {self.scf:.2f} (1: as good as uniform; 0.81: side views alone)"
        return facts

    @property
    def findings(self) -> list[Finding]:
        """A warning if the resolution depends on the direction."""
        if self.directions is None or self.range_of_directions is None or self.directions.area_ratio >= UNEVEN:
            return []
        fine, coarse = self.range_of_directions
        return [warnings.ANISOTROPIC(ratio=self.directions.area_ratio, fine=fine, coarse=coarse)]

    @property
    def values(self) -> dict[str, object]:
        """The numbers for a program to read."""
        local, directions = self.local, self.directions
        return {
            "local_resolution_A": None
            if local is None
            else {"median": local.median, "tenths": local.tenths, "window": local.width_A},
            "directions": None
            if directions is None
            else {
                "cfar": directions.area_ratio,
                "resolution_A": self.range_of_directions,
                "half_angle": directions.half_angle,
            },
            "scf": self.scf,
        }


def local_resolution_path(folder: MapFolder) -> Path:
    """Return the path of the map of local resolution, A."""
    return folder.path / "local_resolution.mrc"


def pictures(folder: MapFolder) -> Mapping[str, Path]:
    """Return the figures by their captions."""
    return {
        "Local resolution inside the molecule (local_resolution.mrc).": folder.figure("local_resolution"),
        "Resolution of the half maps by direction.": folder.figure("directions"),
    }


def measure_resolution(
    folder: MapFolder, plan: Plan, halves: tuple[np.ndarray, np.ndarray], mask: np.ndarray, curves: FscCurves
) -> MapResolution:
    """Measure two half maps by place and direction, and write local_resolution.mrc.

    Where the half maps agree to too few shells, there is no number, and an older file is removed.

    Args:
        folder: folder of the half maps.
        plan: plan of the run.
        halves: half maps in one frame, (D, D, D) each.
        mask: soft mask around the molecule, (D, D, D).
        curves: FSC of the half maps with this mask.
    """
    for path in (local_resolution_path(folder), *pictures(folder).values()):
        path.unlink(missing_ok=True)
    resolution = resolution_at(curves.corrected, plan.pixel_size, 0.143, plan.box)
    local = local_resolution(*halves, plan.pixel_size, mask, resolution)
    if local is not None:
        write_volume(local_resolution_path(folder), local.volume, plan.pixel_size)
    directions = None
    if resolution <= plan.box * plan.pixel_size / COARSE_SHELLS:
        directions = conical_fsc(*halves, mask, curves)
    poses = [found.particles for found in _with_poses(folder) if found.particles.exists()]
    scf = scf_of_poses(poses[0], plan, resolution) if poses else None
    return MapResolution(local, directions, scf)


def plot_resolution(folder: MapFolder, plan: Plan, found: MapResolution, mean: np.ndarray, curves: FscCurves) -> None:
    """Draw what `measure_resolution` has found of half maps with this mean, (D, D, D), and these curves."""
    folder.figures.mkdir(exist_ok=True)
    if found.local is not None:
        plot_local_resolution(folder.figure("local_resolution"), mean, found.local.volume, found.local.inside)
    if found.directions is not None:
        plot_directions(
            folder.figure("directions"),
            found.directions.directions,
            found.directions.resolution,
            curves.frequency,
            found.directions.curves,
            plan.pixel_size,
        )


def _with_poses(folder: MapFolder) -> tuple[MapFolder, ...]:
    """Folders where the poses of a map's particles are: of a run, if a refinement or a search has found them."""
    return (folder.refined, folder.poses) if isinstance(folder, RunFolder) else (folder,)


def scf_of_poses(star: Path, plan: Plan, resolution: float) -> float:
    """Compute the sampling compensation factor of the poses in a STAR file.

    Args:
        star: particles.star of `cryogan refine` or `cryogan poses`.
        plan: plan of the run.
        resolution: A, at whose shell the sampling is judged.
    """
    table = read_star(star)["particles"]
    rotations = euler_to_rotations(*(table.floats(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi"))).numpy()
    group = point_group(plan.settings.symmetry)
    return sampling_compensation_factor(rotations[:, :, 2], group, plan.box * plan.pixel_size / resolution)
