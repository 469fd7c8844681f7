"""The noise n: background patches, Gaussian noise, white or with a measured spectrum, or the counting of electrons."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from cryogan.fourier import radial_power, shells
from cryogan.grids import centred_radius

DARKEST = 1e-3  # electrons in a pixel; fewer are not expected anywhere


class Noise(ABC):
    """Draws noise for given particles."""

    def add(self, clean: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Clean images (B, D, D), in units of the background's s.d., of the particles `rows` (B,), with noise."""
        return clean + self.sample(rows, generator)

    @abstractmethod
    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Background (B, D, D) of the particles `rows` (B,), mean about 0, s.d. about 1."""


class PatchNoise(Noise):
    """Background patches of the same micrograph as the CTF.

    Args:
        patches: (M, D, D), each normalised to mean 0 and s.d. 1.
        patch_micrographs: (M,) names.
        particle_micrographs: (N,) names; of particles without a patch, no noise may be asked for.
        turn: turn patches by multiples of 90 degrees and mirror them at random: a few thousand of them can be
            learned by heart otherwise.
    """

    def __init__(
        self, patches: Tensor, patch_micrographs: np.ndarray, particle_micrographs: np.ndarray, *, turn: bool = True
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
        uniform = torch.rand(len(rows), generator=generator, device=rows.device, dtype=torch.float64)
        patches = self._patches[self._first[rows] + (uniform * self._count[rows]).long()]
        return turn_and_mirror(patches, random_turns(len(rows), generator)) if self._turn else patches


class WhiteNoise(Noise):
    """Independent Gaussian pixels of s.d. 1."""

    def __init__(self, box: int) -> None:
        self._box = box

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(len(rows), self._box, self._box, generator=generator, device=rows.device)


class ColouredNoise(Noise):
    """Gaussian noise with a radial power spectrum.

    Args:
        power: (D // 2 + 1,) mean power in each shell, as `radial_power` gives it; corners take the last.
        box: D.
    """

    def __init__(self, power: Tensor, box: int) -> None:
        shell = shells(box, device=power.device).clamp(max=box // 2)
        self._amplitude = power.clamp(min=0).sqrt().float()[shell]
        self._box = box

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        white = torch.randn(len(rows), self._box, self._box, generator=generator, device=rows.device)
        noise: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * self._amplitude, s=(self._box, self._box))
        return noise


class PoissonNoise(Noise):
    """Electrons are counted: N in a pixel of background, N + sqrt(N) s where the clean image is s.

    The image is the count less N, over sqrt(N): its mean is s, its variance 1 + s / sqrt(N), and for a large
    dose it is s and white noise.

    The gradient is that of s + e sqrt(1 + s / sqrt(N)) with e, the count's standardised deviation, held: the
    reparametrised Gaussian of the same mean and variance, at the deviation that was drawn. It is unbiased for the
    expectation of any quadratic function of the image, and beyond that off by the third cumulant, of order 1 / N.

    Args:
        electrons: N, dose times pixel area.
        box: D.
    """

    def __init__(self, electrons: float, box: int) -> None:
        self._electrons, self._box = electrons, box

    def add(self, clean: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        n = self._electrons
        rate = (n + n**0.5 * clean).clamp(min=DARKEST)
        deviation = (torch.poisson(rate.detach(), generator=generator) - rate.detach()) / rate.detach().sqrt()
        images: Tensor = (rate - n + deviation * rate.sqrt()) / n**0.5
        return images

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.add(torch.zeros(len(rows), self._box, self._box, device=rows.device), rows, generator)


def background_power(images: Tensor, background: Tensor) -> Tensor:
    """Radial power spectrum of the noise, (D // 2 + 1,), from the pixels where `background` (D, D) is true.

    The spectrum of the masked images over the masked fraction: the mask blurs the spectrum by a shell or so.
    """
    weight = background.to(images.dtype)
    return radial_power(images * weight) / weight.mean()


def random_turns(count: int, generator: torch.Generator) -> Tensor:
    """For `turn_and_mirror`: (count,) int64, each of the square's 8 symmetries as likely."""
    return torch.randint(8, (count,), generator=generator, device=generator.device)


def turn_and_mirror(images: Tensor, turns: Tensor) -> Tensor:
    """Each image (B, ..., D, D) under one of the square's symmetries: turns (B,), 0 to 7."""

    def where(bit: int, changed: Tensor, images: Tensor) -> Tensor:
        return torch.where(((turns >> bit) & 1).bool().view(-1, *[1] * (images.ndim - 1)), changed, images)

    images = where(0, images.flip(-1), images)
    images = where(1, images.flip(-2), images)
    return where(2, images.transpose(-1, -2), images)


def background_mask(box: int, radius: float, device: torch.device) -> Tensor:
    """(D, D) bool: the pixels farther than `radius` pixels from the centre pixel D // 2."""
    return torch.from_numpy(centred_radius(box) > radius).to(device)


def normalise(images: Tensor, region: Tensor) -> Tensor:
    """Images (B, D, D) with mean 0 and s.d. 1 over the pixels of `region` (D, D) bool."""
    weight = region.to(images.dtype) / region.sum()
    mean = (images * weight).sum((-2, -1), keepdim=True)
    variance = ((images - mean).square() * weight).sum((-2, -1), keepdim=True)
    return (images - mean) / variance.sqrt()
