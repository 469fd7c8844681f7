"""What a user is told: the exceptions, and findings about the input and the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """Something about the input or the result that a user should know.

    Attributes:
        code: a stable name for programs, such as `dark-particles`.
        severity: "note": a fact; "warning": a reason to look again; "error": the result cannot be used.
        values: the numbers and names in the sentence.
        sentence: for people, with the remedy if there is one.
    """

    code: str
    severity: Literal["note", "warning", "error"]
    values: Mapping[str, object]
    sentence: str


class InputError(Exception):
    """Input that cannot be used: one sentence that names the file, the row and the remedy.

    The command line prints the sentence and exits with code 2.
    """


class RankFailed(InputError):
    """The same in one process of a distributed job, which says it itself; the others keep silent."""


class Interrupted(Exception):
    """The run was stopped; its checkpoints are written."""
