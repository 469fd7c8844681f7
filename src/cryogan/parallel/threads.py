"""Loops in threads: for compiled code and NumPy, which let other threads run meanwhile."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from cryogan.parallel.cores import available_cores


def in_threads(task: Callable[[int, int], object], count: int) -> None:
    """Call `task(start, stop)` for equal parts of `range(count)`, in as many threads as PyTorch uses.

    Where it is not loaded, which takes seconds, they are as many as there are cores. A task must not call this for more
    than one part itself.
    """
    torch = sys.modules.get("torch")
    threads = max(1, min(available_cores() if torch is None else torch.get_num_threads(), count))
    if threads == 1:
        task(0, count)
        return
    ends = [count * i // threads for i in range(threads + 1)]
    list(_pool(threads).map(task, ends[:-1], ends[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="parts")
