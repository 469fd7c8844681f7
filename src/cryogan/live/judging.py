"""What a portion of particles is worth, judged against the last map, of which it is no part.

The portion is compared with a sample of the particles that the map is made of: each particle of either is oriented
against the map of the half that it is not in. What is usual is learned from both together, so that a portion of junk
stands out although all of it is alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.critics.matching.templates import Observed
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.live.coverage import coverage_with
from cryogan.live.folder import LiveFolder, read_json, write_json
from cryogan.live.names import grid_square
from cryogan.live.star_rows import Blocks, join
from cryogan.particles import read_star, read_volume, write_star
from cryogan.particles.images import evenly_spread
from cryogan.physics.ctf import ctf
from cryogan.refinement.half_map_test import HalfMapTest
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.outliers import find_outliers
from cryogan.refinement.pose_search import Poses, search_poses
from cryogan.refinement.scores import score_particles
from cryogan.run.build import signal_variance
from cryogan.run.plan import Plan

AT_MOST = 500  # particles of a portion that are judged, spread evenly over it
LEAST_CUTOFF = 4.0  # shell
SHOWN, LEAST_SHOWN = 0.5, 20  # least weight of a particle whose view and defocus count, and number of these
OFFSETS = (-8000.0, -4000.0, -2000.0, -1000.0, 1000.0, 2000.0, 4000.0, 8000.0)  # A, of the defocus, that are tried


@dataclass(frozen=True)
class Judged:
    """Particles that were compared with the map.

    Attributes:
        is_portion: (N,), whether a particle is of the portion; the others are of the map's sample.
        weight: (N,), probability that it shows the map.
        defocus_gain: (N,), log-likelihood that the best other defocus gains over the one that is stated, nats.
        defocus_power: (N,), half the power of the map's projection over that of the noise, nats: what a particle gains
            that shows the map.
        defocus_offset: (N,), that other defocus, A, from the one that is stated.
        rotations: (N, 3, 3), of the poses.
        micrographs: (N,).
        defocus: (N,), mean defocus as stated, A.
        variance: of the signal near the centre, of the portion and of the sample.
    """

    is_portion: NDArray[np.bool_]
    weight: NDArray[np.float64]
    defocus_gain: NDArray[np.float64]
    defocus_power: NDArray[np.float64]
    defocus_offset: NDArray[np.float64]
    rotations: Tensor
    micrographs: NDArray[np.str_]
    defocus: NDArray[np.float64]
    variance: tuple[float, float]


def judge_portion(folder: LiveFolder, number: int, map_number: int) -> None:
    """Judge a portion against a map, and add what was found to the portion's record.

    Args:
        folder: our folder.
        number: number of the portion.
        map_number: number of a finished map.
    """
    plan = Plan.read(folder.map_run(map_number).path)
    torch.set_num_threads(1)
    star = folder.maps / "judged.star"
    write_star(star, _beside_sample(folder, number, map_number))
    sample = len(read_star(folder.map_sample(map_number))["particles"])
    half1, half2 = (read_volume(path)[0] for path in folder.map_run(map_number).half_maps)
    test = HalfMapTest.of(plan, (half1, half2), star)
    found = _compare(test, sample)
    record = read_json(folder.portion_record(number)) | _worth(found, map_number)
    group, shown = test.halves[0].group, found.weight > SHOWN
    of_portion, of_sample = (found.rotations[kind & shown] for kind in (found.is_portion, ~found.is_portion))
    record |= coverage_with(folder, number, record, of_portion, of_sample, group)
    write_json(folder.portion_record(number), record)


def _beside_sample(folder: LiveFolder, number: int, map_number: int) -> Blocks:
    """Return the map's sample, and behind it particles of the portion."""
    sample, portion = folder.map_sample(map_number), folder.portion_star(number)
    first, both = len(read_star(sample)["particles"]), join([sample, portion])
    count = len(both["particles"]["rlnImageName"])
    rows = [*range(first), *(first + evenly_spread(count - first, AT_MOST)).tolist()]
    return both | {"particles": {name: [values[row] for row in rows] for name, values in both["particles"].items()}}


@torch.no_grad()
def _compare(test: HalfMapTest, sample: int) -> Judged:
    """Compare particles with the other half's map; the first `sample` rows of their file are the map's sample."""
    cutoff = max(test.width_A / test.resolution, LEAST_CUTOFF)
    poses, scores, others = [], [], []
    for side, half in enumerate(test.halves):
        density = test.weighted(side) * torch.from_numpy(test.mask).to(test.maps[side])
        best = search_poses(half, density, cutoff)
        poses.append(best)
        scores.append(score_particles(half, density, best, cutoff))
        others.append(_other_defocus(half, density, best, cutoff))
    tables = [half.images.table for half in test.halves]
    micrographs = [table.micrographs for table in tables]
    is_portion = [table.source_row >= sample for table in tables]
    variance = [_variance(test.halves, kind) for kind in (is_portion, [~one for one in is_portion])]
    gain, power, offset = torch.cat(others, 1).double().cpu().numpy()
    return Judged(
        np.concatenate(is_portion),
        find_outliers(scores, micrographs).weight,
        gain,
        power,
        offset,
        Poses.cat(poses).rotations,
        np.concatenate(micrographs),
        np.concatenate([(table.ctf["defocus_u"] + table.ctf["defocus_v"]) / 2 for table in tables]),
        (variance[0], variance[1]),
    )


def _variance(halves: Sequence[HalfSet], rows: Sequence[NDArray[np.bool_]]) -> float:
    """Return the signal's variance near the centre of some particles of both halves, 0 or more."""
    found = [(of_half.sum(), half.images, np.flatnonzero(of_half)) for half, of_half in zip(halves, rows, strict=True)]
    total = sum(count * signal_variance(images, chosen) for count, images, chosen in found if count)
    return max(float(total) / max(sum(int(count) for count, _, _ in found), 1), 0.0)


def _other_defocus(half: HalfSet, density: Tensor, poses: Poses, cutoff: float) -> Tensor:
    """Return gain, power and offset of `Judged` for the best other defocus at each particle's pose, (3, N)."""
    simulator, disc = half.simulator, half.disc(cutoff)
    templates = half.templates(half.projector.transform(density), disc)
    root, found = templates.precision.sqrt(), []
    at_poses = zip(torch.split(poses.rotations, IMAGES_AT_ONCE), torch.split(poses.shifts, IMAGES_AT_ONCE), strict=True)
    rows = torch.split(half.rows, IMAGES_AT_ONCE)
    for batch, (rotations, shifts), of_batch in zip(half.batches(), at_poses, rows, strict=True):
        images, projections = Observed.on(disc, *batch), root * templates.projections(rotations)
        observed = images.coefficients * templates.shift_phase(shifts).conj() * root

        def nats(transfer: Tensor, observed: Tensor = observed, projections: Tensor = projections) -> Tensor:
            model = transfer * projections
            return (model.conj() * observed).real.sum(1) - model.abs().square().sum(1) / 2

        optics = simulator.optics[of_batch]
        tried = [
            replace(optics, defocus_u=optics.defocus_u + offset, defocus_v=optics.defocus_v + offset)
            for offset in OFFSETS
        ]
        size = half.projector.box, simulator.pixel_size
        others = torch.stack([nats(disc.take(ctf(one, *size))) for one in tried])
        best = others.max(0)
        gain, power = best.values - nats(images.transfer), (images.transfer * projections).abs().square().sum(1) / 2
        found.append(torch.stack([gain, power, torch.tensor(OFFSETS).to(gain)[best.indices]]))
    return torch.cat(found, 1)


def _worth(found: Judged, map_number: int) -> dict[str, Any]:
    """Return the numbers of a portion, beside those of the map's sample where they are to be compared."""
    portion, sample = found.is_portion, ~found.is_portion
    weight, micrographs = found.weight[portion], found.micrographs[portion]
    names, index = np.unique(micrographs, return_inverse=True)
    counts, sums = np.bincount(index), np.bincount(index, weight)
    shown = found.weight > SHOWN
    gain, error = _relative_gain(found, portion & shown)
    usual, usual_error = _relative_gain(found, sample & shown)
    better = np.abs(found.defocus_offset[portion & shown & (found.defocus_gain > 0)])
    return {
        "map": map_number,
        "judged": len(weight),
        "share": float(weight.mean()),
        "share_of_sample": float(found.weight[sample].mean()),
        "micrographs": {
            str(name): [int(count), round(float(total), 3), grid_square(str(name))]
            for name, count, total in zip(names, counts, sums, strict=True)
        },
        "defocus_A": float(np.median(found.defocus[portion])),
        "defocus_range_A": [float(value) for value in np.percentile(found.defocus[portion], (5, 95))],
        "defocus_gain": gain - usual,
        "defocus_z": (gain - usual) / max(float(np.hypot(error, usual_error)), 1e-9),
        "defocus_offset_A": float(np.median(better)) if len(better) else 0.0,
        "snr": found.variance[0],
        "snr_of_sample": found.variance[1],
    }


def _relative_gain(found: Judged, chosen: NDArray[np.bool_]) -> tuple[float, float]:
    """Return what other defoci gain for particles, over what they gain by showing the map, and its standard error."""
    gain, power = found.defocus_gain[chosen].clip(min=0), found.defocus_power[chosen]
    if len(gain) < LEAST_SHOWN:
        return 0.0, 1.0
    ratio = float(gain.sum() / power.sum())
    return ratio, float(np.sqrt(((gain - ratio * power) ** 2).sum()) / power.sum())
