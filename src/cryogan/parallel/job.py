"""All processes of a distributed run: which half each of them trains, and their messages."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from cryogan.errors import InputError, Interrupted, RankFailed
from cryogan.parallel.launch import Launch
from cryogan.parallel.ranks import Ranks, peers

_NO_LIMIT = timedelta(days=365)  # one half may be finished hours before the other
_WAITING_SECONDS = 0.1  # between looks at whether all processes are there


class Job:
    """The processes of a distributed run: a group for each half map, and a store for their messages.

    Args:
        launch: which of the processes this is.

    Attributes:
        rank: rank of this process among all, from 0.
        size: number of processes.
        local_rank: rank of this process among those of its machine.
        half: 1 or 2, that this process trains.

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
                f"The processes do not meet at {launch.address}:{launch.port} ({str(error).splitlines()[0]}). "
                "Set MASTER_ADDR and MASTER_PORT to a host and a free port."
            ) from error
        self._taken = 0

    def ranks(self, device: torch.device) -> Ranks:
        """Return the processes of this one's half; all processes have to call this.

        Args:
            device: device on which they train.
        """
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        middle = self.size // 2
        with peers():
            halves = (range(middle), range(middle, self.size))
            groups = [dist.new_group(list(members), backend=backend) for members in halves]
        return Ranks(groups[self.half - 1])

    def send(self, values: dict[str, Any]) -> None:
        """Send a message to rank 0."""
        with peers():
            self._store.set(name := f"message{self._store.add('messages', 1)}", json.dumps(values))
            self._store.check([name])  # once that is answered, rank 0 has it

    def received(self) -> Iterator[dict[str, Any]]:
        """Yield the messages that have come to rank 0 since it last asked."""
        while self._has(name := f"message{self._taken + 1}"):
            yield json.loads(self._store.get(name))
            self._store.delete_key(name)
            self._taken += 1

    def set_ready(self) -> None:
        """Tell the others, in rank 0, that the run's folder is there."""
        self._store.set("ready", "")

    @property
    def ready(self) -> bool:
        """Whether the run's folder is there."""
        return self._has("ready")

    def stop(self) -> None:
        """Ask both halves to write their checkpoints and to end."""
        with peers():
            self._store.set("stop", "")

    @property
    def stopped(self) -> bool:
        """Whether both halves are asked to end."""
        return self._has("stop")

    def wait_for_all(self, meanwhile: Callable[[], None]) -> None:
        """Wait until all processes wait here, and call `meanwhile` now and then.

        A launcher may kill the others as soon as one leaves with a code other than 0; what all write before they come
        here is safe from that.

        Raises:
            InputError: a process has ended, or was killed, and will not come.
        """
        with peers():
            all_here = dist.barrier(async_op=True)
        assert all_here is not None
        while not all_here.is_completed():
            meanwhile()
            time.sleep(_WAITING_SECONDS)
        with peers():
            all_here.wait()

    @property
    def failure(self) -> str:
        """Why the process that failed first did; empty: none has."""
        return self._store.get("failure").decode() if self._has("failure") else ""

    def fail(self, sentence: str) -> bool:
        """End the job, and return whether this process is the first that failed and so has to say why."""
        with peers():
            first = bool(self._store.add("failures", 1) == 1)
            if first:
                self._store.set("failure", sentence)
            self.stop()
        return first

    def _has(self, name: str) -> bool:
        with peers():
            return bool(self._store.check([name]))


@contextmanager
def joined() -> Iterator[Job | None]:
    """Join the processes that a launcher has started, for the length of the block.

    Of several processes that fail, the first says why: its exception is raised there, as `RankFailed` if it is not
    rank 0; the others raise SystemExit. That the run was stopped is reported by rank 0 alone, with its message and exit
    code; the other processes have done what they were asked to and exit with 0.

    Yields:
        The processes; None without a launcher.
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
