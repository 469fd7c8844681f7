"""The verdict on a run, or on anybody's half maps: every piece of evidence is measured, recorded and drawn."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cryogan.critics.matching.schedule import SEARCH_SHELLS
from cryogan.errors import InputError
from cryogan.particles import read_volume
from cryogan.particles.contrast import contrast_sign
from cryogan.refinement.half_map_test import HalfMapTest
from cryogan.refinement.held_out import measure_held_out
from cryogan.refinement.likeness import measure_likeness
from cryogan.report.figures import plot_held_out, plot_likeness
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.held_out import THRESHOLD
from cryogan.run.log import RunLog
from cryogan.run.plan import Plan
from cryogan.run.verdict import Evidence, Verdict, read_verdict, record_path, write_verdict
from cryogan.validation import SymmetryScore, align, resample, shape_of, symmetry_score

SEARCHED_BOX = 2 * (int(SEARCH_SHELLS[1]) + 1)  # pixels; has the shells of the search


def judge_run(run: Path, *, correlation_other_hand: float | None = None, console: Console | None = None) -> Verdict:
    """Judge the half maps of a finished run.

    The record and the figures are written to `verdict` in the run's folder; they replace earlier ones.

    Args:
        run: Folder of `cryogan reconstruct`.
        correlation_other_hand: Of the half maps, aligned with one of them mirrored; None: that of an earlier verdict.
        console: Where the verdict is printed; default: standard error.

    Raises:
        InputError: If the run is not finished, or not one of picked particles.
    """
    folder = RunFolder(run)
    log = RunLog(folder, console or Console(stderr=True))
    test = HalfMapTest.of_run(run)
    log.say("Held-out particles are compared with the half maps.")
    if correlation_other_hand is None and (earlier := read_verdict(folder)):
        correlation_other_hand = earlier.evidence.correlation_other_hand
    verdict = judge(test, correlation_other_hand, searched_symmetry(folder, test.plan))
    write_verdict(record_path(folder), verdict)
    plot_evidence(folder.verdict, test, verdict)
    log.report(verdict.findings[1:])
    log.say(verdict.sentence)
    return verdict


def judge(
    test: HalfMapTest, correlation_other_hand: float | None = None, searched: SymmetryScore | None = None
) -> Verdict:
    """Measure all evidence.

    Args:
        test: Half maps, and the particles of each half.
        correlation_other_hand: As for `judge_run`.
        searched: Score of the imposed symmetry on maps that were made without it; None: not known.
    """
    plan, (first, second) = test.plan, test.half_maps
    evidence = Evidence(
        half_map_resolution=test.resolution if test.independent else None,
        finest=test.finest_A,
        correlation=test.correlation,
        correlation_other_hand=correlation_other_hand,
        diameter=test.molecule_diameter,
        contrast=contrast_sign(test.halves[0].images).sign,
        shape=shape_of((first + second) / 2, plan.pixel_size, test.resolution, test.mask, plan.mask_radius),
        held_out=measure_held_out(test),
        likeness=measure_likeness(test),
        searched=searched,
    )
    return Verdict(evidence)


def searched_symmetry(folder: RunFolder, plan: Plan) -> SymmetryScore | None:
    """Score the symmetry of a run on the maps that the search of each half made without it.

    Args:
        folder: Of the run.
        plan: Of the run.

    Returns:
        The score; None: the run has no such maps, a mask or several classes shaped them, or they agree too little.
    """
    paths = [folder.searched(half) for half in HALVES]
    if plan.mask is not None or plan.settings.classes > 1 or not all(path.exists() for path in paths):
        return None
    pixel_size = plan.box * plan.pixel_size / SEARCHED_BOX
    first, second = (resample(*read_volume(path), SEARCHED_BOX, pixel_size) for path in paths)
    try:
        aligned = align(second, first, pixel_size, seed=plan.settings.seed).apply(second, pixel_size)
        return symmetry_score(first, aligned, pixel_size, plan.settings.symmetry)
    except InputError:  # they agree on too few shells, or too weakly
        return None


def plot_evidence(folder: Path, test: HalfMapTest, verdict: Verdict) -> None:
    """Draw what held-out particles support, and what tells real from simulated images.

    Args:
        folder: Where `held_out.png` and `likeness.png` are written.
        test: Half maps, and the particles of each half.
        verdict: On them.
    """
    held_out, pixel_size = verdict.evidence.held_out, test.plan.pixel_size
    frequency, corrected = test.curves.frequency, test.curves.corrected

    def padded(values: tuple[float | None, ...]) -> NDArray[np.float64]:
        return np.array([*values, None], dtype=np.float64)

    named = {
        f"poses from below {held_out.width_A / band.cutoff:.0f} Å": padded(band.window_z) for band in held_out.bands
    }
    if named:
        plot_held_out(folder / "held_out.png", frequency, named, THRESHOLD, corrected, pixel_size)
    plot_likeness(folder / "likeness.png", frequency[1:], pixel_size, vars(verdict.evidence.likeness))
