"""View directions and shifts that half 1 simulates, as `views.star` of a run records them."""

from dataclasses import dataclass

import numpy as np

from cryogan.critics import Trainer
from cryogan.particles import read_star, write_star
from cryogan.run.folder import RunFolder


@dataclass(frozen=True)
class RecordedViews:
    """What `views.star` holds.

    Attributes:
        rot: first Euler angle of V view directions, degrees, (V,).
        tilt: second Euler angle, degrees, (V,).
        density: density of the view directions, 1 where even, (V,).
        coverage: coverage of directions of frequencies by views, 1 where even, (V,).
        shift_width: half width of the distribution of shifts, A.
        prior_fit: correlation of a prior of view directions with the views; None: there is no prior.
    """

    rot: np.ndarray
    tilt: np.ndarray
    density: np.ndarray
    coverage: np.ndarray
    shift_width: float
    prior_fit: float | None


def write_views(folder: RunFolder, trainer: Trainer) -> None:
    """Write the view directions and shifts that a trainer simulates, where the directions are not uniform."""
    views = trainer.simulator.views
    if views is None:
        return
    x, y, z = views.directions.double().cpu().numpy().T
    columns = {
        "rlnAngleRot": np.degrees(np.arctan2(y, x)),
        "rlnAngleTilt": np.degrees(np.arccos(z)),
        "cryoganViewDensity": views.density.cpu().numpy(),
        "cryoganCoverage": views.coverage().cpu().numpy(),
    }
    blocks = {"views": {name: values.tolist() for name, values in columns.items()}}
    blocks["shifts"] = {"cryoganShiftHalfWidthAngst": [float(trainer.simulator.shift_width)]}
    if views.prior_fit > 0:
        blocks["prior"] = {"cryoganPriorCorrelation": [float(views.prior_fit)]}
    write_star(folder.views, blocks)


def read_views(folder: RunFolder) -> RecordedViews:
    """Read what `write_views` wrote."""
    blocks = read_star(folder.views)
    names = ("rlnAngleRot", "rlnAngleTilt", "cryoganViewDensity", "cryoganCoverage")
    rot, tilt, density, coverage = (blocks["views"].floats(name) for name in names)
    width = float(blocks["shifts"].floats("cryoganShiftHalfWidthAngst")[0])
    fit = float(blocks["prior"].floats("cryoganPriorCorrelation")[0]) if "prior" in blocks else None
    return RecordedViews(rot, tilt, density, coverage, width, fit)
