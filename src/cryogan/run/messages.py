"""What the process of a half tells the process that runs both."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cryogan.errors import Finding
from cryogan.run.folder import Outcome


@dataclass(frozen=True)
class Message:
    """A message from the process of a half.

    Attributes:
        half: 1 or 2.
        kind: "record": a line of the progress; "finding": something that a user should know; otherwise the value of the
            `Outcome` with which the half ended.
        record: the numbers of a step.
        finding: what a user should know.
        text: why the half failed.
    """

    half: int
    kind: str
    record: dict[str, float] | None = None
    finding: Finding | None = None
    text: str = ""

    @property
    def outcome(self) -> Outcome | None:
        """How the half ended; None: it goes on."""
        return None if self.kind in ("record", "finding") else Outcome.read(self.kind)

    def to_json(self) -> dict[str, Any]:
        """Return the message in JSON's types."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Message":
        """Return the message that `to_json` gave."""
        finding = values["finding"]
        return cls(**(values | {"finding": None if finding is None else Finding(**finding)}))


Tell = Callable[[Message], None]
