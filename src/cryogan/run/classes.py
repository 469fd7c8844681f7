"""The classes of a finished run: those of the two halves paired, and each pair's maps and particles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from cryogan.particles import ParticleTable, StarTable, read_particles, read_star, read_volume, write_particles
from cryogan.particles.halves import recorded_halves
from cryogan.run.folder import HALVES, MapFolder, RunFolder
from cryogan.run.maps import write_maps
from cryogan.run.plan import Plan
from cryogan.validation import align, fsc_curves, resolution_at, soft_mask


@dataclass(frozen=True)
class ClassMap:
    """One of the classes of a finished run (`Settings.classes`).

    Attributes:
        folder: folder of its maps and particles.
        share: its learned weight, the mean of the halves.
        particles: number of particles of which it is the most probable class.
        resolution: corrected half-map FSC 0.143, A.
    """

    folder: Path
    share: float
    particles: int
    resolution: float

    @property
    def sentence(self) -> str:
        """What came out, for people."""
        return (
            f"{self.share:.0%} of the particles by its weight, {self.particles} most probably; half maps agree to "
            f"{self.resolution:.2f} A (FSC 0.143, mask-corrected)"
        )


@dataclass(frozen=True)
class _Pair:
    """A class of half 1 and the class of half 2 that is most like it, in the frame of the former."""

    maps: tuple[np.ndarray, np.ndarray]
    indices: tuple[int, int]  # of each half's classes
    share: float


def compare_classes(folder: RunFolder, plan: Plan) -> tuple[ClassMap, ...]:
    """Pair the halves' classes and write each pair's maps and particles to class1, class2, ..., the largest first.

    Each half has its classes in an order and frames of its own. Where --max-minutes ended a half before it had as many
    classes as the other there are none.

    Args:
        folder: folder of the run.
        plan: plan of the run.
    """
    if not all(folder.class_table(half).exists() for half in HALVES):
        return ()
    stars = [read_star(folder.class_table(half)) for half in HALVES]
    weights = [star["weights"].floats("cryoganClassWeight") for star in stars]
    if len(weights[0]) != len(weights[1]):
        return ()
    pairs = _pairs(folder, plan, weights)
    table = read_particles(folder.particles, plan.data_dir, found=plan.image_folders)
    probability = _probabilities(table, stars, pairs)
    return tuple(
        _write_class(folder.class_folder(k + 1), plan, pair, table, probability, k) for k, pair in enumerate(pairs)
    )


def _pairs(folder: RunFolder, plan: Plan, weights: Sequence[np.ndarray]) -> list[_Pair]:
    """The pairs whose maps correlate best in all, the largest first."""
    numbers = range(1, len(weights[0]) + 1)
    first, second = ([read_volume(folder.class_map(half, number))[0] for number in numbers] for half in HALVES)
    alignments = [[align(other, one, plan.pixel_size, seed=plan.settings.seed) for other in second] for one in first]
    likeness = [[alignment.correlation for alignment in row] for row in alignments]
    indices = np.stack(linear_sum_assignment(likeness, maximize=True), axis=1)
    shares = np.array([(weights[0][i] + weights[1][j]) / 2 for i, j in indices])
    order = np.argsort(-shares)
    return [
        _Pair((first[i], alignments[i][j].apply(second[j], plan.pixel_size)), (int(i), int(j)), float(share))
        for (i, j), share in zip(indices[order], np.sort(shares)[::-1], strict=True)
    ]


def _probabilities(table: ParticleTable, stars: Sequence[dict[str, StarTable]], pairs: Sequence[_Pair]) -> np.ndarray:
    """Probability of each pair's class for each particle, (N, K)."""
    halves = recorded_halves(table)
    probability = np.zeros((len(table), len(pairs)))
    for half, star in zip(HALVES, stars, strict=True):
        names = [f"cryoganClassProbability{pair.indices[half - 1] + 1}" for pair in pairs]
        probability[halves == half] = np.stack([star["particles"].floats(name) for name in names], axis=1)
    return probability


def _write_class(
    folder: MapFolder, plan: Plan, pair: _Pair, table: ParticleTable, probability: np.ndarray, index: int
) -> ClassMap:
    """Write maps, FSC and most probable particles of a class."""
    members = probability.argmax(1) == index
    folder.path.mkdir(exist_ok=True)
    mask = soft_mask((pair.maps[0] + pair.maps[1]) / 2, plan.pixel_size)
    curves = fsc_curves(*pair.maps, plan.pixel_size, mask, seed=plan.settings.seed)
    write_maps(folder, plan.pixel_size, pair.maps, mask, curves)
    columns = {
        "rlnClassNumber": np.full(members.sum(), index + 1),
        "rlnMaxValueProbDistribution": probability[members, index],
    }
    subset = recorded_halves(table)[members]
    write_particles(folder.particles, table.select(members), random_subset=subset, columns=columns)
    resolution = resolution_at(curves.corrected, plan.pixel_size, 0.143, plan.box)
    return ClassMap(folder.path, pair.share, int(members.sum()), resolution)
