"""After the adversarial map: a pose for each particle, and a refinement of the half maps with them."""

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
from cryogan.particles import ParticleImages, read_particles, read_volume, write_cs_particles, write_particles
from cryogan.particles.correction import shifts_in_file
from cryogan.particles.halves import recorded_halves
from cryogan.refinement.pose_search import HalfSet, Poses
from cryogan.report import plot_histogram, plot_particles, plot_view_distribution
from cryogan.rotations import rotations_to_euler
from cryogan.run import warnings
from cryogan.run.figures import plot_half_map_fsc
from cryogan.run.folder import HALVES, MapFolder, RunFolder
from cryogan.run.maps import write_maps
from cryogan.run.plan import Plan
from cryogan.validation import FscCurves, fsc_curves, resolution_at, soft_mask

T = TypeVar("T")

PASSES = 5  # of a refinement, at most
DRAWS = 3  # poses of each particle from its posterior in each
STEPS = 5  # of conjugate gradients in each
OUTLIER_SHARE = 0.35  # of the usual amplitude that a particle may lack, and ...
OUTLIER_DEVIATIONS = 3.0  # ... so many s.d. of the noise
SHOWN = 16
GAIN = 0.2  # shells of FSC; a pass that brings less is the last


class Refinement:
    """The two half sets of a finished run, their maps in one frame, and the poses of their particles.

    Args:
        run: folder of a finished `cryogan reconstruct`.

    Raises:
        InputError: it is not one, or the run's device is not here.
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
        """A soft mask of the mean map, and the FSC of the halves."""
        half1, half2 = (each.cpu().numpy() for each in self.maps)
        mask = soft_mask((half1 + half2) / 2, self.plan.pixel_size)
        return mask, fsc_curves(half1, half2, self.plan.pixel_size, mask, seed=self.plan.settings.seed)

    def match(self, console: Console, what: str) -> list[Poses]:
        """The poses of each half's particles against its own map, weighted by the FSC of the halves.

        The console shows `what` is done, and the time left.
        """
        gone = np.flatnonzero(self.curves.corrected[1:] < 0.143)
        cutoff = float(gone[0] + 1 if len(gone) else self.plan.box // 2)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=sum(map(len, self.halves)))
            poses = self._of_both(
                lambda half, density: half.match(
                    self._weighted(half, density), max(cutoff, 4.0), partial(bar.advance, task)
                )
            )
        at_once = min(half.micro_batch.size for half in self.halves)
        if at_once < self._at_once:
            finding = warnings.SMALLER_BATCHES(who="The matching", images=at_once)
            console.print(finding.sentence, highlight=False, soft_wrap=True)
            self._at_once = at_once
        return poses

    def improve(self, poses: list[Poses]) -> None:
        """Move the maps towards those that fit the particles at their poses best; outliers have no part."""

        def fit(half: HalfSet, density: Tensor, own: Poses) -> Tensor:
            used = is_like_the_others(own.amplitude.cpu().numpy(), own.amplitude_deviation.cpu().numpy())
            posterior = half.draw(self._weighted(half, density), own, self.plan.box / 2, DRAWS)
            share = posterior.weights * torch.from_numpy(used).to(density.device)[:, None]
            return half.fit(density, replace(posterior, weights=share), self.plan.box / 2, STEPS)

        self.maps = self._of_both(fit, poses)
        self.mask, self.curves = self.compare()

    def write_poses(self, folder: MapFolder, poses: list[Poses]) -> None:
        """`particles.star` and `particles.cs` with poses, and pictures of them."""
        table = read_particles(self.particles, self.plan.data_dir, found=self.plan.image_folders)
        halves = recorded_halves(table)
        rows = np.concatenate([np.flatnonzero(halves == half) for half in HALVES])
        order, subset = np.argsort(rows), np.repeat(HALVES, [len(each.margin) for each in poses])
        both = Poses.cat(poses)
        rotations, shifts, agreement, margin, amplitude, deviation = (
            getattr(both, field.name).double().cpu().numpy()[order] for field in fields(both)
        )
        kept = is_like_the_others(amplitude, deviation)
        euler, in_file = rotations_to_euler(torch.from_numpy(rotations)), shifts_in_file(shifts, table.ctf)
        columns = {
            **{f"rlnAngle{name}": euler[:, axis] for axis, name in enumerate(("Rot", "Tilt", "Psi"))},
            **{f"rlnOrigin{name}Angst": in_file[:, axis] for axis, name in enumerate("XY")},
            "rlnLogLikeliContribution": agreement,
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
        margins = folder.figure("margins")
        plot_histogram(margins, margin, "How sure the poses are", "agreement beyond the next best pose (nats)")
        scores = folder.figure("scores")
        plot_histogram(scores, amplitude, f"{(~kept).sum()} of {len(kept)} particles left out", "amplitude of the map")
        worst = np.argsort(amplitude)[:SHOWN]
        images = ParticleImages(
            table.select(worst), self.plan.box, self.plan.particle_radius, self.plan.settings.invert
        )
        plot_particles(folder.figure("worst_particles"), images.batch(np.arange(len(images))))

    def _of_both(self, task: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
        with ThreadPoolExecutor(len(HALVES)) as pool:
            return list(pool.map(task, self.halves, self.maps, *arguments))

    def _weighted(self, half: HalfSet, density: Tensor) -> Tensor:
        """A map (D, D, D) under the mask, each shell times the FSC of the halves: what poses are judged against."""
        weight = np.clip(self.curves.corrected, 0.0, 1.0)
        by_shell = torch.from_numpy(weight).to(density)[half.back.shell.clamp(max=self.plan.box // 2)]
        masked = density * torch.from_numpy(self.mask).to(density)
        weighted: Tensor = torch.fft.irfftn(torch.fft.rfftn(masked) * by_shell, s=density.shape)
        return weighted


def is_like_the_others(amplitude: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Which particles show the map, (N,) of bool: those whose amplitude is not far below the median.

    Noise, ice and halves of molecules have little of the map in them.

    Args:
        amplitude: (N,), as in `Poses`.
        deviation: (N,), its s.d.
    """
    usual = float(np.median(amplitude[amplitude > np.median(amplitude) / 2]))
    kept: np.ndarray = amplitude > usual - np.maximum(OUTLIER_SHARE * usual, OUTLIER_DEVIATIONS * deviation)
    return kept


def find_poses(run: Path, out: Path | None = None, *, console: Console | None = None) -> Path:
    """A pose for each particle of a finished run, from its own half map: `particles.star` and `particles.cs`.

    Args:
        run: folder of `cryogan reconstruct`.
        out: folder for the results; default: `poses` in the run's.
        console: what is said; default: standard error.

    Returns:
        The folder.

    Raises:
        InputError: the run is not finished, or `out` is not empty.
    """
    console, folder = console or Console(stderr=True), MapFolder(out) if out else RunFolder(run).poses
    require_new(folder.path)
    refinement = Refinement(run)
    console.print(refinement.plan.machine, highlight=False, soft_wrap=True)
    poses = refinement.match(console, "Poses")
    folder.path.mkdir(parents=True, exist_ok=True)
    refinement.write_poses(folder, poses)
    console.print(f"Poses of {len(Poses.cat(poses).margin)} particles: {folder.particles}", soft_wrap=True)
    return folder.path


@dataclass(frozen=True)
class Refined:
    """What a refinement is worth."""

    folder: Path
    resolution: float  # A, corrected half-map FSC 0.143
    resolution_unmasked: float
    curves: FscCurves


def refine(run: Path, out: Path | None = None, *, console: Console | None = None) -> Refined:
    """Refine both half maps of a finished run with the poses of their particles, until it no longer pays.

    Each pass finds each particle's best pose against its own half map, and then moves the map towards the
    least-squares map of these poses. The halves have nothing in common but the weights of their FSC and
    the mask. Writes maps, FSC and poses; arguments and errors as of `find_poses`.
    """
    console, folder = console or Console(stderr=True), MapFolder(out) if out else RunFolder(run).refined
    require_new(folder.path)
    refinement = Refinement(run)
    plan = refinement.plan
    console.print(plan.machine, highlight=False, soft_wrap=True)
    poses = refinement.match(console, "Poses")
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
        poses = refinement.match(console, f"Poses after pass {number}")
        if refinement.curves.unmasked.sum() < before + GAIN:
            break
    folder.path.mkdir(parents=True, exist_ok=True)
    half1, half2 = (each.cpu().numpy() for each in refinement.maps)
    write_maps(folder, plan.pixel_size, (half1, half2), refinement.mask, refinement.curves)
    refinement.write_poses(folder, poses)
    plot_half_map_fsc(folder, plan, refinement.curves)
    console.print(f"Map: {folder.map}, poses: {folder.particles}", soft_wrap=True)
    return Refined(folder.path, corrected, unmasked, refinement.curves)
