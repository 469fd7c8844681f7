"""Loops in threads: for compiled code and NumPy, which let other threads run meanwhile."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from cryogan.parallel.cores import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return `function` of each item, in order; each thread of `in_threads` has a run of items."""
    found: dict[int, list[Result]] = {}

    def task(start: int, stop: int) -> None:
        found[start] = [function(item) for item in items[start:stop]]

    in_threads(task, len(items))
    return [result for start in sorted(found) for result in found[start]]


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
