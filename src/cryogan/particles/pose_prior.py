"""A prior on the viewing direction that a user gives: the poses of another run, a table, a mixture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles.star import StarTable, read_star

_ANGLES = ("rlnAngleRot", "rlnAngleTilt")
_CONCENTRATION, _WEIGHT = "cryoganConcentration", "cryoganViewDensity"


@dataclass(frozen=True)
class PosePrior:
    """A mixture of N von Mises-Fisher densities of the beam's direction in the volume.

    Attributes:
        directions: (N, 3), the means, unit vectors x, y, z.
        concentrations: (N,), kappa, NaN where the file has none.
        weights: (N,), of the components, not normalised.
    """

    directions: NDArray[np.float64]
    concentrations: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.weights)


def read_pose_prior(path: Path | str) -> PosePrior:
    """Read a prior from the first block of a STAR file that has _rlnAngleRot and _rlnAngleTilt (degrees).

    Each row is a component. _cryoganConcentration and _cryoganViewDensity, the weight (1 without it), are optional.

    Args:
        path: the STAR file.

    Raises:
        InputError: the file is no STAR file; there is no such block or no row; a value is not a finite number; a
            concentration is not positive, a weight negative, or no weight positive; all of many rows are one direction.
    """
    path = Path(path)
    blocks = read_star(path).values()
    block = next((candidate for candidate in blocks if all(name in candidate for name in _ANGLES)), None)
    if block is None:
        raise InputError(
            f"{path}: no block has both _rlnAngleRot and _rlnAngleTilt. Give the poses of a run, or a table with them."
        )
    if not len(block):
        raise InputError(f"{path}: block data_{block.name[:50]} has no rows. Give at least one view direction.")
    rot, tilt = (np.radians(_finite(block, name)) for name in _ANGLES)
    directions = np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=1)
    if len(block) > 1 and np.ptp(directions, axis=0).max() < 1e-6:
        raise InputError(
            f"{path}: all {len(block)} rows of data_{block.name[:50]} have one direction. Give poses that were refined."
        )
    concentrations, weights = np.full(len(block), np.nan), np.ones(len(block))
    if _CONCENTRATION in block:
        concentrations = _finite(block, _CONCENTRATION)
        _refuse(block, _CONCENTRATION, concentrations <= 0, "Give a number above 0")
    if _WEIGHT in block:
        weights = _finite(block, _WEIGHT)
        _refuse(block, _WEIGHT, weights < 0, "Give 0 or more")
        if not weights.any():
            raise InputError(f"{path}: every _{_WEIGHT} is 0. Give at least one row a positive weight.")
    return PosePrior(directions, concentrations, weights)


def _finite(block: StarTable, column: str) -> NDArray[np.float64]:
    values = block.floats(column)
    _refuse(block, column, ~np.isfinite(values), "Give a finite number")
    return values


def _refuse(block: StarTable, column: str, bad: NDArray[np.bool_], remedy: str) -> None:
    """Raise InputError with the place of the first bad row."""
    if bad.any():
        row = int(bad.argmax())
        raise InputError(f"{block.where(row)}: _{column} is {block.columns[column][row][:50]}. {remedy}.")
