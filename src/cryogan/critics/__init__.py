"""Critics: each compares real with simulated images, and its gradient improves the volume."""

from importlib import import_module

from cryogan.critics.critic import Critic, Memory, Stage, Task, Trainer, TrainerInputs
from cryogan.errors import InputError

CRITICS = {
    "matching": "cryogan.critics.matching.method:Matching",
    "wasserstein": "cryogan.critics.wasserstein.method:Wasserstein",
}
RENAMED = {"views": "matching", "convolutional": "wasserstein"}
__all__ = ["CRITICS", "Critic", "Memory", "Stage", "Task", "Trainer", "TrainerInputs", "load_critic"]


def load_critic(name: str) -> Critic:
    """Load the critic that `--critic` names.

    Args:
        name: Key of `CRITICS`, or `module:Class` of a critic of your own.

    Raises:
        InputError: If there is none of that name, or it is not a `Critic`.
    """
    place = CRITICS.get(RENAMED.get(name, name), name)
    module, _, attribute = place.partition(":")
    if not attribute:
        raise InputError(f"Unknown critic {name!r}. Give {', '.join(CRITICS)}, or your own as module:Class.")
    try:
        critic = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(f"Cannot load the critic {name} ({error}). Is its module on PYTHONPATH?") from error
    if not isinstance(critic, Critic):
        raise InputError(f"{name} is not a critic. Derive it from cryogan.critics.Critic.")
    return critic
