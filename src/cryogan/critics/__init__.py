"""Critics: each compares real with simulated images, and its gradient improves the volume."""

from cryogan.config import CRITICS
from cryogan.critics.critic import ClassMaps, Critic, Memory, Stage, Task, Trainer, TrainerInputs
from cryogan.errors import InputError
from cryogan.loading import load_named
from cryogan.parallel.work import USUAL, Speed, Work

__all__ = [
    "CRITICS",
    "USUAL",
    "ClassMaps",
    "Critic",
    "Memory",
    "Speed",
    "Stage",
    "Task",
    "Trainer",
    "TrainerInputs",
    "Work",
    "load_critic",
]


def load_critic(name: str) -> Critic:
    """Load the critic that `--critic` names.

    Args:
        name: Key of `CRITICS`, or `module:Class` of a critic of your own.

    Raises:
        InputError: If there is none of that name, or it is not a `Critic`.
    """
    found = load_named(name, CRITICS, "critic")
    if not (isinstance(found, type) and issubclass(found, Critic)):
        raise InputError(f"{name} is not a critic. Derive it from cryogan.critics.Critic.")
    return found()
