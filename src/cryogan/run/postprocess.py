"""After the training: align and compare the half maps, judge them, and write every file that a user takes along."""

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import fft

from cryogan.errors import Finding, InputError
from cryogan.parallel.cores import available_cores
from cryogan.particles import read_volume
from cryogan.run.classes import ClassMap, compare_classes
from cryogan.run.figures import fsc_by_step, plot_fsc_history, plot_history
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.judgement import Convergence, judge_convergence, judge_maps, judge_prior, judge_views
from cryogan.run.maps import write_maps
from cryogan.run.plan import Plan
from cryogan.run.report import write_report
from cryogan.run.resolution import MapResolution, measure_resolution, plot_resolution
from cryogan.run.views import read_views
from cryogan.validation import Alignment, FscCurves, align, fsc_curves, resample, resolution_at, soft_mask


@dataclass(frozen=True)
class Result:
    """What a finished run is worth.

    Attributes:
        folder: folder of the run.
        resolution: corrected half-map FSC 0.143, A.
        resolution_unmasked: unmasked half-map FSC 0.143, A.
        alignment: alignment of half 2 to half 1.
        curves: FSC of the half maps.
        mask: soft mask around the molecule, (D, D, D).
        convergence: whether the run was at its end.
        detail: resolution by place and direction.
        classes: the largest first; empty where there is one map.
        map_findings: what a user should know of the maps.
        findings: the same, and what was found of the input and the run, where it was run here.
    """

    folder: Path
    resolution: float
    resolution_unmasked: float
    alignment: Alignment
    curves: FscCurves
    mask: np.ndarray
    convergence: Convergence
    detail: MapResolution = field(default_factory=MapResolution)
    classes: tuple[ClassMap, ...] = ()
    map_findings: tuple[Finding, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """What came out, for people."""
        alignment = self.alignment
        return [
            f"Half maps agree to {self.resolution:.2f} A (FSC 0.143, mask-corrected; unmasked "
            f"{self.resolution_unmasked:.2f} A). Alignment of half 2: correlation "
            f"{alignment.correlation:.3f}, other hand {alignment.correlation_other_hand:.3f}; the absolute hand "
            "is unknown.\n"
            f"{self.convergence.sentence}",
            *(f"{name}: {fact}." for name, fact in self.detail.facts.items()),
            f"Map: {RunFolder(self.folder).map}",
            *(f"{one.folder}: {one.sentence}." for one in self.classes),
        ]


def postprocess(folder: RunFolder, plan: Plan) -> Result:
    """Align half 2 to half 1, compare and judge them, and write maps, FSC, figures, classes and report.

    Args:
        folder: folder of a run whose halves are trained.
        plan: plan of the run.

    Raises:
        InputError: a half map is empty.
    """
    # One thread draws, as Matplotlib wants it, while this one computes.
    with fft.set_workers(available_cores()), ThreadPoolExecutor(1, "figures") as drawing:
        return _postprocess(folder, plan, drawing)


def _postprocess(folder: RunFolder, plan: Plan, drawing: Executor) -> Result:
    half1, half2 = (_final_map(folder, half, plan) for half in HALVES)
    require_maps(folder, {1: half1, 2: half2})
    drawn = [drawing.submit(plot_history, folder, plan)]
    alignment = align(half2, half1, plan.pixel_size, seed=plan.settings.seed)
    aligned = alignment.apply(half2, plan.pixel_size)
    mask = soft_mask((half1 + aligned) / 2, plan.pixel_size)
    curves = fsc_curves(half1, aligned, plan.pixel_size, mask, seed=plan.settings.seed)
    write_maps(folder, plan.pixel_size, (half1, aligned), mask, curves)
    grown = fsc_by_step(folder, plan, alignment)
    drawn.append(drawing.submit(plot_fsc_history, folder, plan, curves, grown))
    convergence = judge_convergence(plan, [folder.records(half) for half in HALVES], grown)
    corrected, unmasked = (
        resolution_at(curve, plan.pixel_size, 0.143, plan.box) for curve in (curves.corrected, curves.unmasked)
    )
    findings = judge_maps(plan, alignment, curves, mask, corrected)
    if plan.uneven_views:
        views = read_views(folder)
        findings += [*judge_views(views.coverage), *judge_prior(views.prior_fit)]
    detail = measure_resolution(folder, plan, (half1, aligned), mask, curves)
    drawn.append(drawing.submit(plot_resolution, folder, plan, detail, (half1 + aligned) / 2, curves))
    findings += [*detail.findings, convergence.finding]
    for figures in drawn:
        figures.result()
    classes = compare_classes(folder, plan)
    found = tuple(findings)
    result = Result(
        folder.path, corrected, unmasked, alignment, curves, mask, convergence, detail, classes, found, found
    )
    write_report(folder, plan, result)
    return result


def require_maps(folder: RunFolder, halves: Mapping[int, np.ndarray]) -> None:
    """Refuse empty maps, before any mask or FSC is made of them.

    Args:
        folder: of the run, for the message.
        halves: maps (D, D, D) by half.

    Raises:
        InputError: one is empty.
    """
    for half, volume in halves.items():
        if not np.ptp(volume) > 0:
            raise InputError(
                f"The map of half {half} is empty: nothing is compared, no map, mask or FSC is written. If protein is "
                "dark in the images, start anew with --invert; if the run was too short, go on with: cryogan "
                f"reconstruct --resume {folder.path}"
            )


def _final_map(folder: RunFolder, half: int, plan: Plan) -> np.ndarray:
    """A half's map at the working box; --max-minutes may have ended the run at a coarser one."""
    volume, pixel_size = read_volume(folder.trained_map(half))
    return resample(volume, pixel_size, plan.box, plan.pixel_size) if len(volume) != plan.box else volume
