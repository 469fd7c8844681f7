"""Scores by which the best of several runs is chosen: of particles kept for choosing, held out from the map they meet.

The score of a particle is its log-likelihood ratio (ii) of docs/method.md, in nats, at its most likely pose in the half
map that it had no part in. All runs are scored by the same particles and frequencies, whatever their halves are.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cryogan.particles import read_volume
from cryogan.refinement.half_map_test import HalfMapTest
from cryogan.refinement.pose_search import search_poses
from cryogan.run.comparison import Score
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.plan import Plan
from cryogan.validation import fsc_curves, resolution_at, soft_mask

COARSEST_SHELL = 4  # of a cut-off


class FinishedRun:
    """A finished run, to be compared with others.

    Args:
        folder: Folder of `cryogan reconstruct`.

    Attributes:
        resolution: Corrected FSC 0.143 of the half maps, A.

    Raises:
        InputError: If it is not one, the run is not finished, or its device is not here.
    """

    def __init__(self, folder: Path) -> None:
        self.plan, self.folder = Plan.read(folder), RunFolder(folder)
        self.plan.require_device(folder)
        self.folder.require_finished()
        half1, half2 = (read_volume(path)[0] for path in self.folder.half_maps)
        mask, pixel_size = soft_mask((half1 + half2) / 2, self.plan.pixel_size), self.plan.pixel_size
        corrected = fsc_curves(half1, half2, pixel_size, mask, seed=self.plan.settings.seed).corrected
        self.resolution = resolution_at(corrected, pixel_size, 0.143, self.plan.box)

    def scores(self, cutoff_A: float) -> dict[str, float]:
        """Score the particles kept for choosing by their name.

        Args:
            cutoff_A: Resolution, A; coarser frequencies are compared, each shell weighted by the FSC of the half maps.
        """
        test = HalfMapTest.of_run(self.folder.path, "choose")
        cutoff = min(max(test.width_A / cutoff_A, COARSEST_SHELL), self.plan.box / 2)

        def scored(side: int) -> list[float]:
            half = test.halves[side]
            return search_poses(half, test.weighted(side), cutoff).log_likelihood_ratio.tolist() if len(half) else []

        with ThreadPoolExecutor(len(HALVES)) as pool:
            values = list(pool.map(scored, range(len(HALVES))))
        return {
            name: value
            for half, found in zip(test.halves, values, strict=True)
            for name, value in zip(half.names, found, strict=True)
        }


def can_be_scored(runs: Sequence[FinishedRun]) -> bool:
    """Whether runs are of picked particles at one working box, so that their scores mean the same."""
    grids = {(run.plan.box, round(run.plan.pixel_size, 4)) for run in runs}
    return len(grids) == 1 and all(run.plan.is_picked for run in runs)


def compare_scores(scores: Sequence[Mapping[str, float]]) -> tuple[int, list[Score | None]]:
    """Compare the scores of several runs, by the particles that all of them have.

    Args:
        scores: Of each run, nats by the name of a particle.

    Returns:
        The number of these particles, and the score of each run; None for all, where there are fewer than two.
    """
    common = sorted(set.intersection(*map(set, scores)))
    if len(common) < 2:
        return 0, [None] * len(scores)
    values = np.array([[of_run[name] for name in common] for of_run in scores])
    deficits = values[values.mean(1).argmax()] - values
    errors = deficits.std(1, ddof=1) / np.sqrt(len(common))
    return len(common), [
        Score(*map(float, numbers)) for numbers in zip(values.mean(1), deficits.mean(1), errors, strict=True)
    ]
