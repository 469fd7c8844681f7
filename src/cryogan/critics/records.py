"""Records: the numbers that describe a step of the training."""

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor


class Record(Mapping[str, float]):
    """Numbers of a step by name; they stay on the device until one is read, which waits for the step.

    Args:
        step: Number of volume updates so far.
        minutes: Time of the training so far; on a GPU until its work was queued.
        values: Scalars.
    """

    def __init__(self, step: int, minutes: float, **values: Tensor) -> None:
        self._known = {"step": float(step), "minutes": minutes}
        self._names, self._values = tuple(values), torch.stack(list(values.values()))

    @cached_property
    def _numbers(self) -> dict[str, float]:
        return self._known | dict(zip(self._names, self._values.tolist(), strict=True))

    def __getitem__(self, name: str) -> float:
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._known, *self._names))

    def __len__(self) -> int:
        return len(self._known) + len(self._names)
