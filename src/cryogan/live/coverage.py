"""How well the views of all particles so far cover the frequencies of the map, and where views are missing."""

from typing import Any

import torch
from torch import Tensor

from cryogan.live.folder import LiveFolder, read_json
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.run.judgement import RARE


def coverage_with(
    folder: LiveFolder, number: int, record: dict[str, Any], of_portion: Tensor, of_sample: Tensor, group: Tensor
) -> dict[str, Any]:
    """Return the views of all particles of a map and of the portions after it, with those of a new portion.

    Args:
        folder: our folder.
        number: number of the new portion.
        record: of the new portion, judged.
        of_portion: rotations (n, 3, 3) of its particles that show the map.
        of_sample: rotations (m, 3, 3) of the map's sample.
        group: (g, 3, 3), the point group.

    Returns:
        Counts of views by direction, of the portion and of all, mean 1; the coverage of directions of frequencies, 1
        where it is that of uniform views; the share of directions that is hardly covered, the worst direction, and the
        half angle, degrees, of a cap about it that holds the others.
    """
    distribution = PoseDistribution(group.device)
    views = distribution.counts(of_portion, group) if len(of_portion) else torch.ones_like(distribution.density)
    made = read_json(folder.map_record(record["map"]))
    parts = [made["particles"] * distribution.counts(of_sample, group)] if len(of_sample) else []
    for portion in folder.portion_numbers():
        one = record | {"views": views.tolist()} if portion == number else read_json(folder.portion_record(portion))
        if portion > made["last_portion"] and one.get("map") == record["map"] and "views" in one:
            parts.append(one["particles"] * one["share"] * torch.tensor(one["views"]).to(views))
    total = torch.stack(parts).sum(0) if parts else views
    distribution.density.copy_(total / total.mean())
    coverage = distribution.coverage()
    worst, within = missing_cap(distribution.directions, coverage)
    return {
        "views": _rounded(views),
        "all_views": _rounded(distribution.density),
        "coverage": _rounded(coverage),
        "missing": float((coverage < RARE).float().mean()),
        "missing_about": _rounded(worst),
        "missing_within": within,
    }


def missing_cap(directions: Tensor, coverage: Tensor) -> tuple[Tensor, float]:
    """Return the direction (3,) that is covered worst, with z >= 0, and the half angle of a cap, degrees.

    The cap is as large as one whose directions are as far from its middle, in the median, as those that are hardly
    covered; 0 where none is.

    Args:
        directions: (N, 3).
        coverage: (N,), 1 where it is that of uniform views.
    """
    worst, missing = directions[coverage.argmin()], coverage < RARE
    worst = -worst if worst[2] < 0 else worst
    if not missing.any():
        return worst, 0.0
    median = (directions[missing] @ worst).abs().clamp(max=1.0).acos().median()
    # Of a cap of half angle b half the area is within a, with 2 (1 - cos a) = 1 - cos b.
    return worst, float(torch.rad2deg((2 * median.cos() - 1).clamp(-1.0, 1.0).acos()))


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 3) for value in values.tolist()]
