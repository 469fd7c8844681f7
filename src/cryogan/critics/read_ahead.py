"""Images that are read while others are processed."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Images(Protocol):
    """Source of the real particles: files (`cryogan.particles.ParticleImages`), or memory."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """Return the images (B, D, D), float32, of rows (B,)."""
        ...


class HeldImages:
    """Images (N, D, D), float32, that are held in memory."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """Return the images (B, D, D) of rows (B,)."""
        images: np.ndarray = self._images[rows]
        return images


class ReadAhead:
    """Batches of images on a device; a thread reads the following batch while the caller works.

    The following batch is recognised by its rows and read again if other rows are asked for: only time depends on it.
    On its way to a GPU it lies in pinned memory, from where it is copied while the GPU computes.

    Args:
        images: Source of the images.
        device: Where the batches are wanted.
    """

    def __init__(self, images: Images, device: torch.device) -> None:
        self._images, self._device = images, device
        self._thread = ThreadPoolExecutor(1, "read-ahead")
        self._following: tuple[Tensor, Future[Tensor]] | None = None

    def __call__(self, rows: Tensor, following: Tensor) -> Tensor:
        """Return the images (B, D, D) of `rows` (B,), and begin to read those of `following`, if any."""
        ahead = self._following
        images = ahead[1].result() if ahead is not None and torch.equal(ahead[0], rows) else self._read(rows)
        self._following = (following, self._thread.submit(self._read, following)) if len(following) else None
        return images.to(self._device, non_blocking=True)

    def _read(self, rows: Tensor) -> Tensor:
        images = torch.from_numpy(self._images.batch(rows.numpy()))
        return images.pin_memory() if self._device.type == "cuda" else images
