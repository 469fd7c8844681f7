"""Comparison of finished runs: whether they give one structure, and which of them is the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cryogan.errors import InputError
from cryogan.particles import read_volume
from cryogan.refinement.run_scores import FinishedRun, can_be_scored, compare_scores
from cryogan.report.figures import plot_comparison
from cryogan.run.comparison import ComparedRun, RunComparison, figure_path, write_comparison
from cryogan.validation import Agreement, Cutoff, compare_maps, resample, same_structures


@dataclass(frozen=True)
class _Maps:
    """Maps of runs on the grid of the first, and how they agree at a cut-off."""

    volumes: list[np.ndarray]
    pixel_size: float
    cutoff: Cutoff
    agreement: Agreement

    def placed_on(self, reference: int) -> list[np.ndarray]:
        """Return all maps in the frame and hand of one of them."""
        return [
            volume if index == reference else self.agreement.to(reference, index).apply(volume, self.pixel_size)
            for index, volume in enumerate(self.volumes)
        ]


def compare_runs(runs: Sequence[Path], out: Path, *, console: Console | None = None) -> RunComparison:
    """Compare finished runs of the same particles, or of the same molecule.

    The maps are aligned in pairs, over rotation, shift and hand; they are one structure if each two of them correlate
    over 0.8 at 30 A inside a soft mask. Runs of the same particles at one working box are scored by the particles kept
    for choosing. `comparison.json` and `comparison.png` are written; they replace earlier ones.

    Args:
        runs: Folders of `cryogan reconstruct`, two or more.
        out: Folder for the results.
        console: Where progress and the result are printed; default: standard error.

    Raises:
        InputError: If there are fewer than two runs, one is given twice, or one is not finished.
    """
    console = console or Console(stderr=True)
    finished = _finished(runs)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        maps = _compare_maps(finished, bar)
        comparison = _compare(finished, maps, bar)
    out.mkdir(parents=True, exist_ok=True)
    write_comparison(out, comparison)
    reference = 0 if comparison.best is None else comparison.runs.index(comparison.best)
    plot_comparison(figure_path(out), _labels(runs), maps.agreement.correlation, maps.placed_on(reference))
    for text in (comparison.sentence, *(finding.sentence for finding in comparison.findings)):
        console.print(text, highlight=False, soft_wrap=True)
    return comparison


def _finished(runs: Sequence[Path]) -> list[FinishedRun]:
    """Read the runs, and refuse what cannot be compared."""
    if len(runs) < 2:
        raise InputError("There is nothing to compare. Give the folders of two runs or more.")
    for number, folder in enumerate(runs):
        if folder.resolve() in [other.resolve() for other in runs[:number]]:
            raise InputError(f"{folder} is given twice. Give the folders of different runs.")
    return [FinishedRun(folder) for folder in runs]


def _compare_maps(runs: Sequence[FinishedRun], bar: Progress) -> _Maps:
    box, pixel_size = runs[0].plan.box, runs[0].plan.pixel_size
    volumes = []
    for run in runs:
        volume, own = read_volume(run.folder.map)
        same_grid = len(volume) == box and abs(own / pixel_size - 1) < 1e-4
        volumes.append(volume if same_grid else resample(volume, own, box, pixel_size).astype(np.float32))
    coarsest, finest = max(run.plan.pixel_size for run in runs), min(run.resolution for run in runs)
    cutoff = Cutoff.of(box * pixel_size, coarsest, finest)
    pairs = bar.add_task("Aligning pairs of maps", total=len(runs) * (len(runs) - 1) // 2)
    return _Maps(
        volumes,
        pixel_size,
        cutoff,
        compare_maps(volumes, pixel_size, cutoff.resolution_A, lambda done: bar.advance(pairs, done)),
    )


def _compare(runs: Sequence[FinishedRun], maps: _Maps, bar: Progress) -> RunComparison:
    """Find the structures, and score the runs where their scores mean the same."""
    scores: list[dict[str, float]] = [{} for _ in runs]
    if can_be_scored(runs):
        finest, scoring = min(run.resolution for run in runs), bar.add_task("Scoring runs", total=len(runs))
        for index, run in enumerate(runs):
            scores[index] = run.scores(finest)
            bar.advance(scoring)
    count, compared = compare_scores(scores)
    agreement = maps.agreement
    structures = same_structures(agreement.correlation)
    return RunComparison(
        runs=tuple(
            ComparedRun(
                folder=run.folder.path,
                structure=next(number for number, members in enumerate(structures, 1) if index in members),
                resolution=run.resolution,
                mirrored=index > 0 and agreement.to(0, index).mirrored,
                score=compared[index],
            )
            for index, run in enumerate(runs)
        ),
        correlation=tuple(map(tuple, agreement.correlation.tolist())),
        cutoff_A=maps.cutoff.resolution_A,
        cutoff=str(maps.cutoff),
        scored_particles=count,
    )


def _labels(runs: Sequence[Path]) -> list[str]:
    """Names of the runs in the picture, with the folders above where the last are the same."""
    names = [folder.name for folder in runs]
    return names if len(set(names)) == len(names) else list(map(str, runs))
