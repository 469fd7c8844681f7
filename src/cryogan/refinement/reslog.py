"""Resolution by number of particles: maps of nested random subsets, with the poses of a finished run's particles.

The poses are found once, against the half maps of the run, which are made of all particles. The maps of small subsets
are therefore better than those that these particles would give alone, where fewer particles also mean worse poses: the
line is too flat rather than too steep (docs/resolution.md).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from cryogan.refinement.half_pair import HalfPair
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.least_squares import least_squares_map
from cryogan.refinement.outliers import find_outliers
from cryogan.refinement.pose_search import Poses
from cryogan.refinement.posterior import Posterior
from cryogan.report.figures import plot_reslog
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.log import RunLog
from cryogan.run.reslog import ResLog, figure_path, write_reslog
from cryogan.validation import fsc_curves, resolution_at

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of each half
STEPS = 5  # of conjugate gradients, from an empty map: enough for a map with known poses


def nested_subsets(used: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Draw nested random subsets of particles, one for each of `SHARES`.

    Args:
        used: Rows of the particles that show the map, (N,).
        generator: Source of their order.
    """
    order = used[torch.randperm(len(used), generator=generator, device=generator.device).to(used.device)]
    return [order[: max(1, round(share * len(order)))].sort().values for share in SHARES]


def subset_map(half: HalfSet, poses: Poses, rows: Tensor) -> Tensor:
    """Return the least-squares map (D, D, D) of some particles of a half, begun from an empty map.

    Args:
        half: Particles.
        poses: Their poses.
        rows: Rows of those that are used.
    """
    posterior = Posterior.certain(poses.rotations[rows], poses.shifts[rows])
    empty = torch.zeros_like(half.volume.density)
    return least_squares_map(half.subset(rows), empty, posterior, half.projector.box / 2, STEPS)


def measure_reslog(run: Path, *, console: Console | None = None) -> ResLog:
    """Measure the resolution of maps from an eighth, a quarter, half and all of a finished run's particles.

    For each half, the poses of its particles are found against its own half map, as `cryogan refine` finds them, and
    outliers are left out. The subsets are random and nested; each gives a least-squares map for each half, and these
    are compared under the mask of the run. Record and figure are written to `reslog` in the run's folder; they replace
    earlier ones.

    Args:
        run: Folder of `cryogan reconstruct`.
        console: Where progress is printed; default: standard error.

    Raises:
        InputError: If the run is not finished, or not one of picked particles.
    """
    console, folder = console or Console(stderr=True), RunFolder(run)
    pair, log = HalfPair(run), RunLog(folder, console)
    plan, poses = pair.plan, pair.search_poses(console, "Poses")
    subsets = [nested_subsets(rows, half.generator) for half, rows in zip(pair.halves, _used(pair, poses), strict=True)]
    counts, resolutions = [], []
    for rows in zip(*subsets, strict=True):
        half1, half2 = _of_both(subset_map, pair.halves, poses, list(rows))
        curves = fsc_curves(half1, half2, plan.pixel_size, pair.mask, seed=plan.settings.seed)
        counts.append(sum(map(len, rows)))
        resolutions.append(resolution_at(curves.corrected, plan.pixel_size, 0.143, plan.box))
        console.print(f"{counts[-1]} particles: {resolutions[-1]:.2f} A.", highlight=False, soft_wrap=True)
    reslog = ResLog(tuple(counts), tuple(resolutions), plan.pixel_size, plan.box)
    write_reslog(folder, reslog)
    line = reslog.line
    plot_reslog(
        figure_path(folder),
        np.array(counts, dtype=np.float64),
        np.array(resolutions),
        np.array(reslog.usable),
        None if line is None else (line.slope, line.at_zero),
    )
    log.say(reslog.sentence)
    return reslog


def _used(pair: HalfPair, poses: list[Poses]) -> list[Tensor]:
    """Return the rows of each half's particles that show the map."""
    outliers = find_outliers(pair.scores(poses), [half.images.table.micrographs for half in pair.halves])
    sizes = [len(half) for half in pair.halves]
    return [kept.nonzero()[:, 0] for kept in torch.split(torch.from_numpy(outliers.kept), sizes)]


def _of_both(
    task: Callable[[HalfSet, Poses, Tensor], Tensor], halves: list[HalfSet], poses: list[Poses], rows: list[Tensor]
) -> list[np.ndarray]:
    with ThreadPoolExecutor(len(HALVES)) as pool:
        return [density.cpu().numpy() for density in pool.map(task, halves, poses, rows)]
