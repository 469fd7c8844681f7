"""The noise n of equation (1): background patches, white or coloured Gaussian noise, or counted electrons."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.fourier import radial_power, shells
from cryogan.grids import centred_radius

DARKEST = 1e-3  # least expected number of electrons in a pixel


Lot = tuple[slice, int]
_Drawn = TypeVar("_Drawn")


def _each(lots: Sequence[Lot], rows: Tensor, draw: Callable[[slice, torch.Generator], _Drawn]) -> list[_Drawn]:
    """Draw for the images of each lot, from its seed."""
    generator = torch.Generator(rows.device)
    return [draw(images, generator.manual_seed(seed)) for images, seed in lots]


class Noise(ABC):
    """A noise model. A new one implements `sample`, and `add` too if its noise depends on the signal."""

    def add(self, clean: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise to clean images.

        Args:
            clean: (B, D, D), in units of the background's s.d.
            rows: (B,) int64, their particles.
            generator: source of the noise.

        Returns:
            (B, D, D), differentiable with respect to `clean`.
        """
        return clean + self.sample(rows, generator)

    def add_in_lots(self, clean: Tensor, rows: Tensor, lots: Sequence[Lot]) -> Tensor:
        """Add noise to clean images, drawn lot by lot; arguments and result as of `add`.

        Args:
            clean: (B, D, D).
            rows: (B,) int64.
            lots: images of each lot, and the seed of its noise; together all images in their order.
        """
        noisy = _each(lots, rows, lambda images, generator: self.add(clean[images], rows[images], generator))
        return torch.cat(noisy)

    @abstractmethod
    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draw background images (B, D, D) of mean about 0 and s.d. about 1.

        Args:
            rows: (B,) int64, the particles whose background is drawn.
            generator: source of the noise, on the device of `rows`.
        """


class PatchNoise(Noise):
    """Background patches cut from the particle's own micrograph.

    Args:
        patches: (M, D, D), each normalised to mean 0 and s.d. 1.
        patch_micrographs: (M,) names.
        particle_micrographs: (N,) names; particles whose micrograph has no patch must not be sampled.
        turn: whether patches are rotated by multiples of 90 degrees and mirrored at random: a critic can learn a few
            thousand patches by heart otherwise.
    """

    def __init__(
        self,
        patches: Tensor,
        patch_micrographs: NDArray[np.str_],
        particle_micrographs: NDArray[np.str_],
        *,
        turn: bool = True,
    ) -> None:
        device = patches.device
        names, micrograph = np.unique(patch_micrographs, return_inverse=True)
        count = np.bincount(micrograph, minlength=len(names))
        position = np.minimum(np.searchsorted(names, particle_micrographs), len(names) - 1)
        self._patches = patches[torch.from_numpy(np.argsort(micrograph, kind="stable")).to(device)]
        self._first = torch.from_numpy((np.cumsum(count) - count)[position]).to(device)
        self._count = torch.from_numpy(count[position]).to(device)
        self._turn = turn

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a random patch of each particle's micrograph."""
        return self._chosen(rows, *self._draw(len(rows), generator))

    def add_in_lots(self, clean: Tensor, rows: Tensor, lots: Sequence[Lot]) -> Tensor:
        """Draw lot by lot which patches are added, and take and turn them all at once: a GPU is given less to start."""
        drawn = _each(lots, rows, lambda images, generator: self._draw(images.stop - images.start, generator))
        uniform, turns = map(torch.cat, zip(*drawn, strict=True))
        return clean + self._chosen(rows, uniform, turns)

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw which patch of its micrograph each image has, (count,) from 0 to 1, and its turn."""
        uniform = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
        return uniform, random_turns(count, generator) if self._turn else torch.zeros_like(uniform)

    def _chosen(self, rows: Tensor, uniform: Tensor, turns: Tensor) -> Tensor:
        patches = self._patches[self._first[rows] + (uniform * self._count[rows]).long()]
        return turn_and_mirror(patches, turns) if self._turn else patches


class WhiteNoise(Noise):
    """Independent Gaussian pixels of s.d. 1, in images of `box` pixels a side."""

    def __init__(self, box: int) -> None:
        self._box = box

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draw white noise."""
        return torch.randn(len(rows), self._box, self._box, generator=generator, device=generator.device)


class ColouredNoise(Noise):
    """Gaussian noise with a radial power spectrum.

    Args:
        power: (D // 2 + 1,) mean power in each shell, as `radial_power` gives it; the corners have the last shell's.
        box: D.
    """

    def __init__(self, power: Tensor, box: int) -> None:
        shell = shells(box, device=power.device).clamp(max=box // 2)
        self._amplitude = power.clamp(min=0).sqrt().float()[shell]
        self._box = box

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draw white noise and filter it."""
        return self._filter(self._white(len(rows), generator))

    def add_in_lots(self, clean: Tensor, rows: Tensor, lots: Sequence[Lot]) -> Tensor:
        """Draw white noise lot by lot, and filter all of it at once."""
        white = _each(lots, rows, lambda images, generator: self._white(images.stop - images.start, generator))
        return clean + self._filter(torch.cat(white))

    def _white(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self._box, self._box, generator=generator, device=generator.device)

    def _filter(self, white: Tensor) -> Tensor:
        noise: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * self._amplitude, s=(self._box, self._box))
        return noise


class PoissonNoise(Noise):
    """Poisson noise of counted electrons: N expected in a background pixel, N + sqrt(N) s where the clean image is s.

    The image is (count - N) / sqrt(N): its mean is s, its variance 1 + s / sqrt(N). For a large dose it becomes s plus
    white noise.

    The gradient is that of s + e sqrt(1 + s / sqrt(N)) with the count's standardised deviation e held fixed, as for a
    reparametrised Gaussian of the same mean and variance. It is unbiased for the expectation of any quadratic function
    of the image, and otherwise off by the third cumulant, of order 1 / N.

    Args:
        electrons: N, dose times pixel area, electrons.
        box: D.
    """

    def __init__(self, electrons: float, box: int) -> None:
        self._electrons, self._box = electrons, box

    def add(self, clean: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Count electrons in clean images (B, D, D); differentiable."""
        n = self._electrons
        rate = (n + n**0.5 * clean).clamp(min=DARKEST)
        deviation = (torch.poisson(rate.detach(), generator=generator) - rate.detach()) / rate.detach().sqrt()
        images: Tensor = (rate - n + deviation * rate.sqrt()) / n**0.5
        return images

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Count electrons in empty images."""
        return self.add(torch.zeros(len(rows), self._box, self._box, device=generator.device), rows, generator)


def background_power(images: Tensor, background: Tensor) -> Tensor:
    """Radial power spectrum of the noise, (D // 2 + 1,), from the background pixels of images.

    It is the spectrum of the masked images over the mask's fraction; the mask blurs it by a shell or so.

    Args:
        images: (B, D, D).
        background: (D, D) bool, the pixels to use.
    """
    weight = background.to(images.dtype)
    return radial_power(images * weight) / weight.mean()


def random_turns(count: int, generator: torch.Generator) -> Tensor:
    """Draw symmetries of the square for `turn_and_mirror`, (count,) int64 from 0 to 7, all 8 equally likely."""
    return torch.randint(8, (count,), generator=generator, device=generator.device)


def turn_and_mirror(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate by multiples of 90 degrees and mirror images (B, ..., D, D) as `turns` (B,), 0 to 7, says for each."""

    def where(bit: int, changed: Tensor, images: Tensor) -> Tensor:
        return torch.where(((turns >> bit) & 1).bool().view(-1, *[1] * (images.ndim - 1)), changed, images)

    images = where(0, images.flip(-1), images)
    images = where(1, images.flip(-2), images)
    return where(2, images.transpose(-1, -2), images)


def background_mask(box: int, radius_px: float, device: torch.device) -> Tensor:
    """Mask (D, D), bool, of the pixels farther than `radius_px` from the centre pixel D // 2."""
    return torch.from_numpy(centred_radius(box) > radius_px).to(device)


def normalise(images: Tensor, region: Tensor) -> Tensor:
    """Shift and scale images (B, D, D) to mean 0 and s.d. 1 over the pixels of `region` (D, D), bool."""
    weight = region.to(images.dtype) / region.sum()
    mean = (images * weight).sum((-2, -1), keepdim=True)
    variance = ((images - mean).square() * weight).sum((-2, -1), keepdim=True)
    return (images - mean) / variance.sqrt()
