"""Messages from the process of a half to the process that runs both."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cryogan.errors import Finding
from cryogan.run.folder import Outcome


@dataclass(frozen=True)
class Message:
    """A message from the process of a half: a record, a finding, or how the half ended.

    Attributes:
        half: 1 or 2.
        record: the numbers of a step.
        finding: what a user should know.
        outcome: how the half ended; None: it goes on.
        text: why the half failed.
    """

    half: int
    record: dict[str, float] | None = None
    finding: Finding | None = None
    outcome: Outcome | None = None
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the message in JSON's types."""
        return asdict(self) | {"outcome": None if self.outcome is None else self.outcome.value}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Message":
        """Return the message that `to_json` gave."""
        finding, outcome = values["finding"], values["outcome"]
        given = {
            "finding": None if finding is None else Finding(**finding),
            "outcome": None if outcome is None else Outcome.read(outcome),
        }
        return cls(**(values | given))


Tell = Callable[[Message], None]
