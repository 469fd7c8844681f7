"""CPU cores and memory at hand."""

import os
from pathlib import Path

_MEMORY = Path("/proc/meminfo")


def available_cores() -> int:
    """Count the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory_gib() -> float | None:
    """Return the memory that programs can have without swapping, GiB; None: this system does not say."""
    if not _MEMORY.exists():  # not on macOS
        return None
    lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) / 2**20
