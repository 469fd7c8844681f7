"""The place of a process in a distributed job, and when it has to stop, as launchers (torchrun, srun) set them."""

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from cryogan.errors import InputError

STOPPING = (signal.SIGTERM, signal.SIGUSR1)  # as Ctrl-C does; srun passes on only the latter, and kills at the former
_FIRST_PORT, _PORTS = 15000, 15000  # below those that systems hand out


@dataclass(frozen=True)
class Launch:
    """The place of a process in a distributed job.

    Attributes:
        rank: among all processes, from 0.
        size: number of processes.
        local_rank: among the processes of this machine.
        address: host where rank 0 is met.
        port: port of that host.
    """

    rank: int
    size: int
    local_rank: int
    address: str
    port: int

    @classmethod
    def detect(cls, environment: Mapping[str, str] = os.environ) -> "Launch | None":
        """Return the place that torchrun, or a step of srun with several tasks, gives this process; None otherwise."""
        e = environment
        if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= e.keys():
            local = int(e.get("LOCAL_RANK", "0"))
            return cls(int(e["RANK"]), int(e["WORLD_SIZE"]), local, e["MASTER_ADDR"], int(e["MASTER_PORT"]))
        # A batch script has SLURM_NTASKS, too; only what srun starts is in a step.
        size = int(e.get("SLURM_STEP_NUM_TASKS", "1"))
        if size == 1:
            return None
        # Each job has a port of its own, which all its processes know without being told.
        port = _FIRST_PORT + (31 * int(e["SLURM_JOB_ID"]) + int(e["SLURM_STEP_ID"])) % _PORTS
        address = e.get("MASTER_ADDR") or first_host(e["SLURM_STEP_NODELIST"])
        rank, local = int(e["SLURM_PROCID"]), int(e["SLURM_LOCALID"])
        return cls(rank, size, local, address, int(e.get("MASTER_PORT", port)))

    @property
    def half(self) -> int:
        """The half map that this process trains: 1 for the lower half of the ranks, 2 for the upper."""
        return 1 + (2 * self.rank >= self.size)

    def require_two_halves(self) -> None:
        """Refuse an odd number of processes.

        Raises:
            InputError: the processes cannot be shared out to two half maps.
        """
        if self.size % 2:
            processes = "1 process" if self.size == 1 else f"{self.size} processes"
            raise InputError(
                f"{processes} cannot be shared out to two half maps: start an even number of them, or "
                "cryogan reconstruct without a launcher."
            )


def first_host(nodes: str) -> str:
    """Return the first host of a list as Slurm writes it: node003 of "node[003-005,9],gpu1"."""
    within_brackets = r"(?:[^,\[]|\[[^\]]*\])+"
    found = re.match(within_brackets, nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", found[0] if found else nodes)
