"""After a run: poses of its particles, and a refinement of its half maps with them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.spatial.transform import Rotation
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import require_new
from cryogan.particles import (
    ParticleImages,
    ParticleTable,
    read_particles,
    read_volume,
    write_cs_particles,
    write_particles,
)
from cryogan.particles.correction import shifts_in_file
from cryogan.particles.halves import recorded_halves
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.least_squares import least_squares_map
from cryogan.refinement.outliers import shows_the_map
from cryogan.refinement.pose_search import Poses, search_poses
from cryogan.refinement.posterior import sample_posterior
from cryogan.report.figures import plot_histogram, plot_particles, plot_view_distribution
from cryogan.rotations import rotations_to_euler
from cryogan.run import warnings
from cryogan.run.figures import plot_half_map_fsc
from cryogan.run.folder import HALVES, MapFolder, RunFolder
from cryogan.run.maps import write_maps
from cryogan.run.plan import Plan
from cryogan.run.resolution import VIEWS, MapResolution, measure_resolution, scf_of_poses
from cryogan.validation import FscCurves, fsc_curves, resolution_at, soft_mask

T = TypeVar("T")

PASSES = 5  # of a refinement, at most
SAMPLES = 3  # poses of each particle from its posterior, in a pass
STEPS = 5  # of conjugate gradients, in a pass
SHOWN = 16  # particles in the picture of the worst
GAIN = 0.2  # shells of FSC; a pass that brings less is the last


class Refinement:
    """The two half sets of a finished run, their maps in one frame, and the poses of their particles.

    Args:
        run: Folder of a finished `cryogan reconstruct`.

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
        self.particles = folder.particles
        torch.set_num_threads(self.plan.threads)
        self.halves = [HalfSet(self.plan, self.particles, half) for half in HALVES]
        self._at_once = self.halves[0].micro_batch.size
        self.maps = [torch.from_numpy(read_volume(path)[0]).to(self.plan.device) for path in folder.half_maps]
        self.mask, self.curves = self.compare()

    def compare(self) -> tuple[np.ndarray, FscCurves]:
        """Return a soft mask of the mean map, and the FSC of the halves."""
        half1, half2 = (density.cpu().numpy() for density in self.maps)
        mask = soft_mask((half1 + half2) / 2, self.plan.pixel_size)
        return mask, fsc_curves(half1, half2, self.plan.pixel_size, mask, seed=self.plan.settings.seed)

    def search_poses(self, console: Console, label: str) -> list[Poses]:
        """Find the poses of each half's particles against its own map, weighted by the FSC of the halves.

        Args:
            console: Where progress is shown.
            label: What it is called there.
        """
        beyond = np.flatnonzero(self.curves.corrected[1:] < 0.143)
        cutoff = max(float(beyond[0] + 1 if len(beyond) else self.plan.box // 2), 4.0)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            advance = partial(bar.advance, bar.add_task(label, total=sum(map(len, self.halves))))
            poses = self._of_both(
                lambda half, density: search_poses(half, self._weighted(half, density), cutoff, advance)
            )
        at_once = min(half.micro_batch.size for half in self.halves)
        if at_once < self._at_once:
            finding = warnings.SMALLER_BATCHES(who="The search of poses", images=at_once)
            console.print(finding.sentence, highlight=False, soft_wrap=True)
            self._at_once = at_once
        return poses

    def improve(self, poses: list[Poses]) -> None:
        """Move the maps towards those that fit the particles at their poses best; outliers have no part."""
        cutoff = self.plan.box / 2

        def improved(half: HalfSet, density: Tensor, best: Poses) -> Tensor:
            used = shows_the_map(best.amplitude.cpu().numpy(), best.amplitude_deviation.cpu().numpy())
            posterior = sample_posterior(half, self._weighted(half, density), best, cutoff, SAMPLES)
            weights = posterior.weights * torch.from_numpy(used).to(density.device)[:, None]
            return least_squares_map(half, density, replace(posterior, weights=weights), cutoff, STEPS)

        self.maps = self._of_both(improved, poses)
        self.mask, self.curves = self.compare()

    def write_poses(self, folder: MapFolder, poses: list[Poses]) -> None:
        """Write `particles.star` and `particles.cs` with poses, and pictures of them."""
        table = read_particles(self.particles, self.plan.data_dir, found=self.plan.image_folders)
        halves = recorded_halves(table)
        rows = np.concatenate([np.flatnonzero(halves == half) for half in HALVES])
        order, subset = np.argsort(rows), np.repeat(HALVES, [len(half.margin) for half in poses])
        both = Poses.cat(poses)
        rotations, shifts, ratio, margin, amplitude, deviation = (
            getattr(both, field.name).double().cpu().numpy()[order] for field in fields(both)
        )
        kept = shows_the_map(amplitude, deviation)
        euler, in_file = rotations_to_euler(torch.from_numpy(rotations)), shifts_in_file(shifts, table.ctf)
        columns = {
            **{f"rlnAngle{name}": euler[:, axis] for axis, name in enumerate(("Rot", "Tilt", "Psi"))},
            **{f"rlnOrigin{name}Angst": in_file[:, axis] for axis, name in enumerate("XY")},
            "rlnLogLikeliContribution": ratio,
            "rlnMaxValueProbDistribution": 1 / (1 + np.exp(-margin)),
            "rlnParticleFigureOfMerit": amplitude,
        }
        write_particles(folder.particles, table, random_subset=subset[order], columns=columns)
        write_particles(
            folder.kept_particles,
            table.select(kept),
            random_subset=subset[order][kept],
            columns={name: values[kept] for name, values in columns.items()},
        )
        vectors = Rotation.from_matrix(rotations).as_rotvec()
        for path, chosen in ((folder.cryosparc_particles, kept), (folder.cryosparc_rejected, ~kept)):
            if chosen.any():
                write_cs_particles(
                    path,
                    table.select(chosen),
                    vectors[chosen],
                    in_file[chosen],
                    subset[order][chosen],
                    source=self.plan.particles,
                    dark=self.plan.settings.invert,
                )
        folder.figures.mkdir(exist_ok=True)
        plot_view_distribution(folder.figure("view_distribution"), euler[:, 0], euler[:, 1])
        self._plot_scores(folder, table, margin, amplitude, kept)

    def _plot_scores(
        self, folder: MapFolder, table: ParticleTable, margin: np.ndarray, amplitude: np.ndarray, kept: np.ndarray
    ) -> None:
        """Plot how sure the poses are, how much of the map is in the particles, and the worst of them."""
        label = "log-likelihood beyond the next best pose (nats)"
        plot_histogram(folder.figure("margins"), margin, "How sure the poses are", label)
        title = f"{(~kept).sum()} of {len(kept)} particles left out"
        plot_histogram(folder.figure("scores"), amplitude, title, "amplitude of the map")
        worst = np.argsort(amplitude)[:SHOWN]
        images = ParticleImages(
            table.select(worst),
            self.plan.box,
            self.plan.particle_radius,
            self.plan.settings.invert,
            keep_gradient=self.plan.settings.keep_gradient,
        )
        plot_particles(folder.figure("worst_particles"), images.batch(np.arange(len(images))))

    def _of_both(self, task: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
        with ThreadPoolExecutor(len(HALVES)) as pool:
            return list(pool.map(task, self.halves, self.maps, *arguments))

    def _weighted(self, half: HalfSet, density: Tensor) -> Tensor:
        """Return a map (D, D, D) under the mask, each shell times the FSC of the halves: poses are judged by it."""
        return half.filtered(density * torch.from_numpy(self.mask).to(density), self.curves.corrected)


def find_poses(run: Path, out: Path | None = None, *, console: Console | None = None) -> Path:
    """Find a pose for each particle of a finished run, from its own half map.

    Args:
        run: Folder of `cryogan reconstruct`.
        out: Folder for the results, `particles.star` and `particles.cs`; default: `poses` in the run's.
        console: Where progress is printed; default: standard error.

    Returns:
        The folder of the results.

    Raises:
        InputError: If the run is not finished, or `out` is not empty.
    """
    console, folder = console or Console(stderr=True), MapFolder(out) if out else RunFolder(run).poses
    require_new(folder.path)
    refinement = Refinement(run)
    console.print(refinement.plan.machine, highlight=False, soft_wrap=True)
    poses = refinement.search_poses(console, "Poses")
    folder.path.mkdir(parents=True, exist_ok=True)
    refinement.write_poses(folder, poses)
    plan, curves = refinement.plan, refinement.curves
    resolution = resolution_at(curves.corrected, plan.pixel_size, 0.143, plan.box)
    detail = MapResolution(scf=scf_of_poses(folder.particles, plan, resolution))
    console.print(f"{VIEWS}: {detail.facts[VIEWS]}.", highlight=False, soft_wrap=True)
    console.print(f"Poses of {len(Poses.cat(poses).margin)} particles: {folder.particles}", soft_wrap=True)
    return folder.path


@dataclass(frozen=True)
class Refined:
    """Result of a refinement.

    Attributes:
        folder: Folder of the results.
        resolution: Resolution, A, where the mask-corrected FSC of the half maps falls below 0.143.
        resolution_unmasked: Resolution, A, from their FSC without a mask.
        curves: FSC of the half maps.
        detail: Resolution by place and direction, and how evenly the views of the poses sample Fourier space.
    """

    folder: Path
    resolution: float
    resolution_unmasked: float
    curves: FscCurves
    detail: MapResolution


def refine(run: Path, out: Path | None = None, *, console: Console | None = None) -> Refined:
    """Refine both half maps of a finished run with the poses of their particles, until it no longer pays.

    Each pass finds each particle's best pose against its own half map, and then moves the map towards the
    least-squares map of these poses. The halves have nothing in common but the weights of their FSC and the mask.

    Args:
        run: Folder of `cryogan reconstruct`.
        out: Folder for maps, FSC and poses; default: `refined` in the run's.
        console: Where progress is printed; default: standard error.

    Raises:
        InputError: If the run is not finished, or `out` is not empty.
    """
    console, folder = console or Console(stderr=True), MapFolder(out) if out else RunFolder(run).refined
    require_new(folder.path)
    refinement = Refinement(run)
    plan = refinement.plan
    console.print(plan.machine, highlight=False, soft_wrap=True)
    poses = refinement.search_poses(console, "Poses")
    for number in range(1, PASSES + 1):
        before = refinement.curves.unmasked.sum()
        refinement.improve(poses)
        corrected, unmasked = (
            resolution_at(curve, plan.pixel_size, 0.143, plan.box)
            for curve in (refinement.curves.corrected, refinement.curves.unmasked)
        )
        console.print(
            f"Pass {number}: half maps agree to {corrected:.2f} A (FSC 0.143, mask-corrected; unmasked "
            f"{unmasked:.2f} A).",
            highlight=False,
            soft_wrap=True,
        )
        poses = refinement.search_poses(console, f"Poses after pass {number}")
        if refinement.curves.unmasked.sum() < before + GAIN:
            break
    folder.path.mkdir(parents=True, exist_ok=True)
    half1, half2 = (density.cpu().numpy() for density in refinement.maps)
    write_maps(folder, plan.pixel_size, (half1, half2), refinement.mask, refinement.curves)
    refinement.write_poses(folder, poses)
    plot_half_map_fsc(folder, plan, refinement.curves)
    detail = measure_resolution(folder, plan, (half1, half2), refinement.mask, refinement.curves)
    facts = [f"{name}: {fact}." for name, fact in detail.facts.items()]
    for sentence in (*facts, *(finding.sentence for finding in detail.findings)):
        console.print(sentence, highlight=False, soft_wrap=True)
    console.print(f"Map: {folder.map}, poses: {folder.particles}", soft_wrap=True)
    return Refined(folder.path, corrected, unmasked, refinement.curves, detail)
