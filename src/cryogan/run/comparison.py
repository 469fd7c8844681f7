"""Whether several runs give one structure, and which of them is the best: the record, and what a user is told.

`cryogan.refinement.compare` measures it; docs/trust.md explains it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cryogan.errors import Finding
from cryogan.files import replacing
from cryogan.run import warnings

Answer = Literal["one", "several", "none"]
SURE = 3.0  # standard errors of a difference of scores


@dataclass(frozen=True)
class Score:
    """Log-likelihood ratio of the particles kept for choosing, each at its best pose in the other half's map.

    Attributes:
        mean: of a particle, nats.
        deficit: mean of the run with the highest score minus this mean, nats.
        deficit_error: standard error of the deficit, over particles.
    """

    mean: float
    deficit: float
    deficit_error: float


@dataclass(frozen=True)
class ComparedRun:
    """A run among others.

    Attributes:
        folder: its folder.
        structure: number of the structure that it gives, from 1; 1 is that of most runs.
        resolution: FSC 0.143 of its half maps, corrected, A.
        mirrored: whether its map has the other hand than that of the first run.
        score: None where the runs have no score that can be compared.
    """

    folder: Path
    structure: int
    resolution: float
    mirrored: bool
    score: Score | None


@dataclass(frozen=True)
class RunComparison:
    """What several runs of one molecule give.

    Attributes:
        runs: the runs.
        correlation: of each run's map with each other's, aligned and low-passed, inside a mask.
        cutoff_A: resolution of the low-pass filter, A.
        cutoff: the same in words.
        scored_particles: number of particles that all scores are of.
    """

    runs: tuple[ComparedRun, ...]
    correlation: tuple[tuple[float, ...], ...]
    cutoff_A: float
    cutoff: str
    scored_particles: int

    @property
    def structures(self) -> list[list[ComparedRun]]:
        """The runs that give each structure, the most frequent first."""
        count = max(run.structure for run in self.runs)
        return [[run for run in self.runs if run.structure == number] for number in range(1, count + 1)]

    @property
    def answer(self) -> Answer:
        """One structure, several of which one at least came twice, or none that did."""
        if len(self.structures) == 1:
            return "one"
        return "several" if len(self.structures[0]) > 1 else "none"

    @property
    def best(self) -> ComparedRun | None:
        """The run with the highest score among those that give the most frequent structure; None where none did twice.

        Of structures that are equally frequent it is that of the highest score.
        """
        if self.answer == "none":
            return None
        most = len(self.structures[0])
        scored = [
            (run.score.mean, run)
            for structure in self.structures
            for run in structure
            if len(structure) == most and run.score is not None
        ]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        count, at = len(self.runs), f"maps low-passed at {self.cutoff}"
        pairs = [self.correlation[i][j] for i in range(count) for j in range(i)]
        if self.answer == "one":
            found = f"One structure: the {count} runs agree (correlation at least {min(pairs):.2f}; {at})."
        elif self.answer == "several":
            found = f"{len(self.structures)} answers: {self.groups} ({at})."
        else:
            found = f"No answer: no two of the {count} runs agree (correlation at most {max(pairs):.2f}; {at})."
        return found if self.best is None else f"{found} Best by the particles kept for choosing: {self.best.folder}."

    @property
    def groups(self) -> str:
        """The runs that give each structure, in words."""
        return "; ".join(", ".join(str(run.folder) for run in structure) for structure in self.structures)

    @property
    def findings(self) -> list[Finding]:
        """A warning if the runs disagree, and a note if they have no score."""
        found = []
        if self.answer == "several":
            count = len(self.structures)
            found.append(warnings.RUNS_DIFFER(structures=count, groups=self.groups, runs=len(self.runs)))
        if self.answer == "none":
            found.append(warnings.RUNS_DISAGREE(runs=len(self.runs)))
        if (better := self._better_elsewhere) is not None:
            found.append(warnings.RUNS_BETTER_ELSEWHERE(better=str(better.folder)))
        if self.scored_particles == 0:
            found.append(warnings.RUNS_NOT_SCORED())
        return found

    @property
    def _better_elsewhere(self) -> ComparedRun | None:
        """A run that gives another structure than the best does, with a surely higher score."""
        best = self.best
        if best is None or best.score is None or best.score.deficit <= SURE * best.score.deficit_error:
            return None
        return next(run for run in self.runs if run.score is not None and run.score.deficit == 0)

    @property
    def values(self) -> dict[str, Any]:
        """The comparison for a program to read."""
        return {
            "answer": self.answer,
            "best": None if self.best is None else self.best.folder,
            "structures": [[run.folder for run in structure] for structure in self.structures],
            "cutoff_A": self.cutoff_A,
            "correlation": self.correlation,
            "scored_particles": self.scored_particles,
            "runs": [asdict(run) for run in self.runs],
            "findings": [vars(finding) for finding in self.findings],
        }

    def table(self) -> list[str]:
        """Lines for people: the answer, and a line for each run."""
        width = max(len(str(run.folder)) for run in self.runs)
        lines = [self.sentence, "", f"{'run':{width}}  structure  half maps (A)  score (nats)  below the best"]
        for run in self.runs:
            line = f"{run.folder!s:{width}}  {run.structure:9d}  {run.resolution:13.2f}"
            if run.score is not None:
                line += f"  {run.score.mean:12.2f}  {run.score.deficit:.2f} +- {run.score.deficit_error:.2f}"
            lines.append(line)
        return lines


def record_path(folder: Path) -> Path:
    """Return the path of the record in the folder of a comparison."""
    return folder / "comparison.json"


def figure_path(folder: Path) -> Path:
    """Return the path of the picture in the folder of a comparison: correlations, and slices of the aligned maps."""
    return folder / "comparison.png"


def write_comparison(folder: Path, comparison: RunComparison) -> None:
    """Write the record into a folder; an older one is replaced."""
    with replacing(record_path(folder)) as temporary:
        temporary.write_text(json.dumps(comparison.values, default=str, indent=1) + "\n")
