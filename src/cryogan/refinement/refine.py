"""After a run: poses of its particles, and a refinement of its half maps with them."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from cryogan.files import require_new
from cryogan.refinement.half_pair import HalfPair
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.least_squares import least_squares_map
from cryogan.refinement.outliers import find_outliers
from cryogan.refinement.pose_search import Poses
from cryogan.refinement.posterior import sample_posterior
from cryogan.refinement.scores import score_particles
from cryogan.refinement.selection import Selection, write_selection
from cryogan.run.figures import plot_half_map_fsc
from cryogan.run.folder import MapFolder, RunFolder
from cryogan.run.maps import write_maps
from cryogan.run.resolution import VIEWS, MapResolution, measure_resolution, plot_resolution, scf_of_poses
from cryogan.validation import FscCurves, resolution_at

PASSES = 5  # of a refinement, at most
SAMPLES = 3  # poses of each particle from its posterior, in a pass
STEPS = 5  # of conjugate gradients, in a pass
GAIN = 0.2  # shells of FSC; a pass that brings less is the last


def find_poses(run: Path, out: Path | None = None, *, console: Console | None = None) -> Selection:
    """Find a pose for each particle of a finished run, and tell those that show the map from those that do not.

    Poses are found against the half map of the particle's own half; whether it shows the map is judged by the other's.

    Args:
        run: Folder of `cryogan reconstruct`.
        out: Folder for the results: `particles.star`, lists of the particles that are kept and rejected, pictures, and
            a page of them; default: `poses` in the run's.
        console: Where progress is printed; default: standard error.

    Returns:
        What was kept and rejected, and the folder of the results.

    Raises:
        InputError: If the run is not finished, or `out` is not empty.
    """
    console, folder = console or Console(stderr=True), MapFolder(out) if out else RunFolder(run).poses
    require_new(folder.path)
    pair = HalfPair(run)
    console.print(pair.plan.machine, highlight=False, soft_wrap=True)
    poses = pair.search_poses(console, "Poses")
    folder.path.mkdir(parents=True, exist_ok=True)
    plan = pair.plan
    selection = write_selection(folder, pair, poses)
    resolution = resolution_at(pair.curves.corrected, plan.pixel_size, 0.143, plan.box)
    detail = MapResolution(scf=scf_of_poses(folder.particles, plan, resolution))
    console.print(f"{VIEWS}: {detail.facts[VIEWS]}.", highlight=False, soft_wrap=True)
    console.print(f"{selection.finding.sentence} Page: {folder.report}", highlight=False, soft_wrap=True)
    return selection


@dataclass(frozen=True)
class Refined:
    """Result of a refinement.

    Attributes:
        folder: Folder of the results.
        resolution: Resolution, A, where the mask-corrected FSC of the half maps falls below 0.143.
        resolution_unmasked: Resolution, A, from their FSC without a mask.
        curves: FSC of the half maps.
        detail: Resolution by place and direction, and how evenly the views of the poses sample Fourier space.
        selection: The particles that were kept and rejected.
    """

    folder: Path
    resolution: float
    resolution_unmasked: float
    curves: FscCurves
    detail: MapResolution
    selection: Selection


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
    pair = HalfPair(run)
    plan = pair.plan
    console.print(plan.machine, highlight=False, soft_wrap=True)
    poses = pair.search_poses(console, "Poses")
    for number in range(1, PASSES + 1):
        before = pair.curves.unmasked.sum()
        _improve(pair, poses)
        corrected, unmasked = (
            resolution_at(curve, plan.pixel_size, 0.143, plan.box)
            for curve in (pair.curves.corrected, pair.curves.unmasked)
        )
        console.print(
            f"Pass {number}: half maps agree to {corrected:.2f} A (FSC 0.143, mask-corrected; unmasked "
            f"{unmasked:.2f} A).",
            highlight=False,
            soft_wrap=True,
        )
        poses = pair.search_poses(console, f"Poses after pass {number}")
        if pair.curves.unmasked.sum() < before + GAIN:
            break
    folder.path.mkdir(parents=True, exist_ok=True)
    half1, half2 = (density.cpu().numpy() for density in pair.maps)
    write_maps(folder, plan.pixel_size, (half1, half2), pair.mask, pair.curves)
    selection = write_selection(folder, pair, poses)
    plot_half_map_fsc(folder, plan, pair.curves)
    detail = measure_resolution(folder, plan, (half1, half2), pair.mask, pair.curves)
    plot_resolution(folder, plan, detail, (half1 + half2) / 2, pair.curves)
    facts = [f"{name}: {fact}." for name, fact in detail.facts.items()]
    findings = (*detail.findings, selection.finding)
    for sentence in (*facts, *(finding.sentence for finding in findings)):
        console.print(sentence, highlight=False, soft_wrap=True)
    console.print(f"Map: {folder.map}, page: {folder.report}", soft_wrap=True)
    return Refined(folder.path, corrected, unmasked, pair.curves, detail, selection)


def _improve(pair: HalfPair, poses: list[Poses]) -> None:
    """Move the maps towards those that fit the particles at their poses best, each with the weight that it shows it.

    Each half judges its particles by its own map: the other's would make them more alike.
    """
    cutoff = pair.plan.box / 2

    def improved(half: HalfSet, density: Tensor, best: Poses) -> Tensor:
        weighted = pair.weighted(half, density)
        scores = score_particles(half, weighted, best, pair.cutoff)
        shown = find_outliers([scores], [half.images.table.micrographs]).weight
        posterior = sample_posterior(half, weighted, best, cutoff, SAMPLES)
        weights = posterior.weights * torch.from_numpy(shown).to(posterior.weights)[:, None]
        return least_squares_map(half, density, replace(posterior, weights=weights), cutoff, STEPS)

    pair.change_maps(improved, poses)
