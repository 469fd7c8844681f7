"""The verdict on a map: how far it can be believed, from evidence that the FSC of the half maps does not hold.

`cryogan.refinement.verdict` measures the evidence; docs/trust.md explains it.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryogan.errors import Finding
from cryogan.files import finite, replacing
from cryogan.run import verdict_kinds, warnings
from cryogan.run.folder import RunFolder
from cryogan.run.held_out import HeldOut
from cryogan.run.likeness import Likeness
from cryogan.validation.point_group_score import SymmetryScore
from cryogan.validation.shape import Shape

SAME_FRAME = 0.8  # correlation of the aligned halves below which they are called different
ROUND = 0.9  # share of the map that its radial average explains, from which on it is called featureless
SHAPE_A, SHAPES = 20.0, 6.0  # resolved is finer than this, or than this part of the molecule's diameter


@dataclass(frozen=True)
class Evidence:
    """All that the verdict rests on.

    Attributes:
        half_map_resolution: Corrected FSC 0.143 of the half maps, A; None: there is one map, of other particles.
        finest: Resolution, A, to which this FSC is over 0.143, but for dips, which that of hollow molecules has.
        correlation: Correlation of the half maps; 1 for one map.
        correlation_other_hand: Correlation of half map 1 with the mirror image of half map 2, aligned; None: not known.
        diameter: Diameter of a ball of the molecule's volume, A.
        contrast: 1 if protein is bright in the particles, -1 if it is dark, 0 if that is not sure.
        shape: How round the map is, how empty its border, and which way up it is.
        held_out: What held-out particles and frequencies support.
        likeness: What tells real from simulated images, and what is known of the poses.
        searched: Score of the imposed symmetry on the maps that each half's search made without it; None: there are no
            such maps, or they agree too little.
    """

    half_map_resolution: float | None
    finest: float
    correlation: float
    correlation_other_hand: float | None
    diameter: float
    contrast: int
    shape: Shape
    held_out: HeldOut
    likeness: Likeness
    searched: SymmetryScore | None = None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Evidence":
        """Return the evidence that was recorded as JSON."""
        searched = values.get("searched")
        parts = {
            "shape": Shape(**values["shape"]),
            "held_out": HeldOut.from_values(values["held_out"]),
            "likeness": Likeness.from_values(values["likeness"]),
            "searched": searched and SymmetryScore.from_values(searched),
        }
        return cls(**({**values} | parts))

    @property
    def wrong_symmetry(self) -> SymmetryScore | None:
        """The score of the imposed symmetry, where the search surely found a map without it; or None."""
        return self.searched if self.searched is not None and self.searched.is_lacking else None


@dataclass(frozen=True)
class Verdict:
    """How far a map can be believed.

    Attributes:
        evidence: What it rests on.
    """

    evidence: Evidence

    @property
    def resolution(self) -> float | None:
        """Resolution to which the map can be believed, A: never finer than held-out data support; None: to none."""
        e, supported = self.evidence, self.evidence.held_out.resolution
        inverted = e.contrast < 0 or e.shape.skewness < 0
        if supported is None or inverted or e.wrong_symmetry is not None or e.held_out.contradiction is not None:
            return None
        agreed = min(e.finest, e.half_map_resolution or math.inf)
        return max(supported, agreed)

    @property
    def wrong_half(self) -> int | None:
        """The half map, 1 or 2, that alone is not supported; None: there is no such."""
        if self.finding.code != verdict_kinds.ONE_HALF.code or self.evidence.held_out.only_half is None:
            return None
        return 2 - self.evidence.held_out.only_half[0]

    @property
    def finding(self) -> Finding:
        """The verdict in one sentence, with its code: the first word on a run."""
        e = self.evidence
        values = {"half": self._half_maps, "held_out": self._supported}
        if e.contrast < 0:
            return verdict_kinds.DARK(**values)
        if e.held_out.resolution is not None and e.shape.skewness < 0:
            return verdict_kinds.INVERTED(**values)
        if (found := e.wrong_symmetry) is not None:
            return verdict_kinds.WRONG_SYMMETRY(symmetry=found.symmetry, score=found.score, error=found.error, **values)
        if e.held_out.contradiction is not None:
            at, share = e.held_out.contradiction
            return verdict_kinds.MISMATCH(at=at, share=share, **values)
        if e.held_out.only_half is not None and e.half_map_resolution is not None:
            half, alone = e.held_out.only_half
            return verdict_kinds.ONE_HALF(good=half + 1, bad=2 - half, alone=alone, half=self._half_maps)
        if self.resolution is None and e.correlation < SAME_FRAME:
            return verdict_kinds.HALVES(correlation=e.correlation)
        if self.resolution is None:
            kind = verdict_kinds.FEATURELESS if e.shape.radial_share > ROUND else verdict_kinds.UNDECIDED
            return kind(radial=e.shape.radial_share, **values)
        if self.resolution > max(SHAPE_A, e.diameter / SHAPES):
            return verdict_kinds.SHAPE(resolution=self.resolution, **values)
        return verdict_kinds.RESOLVED(resolution=self.resolution, **values)

    @property
    def findings(self) -> list[Finding]:
        """The verdict, and what else a user should know of it."""
        findings = [self.finding]
        if self.evidence.held_out.more_signal is not None and self.resolution is not None:
            at, share = self.evidence.held_out.more_signal
            findings.append(verdict_kinds.MORE_SIGNAL(at=at, share=share))
        if self.evidence.half_map_resolution is None:
            findings.append(verdict_kinds.ONE_MAP())
        return findings

    def beside(self, findings: Iterable[Finding]) -> list[Finding]:
        """The verdict, and those findings on the maps that stand beside it: noisy half maps that are right do agree."""
        settled = {warnings.HALVES_DISAGREE.code} if self.is_resolved else set()
        return [*self.findings, *(finding for finding in findings if finding.code not in settled)]

    @property
    def is_resolved(self) -> bool:
        """Whether the map is resolved."""
        return self.finding.code == verdict_kinds.RESOLVED.code

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        return f"Verdict: {self.finding.sentence}"

    @property
    def sentences(self) -> dict[str, str]:
        """The evidence in words, by its name."""
        e = self.evidence
        mirror = ""
        if e.correlation_other_hand is not None:
            mirror = f"; with one of them mirrored {e.correlation_other_hand:.2f}"
        return {
            "Half maps": f"{self._half_maps}; their correlation is {e.correlation:.2f}{mirror}",
            "Held-out particles": e.held_out.sentence,
            "Real and simulated images": e.likeness.sentence,
            "Poses": e.likeness.poses_sentence,
            "Contrast": {1: "protein is bright", -1: "protein is dark", 0: "not sure"}[e.contrast]
            + " in the particles",
            "Shape": f"its radial average explains {e.shape.radial_share:.0%} of the map; at the border of the sphere "
            f"it has {e.shape.border:.0%} of the molecule's density; its skewness is {e.shape.skewness:.1f}",
            **self._symmetry,
        }

    @property
    def values(self) -> dict[str, Any]:
        """The verdict and its evidence for a program to read."""
        return {
            "verdict": self.finding.code,
            "verdict_A": self.resolution,
            "sentence": self.finding.sentence,
            "held_out_A": self.evidence.held_out.resolution,
            "evidence": asdict(self.evidence),
        }

    @property
    def _symmetry(self) -> dict[str, str]:
        """How well the maps of the search have the imposed symmetry, where that is known."""
        found = self.evidence.searched
        if found is None:
            return {}
        return {
            "Symmetry": f"{found.symmetry} has the score {found.score:.2f} +- {found.error:.2f} on the maps of the "
            "initial search, which is made without symmetry; 1: they have it"
        }

    @property
    def _half_maps(self) -> str:
        resolution = self.evidence.half_map_resolution
        return "there is one map" if resolution is None else f"half maps agree to {resolution:.1f} A"

    @property
    def _supported(self) -> str:
        held_out = self.evidence.held_out
        if not held_out.bands:
            return "too few shells agree to hold any out"
        if held_out.resolution is None:
            return f"held-out particles support nothing at {held_out.first_A:.0f} A or finer"
        return f"held-out particles support it to {held_out.resolution:.1f} A"


def record_path(folder: RunFolder) -> Path:
    """Return the path of the record of a run: verdict and evidence, JSON."""
    return folder.verdict / "verdict.json"


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write a verdict and its evidence as JSON.

    Args:
        path: File to write; its folder is made.
        verdict: What is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(verdict.values), indent=1) + "\n")


def read_verdict(folder: RunFolder) -> Verdict | None:
    """Read the verdict on a run; None: there is none, or another version of the program wrote it."""
    path = record_path(folder)
    if not path.exists():
        return None
    try:
        return Verdict(Evidence.from_values(json.loads(path.read_text())["evidence"]))
    except (KeyError, TypeError):
        return None
