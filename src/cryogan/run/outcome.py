"""How the training of a half, or a run, ended."""

from enum import Enum


class Outcome(Enum):
    """How the training of a half, or a run, ended; the value is what `outcome.json` holds."""

    sentence: str

    def __new__(cls, value: str, sentence: str) -> "Outcome":
        """Make a member from its recorded value and its sentence."""
        member = object.__new__(cls)
        member._value_ = value
        member.sentence = sentence
        return member

    RUNNING = "running", "It runs, or was cut off."
    FINISHED = "finished", "All its volume updates are done."
    OUT_OF_TIME = "out of time", "The time of --max-minutes is over; it ends with the map that it has."
    STOPPED = "stopped", "It was stopped and has written its checkpoint."
    FAILED = "failed", "It failed."

    @classmethod
    def read(cls, value: str | None) -> "Outcome":
        """Return the outcome of a recorded value; what is not known, or not recorded yet, is running."""
        return next((outcome for outcome in cls if outcome.value == value), cls.RUNNING)

    @property
    def has_map(self) -> bool:
        """Whether there is a map to compare with the other half's, or of a run: whether they are compared."""
        return self in (Outcome.FINISHED, Outcome.OUT_OF_TIME)
