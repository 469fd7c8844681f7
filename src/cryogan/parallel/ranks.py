"""The processes that train together: within a half map (`Ranks`), and both halves (`Job`).

All processes of a half hold the same map, critic, and random generators, and draw the same small random numbers (which
particles, poses, shifts) for a whole batch. Each then computes with its own part of the batch only, and what the parts
give is summed. So a step, and a checkpoint, is the same whatever the number of processes is.

The gradients are summed by `Ranks.sum_gradients` and not by DistributedDataParallel, which sums them while they are
computed: a process that ran out of memory would compute them again in smaller parts
(`cryogan.critics.micro_batch`) while the others wait for the rest of its first try.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cryogan.errors import InputError, Interrupted, RankFailed
from cryogan.parallel.launch import Launch

_NO_LIMIT = timedelta(days=365)  # one half may be finished hours before the other
LOTS = 64  # parts, at most, in which a batch is drawn, and shared out to processes


def lot_size(count: int) -> int:
    """Images of a batch of `count` that are drawn together; the last lot may be smaller."""
    return -(-count // LOTS)


def lots(count: int) -> int:
    """How many lots a batch has: the most processes that can share it."""
    return -(-count // lot_size(count))


class Ranks:
    """The processes that train one half map; without a group it is one, and nothing here does anything.

    Args:
        group: of torch.distributed.
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
        """This process's images of a batch of `count`: whole lots."""
        size, number = lot_size(count), lots(count)
        start, stop = (size * (number * index // self.count) for index in (self.index, self.index + 1))
        return slice(start, min(stop, count))

    def sum(self, *tensors: Tensor) -> None:
        """Over the processes, in place."""
        if self._group is not None:
            for tensor in tensors:
                with _peers():
                    dist.all_reduce(tensor, group=self._group)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Over the processes, in place, all gradients at once."""
        if self._group is not None:
            gradients = [each.grad for each in parameters if each.grad is not None]
            vector = parameters_to_vector(gradients)
            self.sum(vector)
            vector_to_parameters(vector, gradients)

    def gather(self, values: Tensor, count: int) -> Tensor:
        """Values (..., count) of a whole batch, from those of each process's part."""
        if self._group is None:
            return values
        whole = values.new_zeros(*values.shape[:-1], count)
        whole[..., self.part(count)] = values
        self.sum(whole)
        return whole

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in one of the processes."""
        if self._group is None:
            return list(flags)
        both = torch.tensor(flags, dtype=torch.int32)
        self.sum(both)
        return both.bool().tolist()

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Take the first process's values, in place."""
        if self._group is not None:
            for tensor in tensors:
                with _peers():
                    dist.broadcast(tensor, group=self._group, group_src=0)


ALONE = Ranks()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "Another process of the job has ended; its message, or the launcher's, says why. Go on with --resume."
        ) from error


class Job:
    """All processes of a distributed run: one group for each half map, and a store for what they tell each other.

    Raises:
        InputError: an odd number of processes, or rank 0 is not reached.
    """

    def __init__(self, launch: Launch) -> None:
        launch.require_two_halves()
        self.rank, self.size, self.local_rank, self.half = launch.rank, launch.size, launch.local_rank, launch.half
        place = {"MASTER_ADDR": launch.address, "MASTER_PORT": launch.port}
        os.environ.update({k: str(v) for k, v in ({"RANK": self.rank, "WORLD_SIZE": self.size} | place).items()})
        try:
            self._store, _, _ = next(rendezvous("env://"))
            dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=_NO_LIMIT)
        except RuntimeError as error:
            raise InputError(
                f"The processes do not meet at {launch.address}:{launch.port} ({str(error).splitlines()[0]}); "
                "set MASTER_ADDR and MASTER_PORT to a host and a free port."
            ) from error
        self._taken = 0

    def ranks(self, device: torch.device) -> Ranks:
        """The processes of this one's half; all processes have to ask."""
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        middle = self.size // 2
        with _peers():
            groups = [dist.new_group(list(each), backend=backend) for each in (range(middle), range(middle, self.size))]
        return Ranks(groups[self.half - 1])

    def send(self, values: dict[str, Any]) -> None:
        """To rank 0."""
        with _peers():
            self._store.set(name := f"message{self._store.add('messages', 1)}", json.dumps(values))
            self._store.check([name])  # once that is answered, rank 0 has it

    def received(self) -> Iterator[dict[str, Any]]:
        """By rank 0 since it last asked."""
        while self._has(name := f"message{self._taken + 1}"):
            yield json.loads(self._store.get(name))
            self._store.delete_key(name)
            self._taken += 1

    def set_ready(self) -> None:
        """Rank 0: the run's folder is there."""
        self._store.set("ready", "")

    @property
    def ready(self) -> bool:
        return self._has("ready")

    def stop(self) -> None:
        """Ask both halves to write their checkpoints and to end."""
        with _peers():
            self._store.set("stop", "")

    @property
    def stopped(self) -> bool:
        return self._has("stop")

    def wait_for_all(self, meanwhile: Callable[[], None]) -> None:
        """Until all processes wait here; each calls `meanwhile` now and then.

        A launcher may kill the others as soon as one leaves with a code other than 0; what all write before they come
        here is safe from that.

        Raises:
            InputError: a process has ended, or was killed, and will not come.
        """
        with _peers():
            all_here = dist.barrier(async_op=True)
        assert all_here is not None
        while not all_here.is_completed():
            meanwhile()
            time.sleep(0.1)
        with _peers():
            all_here.wait()

    @property
    def failure(self) -> str:
        """What the process that failed first has said; empty: none has."""
        return self._store.get("failure").decode() if self._has("failure") else ""

    def fail(self, sentence: str) -> bool:
        """End the job; returns whether no other process had failed before, which has then said why."""
        with _peers():
            first = bool(self._store.add("failures", 1) == 1)
            if first:
                self._store.set("failure", sentence)
            self.stop()
        return first

    def _has(self, name: str) -> bool:
        with _peers():
            return bool(self._store.check([name]))


@contextmanager
def joined() -> Iterator[Job | None]:
    """Be one of the processes that a launcher started; None: there is no launcher.

    Of several processes that fail, the first says why: there, what it failed of is raised, as `RankFailed` if it is
    not rank 0; in the others SystemExit. That the job was stopped rank 0 says, alone, and its exit code; the others'
    is 0, as that of processes which have done what they were asked to.
    """
    launch = Launch.detect()
    if launch is None:
        yield None
        return
    job = Job(launch)
    try:
        yield job
    except (Interrupted, KeyboardInterrupt):
        with suppress(InputError):
            job.stop()
        if job.rank > 0:
            raise SystemExit(0) from None
        raise
    except Exception as error:
        first = False
        with suppress(InputError):  # whoever holds the store has ended
            first = job.fail(str(error))
        if not first:
            raise SystemExit(2) from None
        if job.rank > 0 and isinstance(error, InputError | OSError):
            raise RankFailed(f"Rank {job.rank} (half {job.half}): {error}") from error
        raise
    dist.destroy_process_group()
