"""As many images at once as the memory holds."""

from collections.abc import Callable
from typing import TypeVar

import torch

from cryogan.errors import InputError

T = TypeVar("T")
OUT_OF_MEMORY = "Out of memory: give a smaller --box, fewer --orientations, or a machine with more; then run again."


class MicroBatch:
    """How many images are worked on at once: half as many after each out-of-memory error.

    Args:
        size: at first.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, task: Callable[[int], T]) -> T:
        """`task(size)`, begun again with a smaller size when memory runs out.

        The task does the same whatever the size: it draws nothing, and adds to nothing that it did not begin.

        Raises:
            InputError: one image is too much.
        """
        while True:
            try:
                return task(self.size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of `except`, where the traceback no longer holds the tensors.
            if self.size == 1:
                raise InputError(OUT_OF_MEMORY)
            self.size = (self.size + 1) // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, a device's or the machine's; PyTorch has no class of its own for the latter."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
