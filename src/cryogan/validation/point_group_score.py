"""What half maps under the rotations of a point group are worth, see `rotated_halves`; read without PyTorch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

BELOW, ERRORS = 0.05, 2.0  # by which the score of a symmetry may be below 1, or by so many of its standard errors
NEARLY, NEARLY_COARSE = 0.8, 0.9  # least score, or score in the coarser half of the shells, of what is nearly one
CLEAR = 0.2  # by which each is above chance
# Score below which, by so many of its standard errors, half maps surely lack a symmetry. Weak maps may miss a right one
# by more than two errors, which count coefficients alone.
LACKING, SURELY = 0.7, 4.0


@dataclass(frozen=True)
class SymmetryScore:
    """How well half maps keep a point group, of its rotations those of the angle that they keep worst.

    Attributes:
        symmetry: Name of the point group.
        with_it: Weighted correlation of half map 1 with half map 2 under the group's rotations.
        without_it: The same of the half maps as they are.
        error: Standard error of the ratio of the two, by the number of coefficients.
        coarse: Ratio of the two in the coarser half of the shells.
        fine: Ratio of the two in the finer half of the shells.
        chance: Highest ratio that a turn by an angle of the group reaches about other axes of the map; minus infinity:
            not measured, or there are no others.
        chance_coarse: The same in the coarser half of the shells.
    """

    symmetry: str
    with_it: float
    without_it: float
    error: float
    coarse: float
    fine: float
    chance: float = -math.inf
    chance_coarse: float = -math.inf

    @property
    def score(self) -> float:
        """Correlation with the symmetry over that without it: 1 where the map has it, whatever the noise."""
        return self.with_it / self.without_it

    @property
    def holds(self) -> bool:
        """Whether the half maps have the symmetry as far as they agree at all."""
        return self.score >= max(1 - max(BELOW, ERRORS * self.error), self.chance + CLEAR)

    @property
    def nearly_holds(self) -> bool:
        """Whether they have most of it, or all of it at low resolution, but less than they agree on."""
        most = self.score >= max(NEARLY, self.chance + CLEAR)
        return not self.holds and (most or self.coarse >= max(NEARLY_COARSE, self.chance_coarse + CLEAR))

    @property
    def is_lacking(self) -> bool:
        """Whether they surely do not have it, not even nearly."""
        return self.score + SURELY * self.error < LACKING

    @property
    def status(self) -> Literal["supported", "near", "not supported"]:
        """Which of the two it is, in a word."""
        return "supported" if self.holds else "near" if self.nearly_holds else "not supported"

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "SymmetryScore":
        """Return the score that was recorded as JSON, which has None for minus infinity."""
        recorded = {field.name: values[field.name] for field in fields(cls)}
        finite: dict[str, Any] = {name: -math.inf if value is None else value for name, value in recorded.items()}
        return cls(**finite)
