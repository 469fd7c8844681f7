"""The verdict on a run, or on anybody's half maps: every piece of evidence is measured, recorded and drawn."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cryogan.particles.contrast import contrast_sign
from cryogan.refinement.half_map_test import HalfMapTest
from cryogan.refinement.held_out import measure_held_out
from cryogan.refinement.likeness import measure_likeness
from cryogan.report.figures import plot_held_out, plot_likeness
from cryogan.run.folder import RunFolder
from cryogan.run.held_out import THRESHOLD
from cryogan.run.log import RunLog
from cryogan.run.verdict import Evidence, Verdict, read_verdict, record_path, write_verdict
from cryogan.validation import shape_of


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
    verdict = judge(test, correlation_other_hand)
    write_verdict(record_path(folder), verdict)
    plot_evidence(folder.verdict, test, verdict)
    log.report(verdict.findings[1:])
    log.say(verdict.sentence)
    return verdict


def judge(test: HalfMapTest, correlation_other_hand: float | None = None) -> Verdict:
    """Measure all evidence.

    Args:
        test: Half maps, and the particles of each half.
        correlation_other_hand: As for `judge_run`.
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
    )
    return Verdict(evidence)


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
