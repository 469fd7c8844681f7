"""The two half sets of a finished run with their maps, and what both do side by side."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from cryogan.errors import InputError
from cryogan.particles import read_volume
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import Poses, search_poses
from cryogan.refinement.scores import Scores, score_particles
from cryogan.run import warnings
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.plan import Plan
from cryogan.validation import FscCurves, fsc_curves, soft_mask

T = TypeVar("T")

LEAST_CUTOFF = 4.0  # shell


class HalfPair:
    """The two half sets of a finished run, their maps in one frame, and the poses of their particles.

    Args:
        run: Folder of a finished `cryogan reconstruct`.

    Attributes:
        plan: Plan of the run.
        particles: STAR file of its particles, with their halves.
        record: Record of its settings.
        halves: Particles of each half.
        maps: Map (D, D, D) of each half.
        mask: Soft mask of the mean map.
        curves: FSC of the half maps.

    Raises:
        InputError: If it is not one, or the run's device is not here.
    """

    def __init__(self, run: Path) -> None:
        self.plan = Plan.read(run)
        if not self.plan.is_picked:
            raise InputError(f"{run} is a run on patches with particles anywhere; poses need picked particles.")
        self.plan.require_device(run)
        folder = RunFolder(run)
        folder.require_finished()
        self.particles, self.record = folder.particles, folder.record
        torch.set_num_threads(self.plan.threads)
        self.halves = [HalfSet(self.plan, self.particles, half) for half in HALVES]
        self._at_once = self.halves[0].micro_batch.size
        self.maps = [torch.from_numpy(read_volume(path)[0]).to(self.plan.device) for path in folder.half_maps]
        self.mask, self.curves = self._compare()

    @property
    def cutoff(self) -> float:
        """Shell below which the half maps agree."""
        beyond = np.flatnonzero(self.curves.corrected[1:] < 0.143)
        return max(float(beyond[0] + 1 if len(beyond) else self.plan.box // 2), LEAST_CUTOFF)

    def search_poses(self, console: Console, label: str) -> list[Poses]:
        """Find the poses of each half's particles against its own map, weighted by the FSC of the halves.

        Args:
            console: Where progress is shown.
            label: What it is called there.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            advance = partial(bar.advance, bar.add_task(label, total=sum(map(len, self.halves))))
            poses = self._of_both(
                lambda half, density: search_poses(half, self.weighted(half, density), self.cutoff, advance), self.maps
            )
        at_once = min(half.micro_batch.size for half in self.halves)
        if at_once < self._at_once:
            finding = warnings.SMALLER_BATCHES(who="The search of poses", images=at_once)
            console.print(finding.sentence, highlight=False, soft_wrap=True)
            self._at_once = at_once
        return poses

    def scores(self, poses: list[Poses]) -> list[Scores]:
        """Compare the particles of each half with the map of the other, of which they are no part."""
        return self._of_both(
            lambda half, density, best: score_particles(half, self.weighted(half, density), best, self.cutoff),
            self.maps[::-1],
            poses,
        )

    def change_maps(self, change: Callable[[HalfSet, Tensor, Poses], Tensor], poses: list[Poses]) -> None:
        """Replace each half's map by one that a function makes of it, of the particles and of their poses."""
        self.maps = self._of_both(change, self.maps, poses)
        self.mask, self.curves = self._compare()

    def weighted(self, half: HalfSet, density: Tensor) -> Tensor:
        """Return a map (D, D, D) under the mask, each shell times the FSC of the halves: poses are judged by it."""
        return half.filtered(density * torch.from_numpy(self.mask).to(density), self.curves.corrected)

    def _compare(self) -> tuple[np.ndarray, FscCurves]:
        """Return a soft mask of the mean map, and the FSC of the halves."""
        half1, half2 = (density.cpu().numpy() for density in self.maps)
        mask = soft_mask((half1 + half2) / 2, self.plan.pixel_size)
        return mask, fsc_curves(half1, half2, self.plan.pixel_size, mask, seed=self.plan.settings.seed)

    def _of_both(self, task: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
        with ThreadPoolExecutor(len(HALVES)) as pool:
            return list(pool.map(task, self.halves, *arguments))
