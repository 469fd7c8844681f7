"""The processes that train one half map together, data parallel.

All processes of a half hold the same map, critic and random generators, and draw the same small random numbers (which
particles, poses, shifts) for a whole batch. Each then computes with its part of the batch only, and the results of the
parts are summed. So a step, and a checkpoint, is the same whatever the number of processes is.

The gradients are summed by `Ranks.sum_gradients` and not by DistributedDataParallel, which sums them while they are
computed: a process that ran out of memory would compute them again in smaller parts
(`cryogan.critics.micro_batch`) while the others wait for the rest of its first try.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cryogan.errors import InputError

LOTS = 64  # parts, at most, in which a batch is drawn, and shared out to processes


def lot_size(count: int) -> int:
    """Return the number of images of a batch of `count` that are drawn together; the last lot may be smaller."""
    return -(-count // LOTS)


def lots(count: int) -> int:
    """Return the number of lots of a batch of `count` images: the most processes that can share it."""
    return -(-count // lot_size(count))


class Ranks:
    """The processes that train one half map, as one of them sees them.

    Args:
        group: process group of torch.distributed; None: one process, for which nothing here does anything.

    Attributes:
        index: index of this process, from 0.
        count: number of processes.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.index = 0 if group is None else dist.get_rank(group)
        self.count = 1 if group is None else dist.get_world_size(group)

    @property
    def first(self) -> bool:
        """Whether this process writes for all."""
        return self.index == 0

    def part(self, count: int) -> slice:
        """Return which images of a batch of `count` this process computes with: whole lots."""
        size, number = lot_size(count), lots(count)
        start, stop = (size * (number * index // self.count) for index in (self.index, self.index + 1))
        return slice(start, min(stop, count))

    def sum(self, *tensors: Tensor) -> None:
        """Sum tensors over the processes, in place."""
        if self._group is not None:
            for tensor in tensors:
                with peers():
                    dist.all_reduce(tensor, group=self._group)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients of parameters over the processes, in place, all at once."""
        if self._group is not None:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            vector = parameters_to_vector(gradients)
            self.sum(vector)
            vector_to_parameters(vector, gradients)

    def gather(self, values: Tensor, count: int) -> Tensor:
        """Return the values (..., count) of a whole batch, from those of each process's part."""
        if self._group is None:
            return values
        whole = values.new_zeros(*values.shape[:-1], count)
        whole[..., self.part(count)] = values
        self.sum(whole)
        return whole

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set in at least one of the processes."""
        if self._group is None:
            return list(flags)
        both = torch.tensor(flags, dtype=torch.int32)
        self.sum(both)
        return both.bool().tolist()

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the first process's values, in place."""
        if self._group is not None:
            for tensor in tensors:
                with peers():
                    dist.broadcast(tensor, group=self._group, group_src=0)


ALONE = Ranks()


@contextmanager
def peers() -> Iterator[None]:
    """Explain an error of torch.distributed in the block: another process has ended.

    Raises:
        InputError: in its place.
    """
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "Another process of the job has ended; its message, or the launcher's, says why. Go on with --resume."
        ) from error
