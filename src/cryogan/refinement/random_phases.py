"""Maps with random phases: the null distribution of what particles and a map have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cryogan.refinement.half_set import HalfSet


def shell_products(spectrum: Tensor, back_projection: Tensor, shell: Tensor) -> Tensor:
    """Return Re <x, b> over each shell, (D // 2 + 1,), of half spectra (D, D, D // 2 + 1) of volumes."""
    box = len(spectrum)
    products = (spectrum.conj() * back_projection).real.double() / box**3
    products[..., 1 : box // 2] *= 2  # the half that is not stored
    return torch.bincount(shell.flatten(), products.flatten())[: box // 2 + 1]


class RandomPhases:
    """Half maps with random phases, with the power of theirs in each shell, their local power and their symmetry.

    Where a map has no detail, its random likenesses have none: they have as little room to agree with the particles by
    chance as the map has. Both half maps get the same phases: an error that they share counts once, not twice.

    Args:
        maps: Half maps (D, D, D), in one frame.
        half: Gives symmetry and shells.
        first: Shell from which on the maps are compared with particles.
    """

    def __init__(self, maps: Sequence[Tensor], half: HalfSet, first: int) -> None:
        self._half, self._shape = half, maps[0].shape
        beyond = half.back.shell >= first
        self._spectra = [torch.fft.rfftn(density) * beyond for density in maps]
        self._power = [self._by_shell(spectrum) for spectrum in self._spectra]
        smooth = torch.exp(-2 * (torch.pi * half.back.radius / (2 * first)).square())  # over half a period of `first`
        self._local = [self._local_amplitude(spectrum, smooth) for spectrum in self._spectra]

    def sample(self, generator: torch.Generator) -> list[Tensor]:
        """Return half spectra (D, D, D // 2 + 1) of the half maps with random phases."""
        white = torch.randn(self._shape, generator=generator, device=generator.device)
        symmetric = self._half.volume.symmetrise(white)
        return [self._sampled(i, symmetric) for i in range(len(self._spectra))]

    def _sampled(self, i: int, white: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfftn(white * self._local[i])
        scale = (self._power[i] / self._by_shell(spectrum).clamp(min=1e-30)).sqrt()
        return spectrum * scale[self._half.back.shell]

    def _local_amplitude(self, spectrum: Tensor, smooth: Tensor) -> Tensor:
        power = torch.fft.irfftn(spectrum, s=self._shape).square()
        local: Tensor = torch.fft.irfftn(torch.fft.rfftn(power) * smooth, s=self._shape)
        return local.clamp(min=0.0).sqrt()

    def _by_shell(self, spectrum: Tensor) -> Tensor:
        back = self._half.back
        return torch.zeros(back.shells, device=spectrum.device).index_add(
            0, back.shell.flatten(), spectrum.abs().square().flatten()
        )
