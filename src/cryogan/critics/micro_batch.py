"""Batches that are processed in smaller parts where memory runs out."""

from collections.abc import Callable
from typing import TypeVar

import torch

from cryogan.errors import InputError

T = TypeVar("T")
OUT_OF_MEMORY = "Out of memory. Give a smaller --box or fewer --orientations, or use more memory, then run again."


class MicroBatch:
    """Number of images that are processed at once, halved after each out-of-memory error.

    Args:
        size: Number at first.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, task: Callable[[int], T]) -> T:
        """Call `task(size)`, again with a smaller size when memory runs out.

        The task has to give the same result whatever the size is: it samples nothing, and adds to nothing that it did
        not create.

        Raises:
            InputError: If there is not enough memory for one image.
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
    """Return whether a device or the machine ran out of memory; PyTorch has no class of its own for the latter."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
