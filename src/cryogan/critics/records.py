"""What a training says of a step."""

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor


class Record(Mapping[str, float]):
    """Numbers of a step by name. They stay on the device until one is looked at: only then is the step waited for.

    Args:
        step: volume updates so far.
        minutes: of the training so far; on a GPU until its work was queued.
        values: each without dimensions.
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
