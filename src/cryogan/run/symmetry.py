"""The symmetry that the half maps of a run without one have by themselves: its record, and what a user is told.

`cryogan.validation.suggest_symmetry` finds it; docs/symmetry.md explains it. It is suggested, never imposed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cryogan.errors import Finding, InputError
from cryogan.files import finite, replacing
from cryogan.particles import read_volume
from cryogan.run import warnings
from cryogan.run.folder import RunFolder
from cryogan.run.plan import Plan
from cryogan.run.verdict import read_verdict
from cryogan.validation import SymmetryScore, SymmetrySuggestion, suggest_symmetry


@dataclass(frozen=True)
class FoundSymmetry:
    """What is known of the symmetry of half maps that were made without one.

    Attributes:
        suggestion: Point groups that come into question, with their scores; None: they were not looked for.
        reason: Why not.
    """

    suggestion: SymmetrySuggestion | None
    reason: str = ""

    @property
    def suggested(self) -> str | None:
        """Name of the largest group that the half maps have; None: there is none."""
        best = self.suggestion and self.suggestion.suggested
        return best.symmetry if best else None

    @property
    def findings(self) -> list[Finding]:
        """What a user should know; the first stands for all."""
        found = self.suggestion
        if found is None:
            return [warnings.SYMMETRY_UNKNOWN(reason=self.reason)]
        findings = []
        if found.is_round:
            names = ", ".join(score.symmetry for score in found.supported)
            findings.append(warnings.SYMMETRY_ROUND(symmetries=names))
        elif found.suggested:
            findings.append(warnings.SYMMETRY_FOUND(**_numbers(found.suggested, found)))
        if found.near:
            findings.append(warnings.SYMMETRY_NEAR(**_numbers(found.near[0], found)))
        if not findings:
            best = max(found.scores, key=lambda score: score.score)
            findings.append(warnings.SYMMETRY_NONE(**_numbers(best, found)))
        return findings

    @property
    def table(self) -> dict[str, str]:
        """A line for each group that the half maps have or nearly have; or for all that were scored."""
        if self.suggestion is None:
            return {}
        shown = (*self.suggestion.supported, *self.suggestion.near) or self.suggestion.scores
        return {
            score.symmetry: f"{score.status}: score {score.score:.2f} +- {score.error:.2f}, chance "
            f"{_chance(score.chance)}; coarser half of the shells {score.coarse:.2f}, finer half {score.fine:.2f}"
            for score in shown
        }

    @property
    def values(self) -> dict[str, Any]:
        """All of it for a program to read, with None for what JSON cannot hold."""
        if self.suggestion is None:
            return {"suggested": None, "near": [], "reason": self.reason, "finest_A": None, "groups": []}
        groups = [
            finite(asdict(score) | {"score": score.score, "status": score.status}) for score in self.suggestion.scores
        ]
        near = [score.symmetry for score in self.suggestion.near]
        return {
            "suggested": self.suggested,
            "near": near,
            "reason": "",
            "finest_A": self.suggestion.finest_A,
            "groups": groups,
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "FoundSymmetry":
        """Return what was recorded as JSON."""
        if values["finest_A"] is None:
            return cls(None, values["reason"])
        scores = tuple(map(SymmetryScore.from_values, values["groups"]))
        return cls(SymmetrySuggestion(scores, values["finest_A"]))


def find_symmetry_of_run(folder: RunFolder) -> FoundSymmetry:
    """Find the symmetry of a finished run's half maps, as far as the verdict supports the map, and record it.

    Args:
        folder: Of a run in C1 with one map.

    Raises:
        InputError: The run is not finished, has a symmetry already, or has classes.
    """
    folder.require_finished()
    plan, (half1, half2) = Plan.read(folder.path), folder.half_maps
    if not is_looked_for(plan):
        raise InputError(
            f"{folder.path} was made with --symmetry {plan.settings.symmetry} and --classes {plan.settings.classes}. "
            "Give a run in C1 with one class, or half maps made without symmetry."
        )
    found, verdict = None, read_verdict(folder)
    if verdict is not None and not verdict.is_resolved:
        found = FoundSymmetry(None, "the verdict on the map is not: resolved.")
    else:
        (first, pixel_size), (second, _) = read_volume(half1), read_volume(half2)
        try:
            found = FoundSymmetry(
                suggest_symmetry(first, second, pixel_size, resolution_A=verdict.resolution if verdict else None)
            )
        except InputError as error:
            found = FoundSymmetry(None, str(error))
    with replacing(folder.symmetry_record) as temporary:
        temporary.write_text(json.dumps(found.values, indent=1) + "\n")
    return found


def is_looked_for(plan: Plan) -> bool:
    """Whether the half maps of a run can show a symmetry: none was imposed, and they are of one structure."""
    return plan.settings.symmetry.strip().upper() == "C1" and plan.settings.classes == 1


def read_symmetry(folder: RunFolder) -> FoundSymmetry | None:
    """Read what was found of a run's symmetry; None: it was not looked for, or by another version of the program."""
    if not folder.symmetry_record.exists():
        return None
    try:
        return FoundSymmetry.from_values(json.loads(folder.symmetry_record.read_text()))
    except (KeyError, TypeError, ValueError):
        return None


def _numbers(score: SymmetryScore, found: SymmetrySuggestion) -> dict[str, object]:
    return {
        "symmetry": score.symmetry,
        "score": score.score,
        "chance": _chance(score.chance),
        "finest": found.finest_A,
    }


def _chance(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "unknown"
