"""Exceptions, and findings about the input and the result, with their sentences for users."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """Something about the input or the result that a user should know.

    Attributes:
        code: a stable name for programs, such as `dark-particles`.
        severity: "note": a fact; "warning": a likely problem; "error": the result cannot be used.
        values: the numbers and names in the sentence.
        sentence: for people, with the remedy if there is one.
    """

    code: str
    severity: Severity
    values: Mapping[str, object]
    sentence: str


KINDS: dict[str, "Kind"] = {}


@dataclass(frozen=True)
class Kind:
    """A kind of finding, defined once with its sentence.

    Attributes:
        code: a stable name for programs.
        severity: "note": a fact; "warning": a likely problem; "error": the result cannot be used.
        sentence: what was found, with the values in braces.
        remedy: what to do about it; empty where nothing needs to be done.
    """

    code: str
    severity: Severity
    sentence: str
    remedy: str = ""

    def __post_init__(self) -> None:
        """Enter the kind into the registry `KINDS`."""
        if self.code in KINDS:
            raise ValueError(f"two kinds of finding have the code {self.code}")
        KINDS[self.code] = self

    @property
    def template(self) -> str:
        """Sentence and remedy, with the values in braces."""
        return f"{self.sentence} {self.remedy}".strip()

    def __call__(self, **values: object) -> Finding:
        """Return the finding with these values; those that are not in the sentence are for programs only."""
        return Finding(self.code, self.severity, values, self.template.format(**values))


class InputError(Exception):
    """Input that cannot be used: one sentence that names the file, the row and the remedy.

    The command line prints the sentence and exits with code 2.
    """


class RankFailed(InputError):
    """An `InputError` in one process of a distributed job, which reports it; the other processes stay silent."""


class Interrupted(Exception):
    """The run was stopped; its checkpoints are written."""
