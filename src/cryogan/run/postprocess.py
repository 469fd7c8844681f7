"""What two trained half sets have in common: alignment, FSC, the pairs of their classes, and the files of a run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from cryogan.particles import read_particles, read_star, read_volume, write_particles, write_volume
from cryogan.run.figures import (
    agreement_over_time,
    class_path,
    classes_path,
    draw_agreement,
    draw_history,
    records,
    snapshot_path,
)
from cryogan.run.half import rows_of_half
from cryogan.run.plan import Plan
from cryogan.run.report import Convergence, judge_convergence, write_report
from cryogan.validation import Alignment, FscCurves, align, fsc_curves, resample, resolution_at, soft_mask, write_fsc

HALVES = (1, 2)
HALF_MAPS = ("half1_map_unfil.mrc", "half2_map_unfil.mrc")


@dataclass(frozen=True)
class ClassMap:
    """One of the classes of a finished run (`Settings.classes`)."""

    folder: Path
    share: float  # its learned weight, the mean of the halves
    particles: int  # of which it is the most probable class
    resolution: float  # A, corrected half-map FSC 0.143

    @property
    def sentence(self) -> str:
        """What a reader gets."""
        return (
            f"{self.share:.0%} of the particles by its weight, {self.particles} most probably; half maps agree to "
            f"{self.resolution:.2f} A (FSC 0.143, mask-corrected)"
        )


@dataclass(frozen=True)
class Result:
    """What a finished run is worth."""

    folder: Path
    resolution: float  # A, corrected half-map FSC 0.143
    resolution_unmasked: float
    alignment: Alignment
    curves: FscCurves
    convergence: Convergence
    classes: tuple[ClassMap, ...] = ()  # largest first; none where there is but one


def compare(folder: Path, plan: Plan) -> Result:
    """Align half 2 to half 1, compare, and write every file that a user takes along."""
    half1, half2 = (_last_map(folder, half, plan) for half in HALVES)
    alignment = align(half2, half1, plan.pixel_size, seed=plan.settings.seed)
    aligned = alignment.apply(half2, plan.pixel_size)
    mask = soft_mask((half1 + aligned) / 2, plan.pixel_size)
    curves = fsc_curves(half1, aligned, plan.pixel_size, mask, seed=plan.settings.seed)
    write_maps(folder, plan.pixel_size, (half1, aligned), mask, curves)
    draw_history(folder, plan)
    grown = agreement_over_time(folder, plan, alignment)
    draw_agreement(folder, plan, curves, grown)
    convergence = judge_convergence(plan, [records(folder, half) for half in HALVES], grown)
    corrected, unmasked = (
        resolution_at(curve, plan.pixel_size, 0.143, plan.box) for curve in (curves.corrected, curves.unmasked)
    )
    classes = _compare_classes(folder, plan)
    said = {each.folder.name: each.sentence for each in classes}
    write_report(folder, plan, alignment, curves, mask, (corrected, unmasked), convergence, said)
    return Result(folder, corrected, unmasked, alignment, curves, convergence, classes)


def _compare_classes(folder: Path, plan: Plan) -> tuple[ClassMap, ...]:
    """Pair the halves' classes and write each pair's maps and particles to class1, class2, ..., the largest first.

    Each half has its classes in an order and frames of its own. Where
    --max-minutes ended a half before it had as many classes as the other there are none.
    """
    if not all(classes_path(folder, half).exists() for half in HALVES):
        return ()
    stars = [read_star(classes_path(folder, half)) for half in HALVES]
    weights = [star["weights"].floats("cryoganClassWeight") for star in stars]
    if len(weights[0]) != len(weights[1]):
        return ()
    numbers = range(1, len(weights[0]) + 1)
    first, second = ([read_volume(class_path(folder, half, number))[0] for number in numbers] for half in HALVES)
    alignments = [[align(other, one, plan.pixel_size, seed=plan.settings.seed) for other in second] for one in first]
    likeness = [[each.correlation for each in row] for row in alignments]
    pairs = np.stack(linear_sum_assignment(likeness, maximize=True), axis=1)
    shares = np.array([(weights[0][i] + weights[1][j]) / 2 for i, j in pairs])
    pairs, shares = pairs[np.argsort(-shares)], np.sort(shares)[::-1]

    table = read_particles(folder / "particles.star", plan.data_dir, found=plan.image_folders)
    subset, probability = np.zeros(len(table), dtype=int), np.zeros((len(table), len(pairs)))
    for half, star, order in zip(HALVES, stars, pairs.T, strict=True):
        rows = rows_of_half(table, half, plan.settings)
        subset[rows] = half
        columns = [star["particles"].floats(f"cryoganClassProbability{index + 1}") for index in order]
        probability[rows] = np.stack(columns, axis=1)
    likeliest = probability.argmax(1)
    classes = []
    for k, ((i, j), share) in enumerate(zip(pairs, shares, strict=True)):
        halves = first[i], alignments[i][j].apply(second[j], plan.pixel_size)
        own, mine = folder / f"class{k + 1}", likeliest == k
        own.mkdir(exist_ok=True)
        mask = soft_mask((halves[0] + halves[1]) / 2, plan.pixel_size)
        curves = fsc_curves(*halves, plan.pixel_size, mask, seed=plan.settings.seed)
        write_maps(own, plan.pixel_size, halves, mask, curves)
        said = {
            "rlnClassNumber": np.full(mine.sum(), k + 1),
            "rlnMaxValueProbDistribution": probability[mine, k],
        }
        write_particles(own / "particles.star", table.select(mine), random_subset=subset[mine], columns=said)
        resolution = resolution_at(curves.corrected, plan.pixel_size, 0.143, plan.box)
        classes.append(ClassMap(own, float(share), int(mine.sum()), resolution))
    return tuple(classes)


def _last_map(folder: Path, half: int, plan: Plan) -> np.ndarray:
    """A half's map at the working box; --max-minutes may have ended the run at a coarser one."""
    volume, pixel_size = read_volume(snapshot_path(folder, half, plan.total_steps))
    return resample(volume, pixel_size, plan.box, plan.pixel_size) if len(volume) != plan.box else volume


def write_maps(
    folder: Path, pixel_size: float, halves: tuple[np.ndarray, np.ndarray], mask: np.ndarray, curves: FscCurves
) -> None:
    """The half maps in one frame, their mean, the mask and the FSC, under the names that RELION looks for."""
    files = (*halves, (halves[0] + halves[1]) / 2, mask)
    for name, volume in zip((*HALF_MAPS, "map.mrc", "mask.mrc"), files, strict=True):
        write_volume(folder / name, volume, pixel_size)
    write_fsc(folder, curves)
    # Half-way between solvent and the brightest hundredth of the voxels.
    level = float(np.mean(np.percentile(files[2], (50, 99))))
    (folder / "open.cxc").write_text(
        "# ChimeraX: chimerax open.cxc, or File > Open.\n"
        f"open map.mrc {' '.join(HALF_MAPS)}\n"
        f"volume #1-3 style surface level {level:.6g}\n"
        "color #1 #a0a0a0\ncolor #2 #0072b2\ncolor #3 #d55e00\n"
        "hide #2,3 models\nset bgColor white\nlighting soft\nview\n"
    )
