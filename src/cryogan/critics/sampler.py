"""The order in which particles are learned from."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cryogan.critics.read_ahead import Images, ReadAhead


class Sampler:
    """Endless passes through the particles, each in random order; the place in them can be saved.

    Args:
        images: Real particles.
        batch_size: Number of images in a batch.
        generator: Source of the random orders, on the CPU.
        device: Where the batches are wanted.
    """

    def __init__(self, images: Images, batch_size: int, generator: torch.Generator, device: torch.device) -> None:
        self._images, self._batch, self._generator, self._device = images, batch_size, generator, device
        self._order = torch.empty(0, dtype=torch.int64)
        self._ahead = ReadAhead(images, device)

    def rows(self) -> Tensor:
        """Return the rows (B,) of the next batch."""
        while len(self._order) < self._batch:
            self._order = torch.cat([self._order, torch.randperm(len(self._images), generator=self._generator)])
        rows, self._order = self._order[: self._batch], self._order[self._batch :]
        return rows

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Return images and rows of the first particles, for pictures; the order of the passes is not touched."""
        return self._aside(torch.arange(min(count, len(self._images))))

    def once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and rows of all particles in their order; the order of the passes is not touched."""
        for rows in torch.split(torch.arange(len(self._images)), self._batch):
            yield self._aside(rows)

    def _aside(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (B, D, D) and rows (B,) on the device, and read nothing ahead."""
        return self._ahead(rows, rows[:0]), rows.to(self._device)

    def load(self, rows: Tensor, part: slice = slice(None), ahead: int = 1) -> tuple[Tensor, Tensor]:
        """Return images (B, D, D) and rows (B,), on the device, of a part of a batch.

        Args:
            rows: Rows of the whole batch.
            part: Part of the batch that is wanted.
            ahead: Number of batches; the same part of the batch that comes this much later is read meanwhile.
        """
        # At the end of a pass what follows is not drawn yet: what is saved is the place after these rows.
        following = self._order[(ahead - 1) * self._batch : ahead * self._batch]
        following = following[part] if len(following) == self._batch else following[:0]
        return self._ahead(rows[part], following), rows[part].to(self._device, non_blocking=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the place in the passes."""
        return {"order": self._order, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a place that `state_dict` returned."""
        self._order = state["order"].cpu()
        self._generator.set_state(state["generator"].cpu())
