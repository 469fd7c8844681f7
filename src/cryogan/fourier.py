"""Images in Fourier space, in the half-plane layout that projector, shift and CTF share.

A *half-plane* is the `torch.fft.rfft2` of an image (B, D, D // 2 + 1), rows ky, columns kx >= 0, with the
phase origin at the image's centre pixel (D // 2, D // 2) rather than at its first pixel.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.grids import frequency_axis, frequency_radius


def frequencies(box: int, pixel_size: float, *, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Frequencies kx (1, D // 2 + 1) and ky (D, 1) of a half-plane, in 1/A for a pixel size in A.

    Made on the device and in the data type that need them, so that no step waits for a copy; `grids.frequency_axis` is
    the same in NumPy.
    """
    kx = torch.fft.rfftfreq(box, pixel_size, device=device, dtype=dtype)
    ky = torch.fft.fftfreq(box, pixel_size, device=device, dtype=dtype)
    return kx[None, :], ky[:, None]


def centre_phase(box: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Signs (D, D // 2 + 1) that move the phase origin from the centre pixel of an even box to its first pixel."""
    kx, ky = frequencies(box, 1.0 / box, device=device, dtype=dtype)
    return 1.0 - 2.0 * ((kx + ky).round() % 2)


def to_images(half_planes: Tensor) -> Tensor:
    """Transform half-planes (B, D, D // 2 + 1) to images (B, D, D)."""
    box = half_planes.shape[-2]
    sign = centre_phase(box, device=half_planes.device, dtype=half_planes.real.dtype)
    images: Tensor = torch.fft.irfft2(half_planes * sign, s=(box, box))
    return images


def to_half_planes(images: Tensor) -> Tensor:
    """Transform images (B, D, D) to half-planes (B, D, D // 2 + 1)."""
    half_planes: Tensor = torch.fft.rfft2(images)
    return half_planes * centre_phase(images.shape[-1], device=images.device, dtype=images.dtype)


def shells(box: int, *, device: torch.device) -> Tensor:
    """Shell round(|k|) of each coefficient of a half-plane, (D, D // 2 + 1) int64, k in cycles per box."""
    kx, ky = frequencies(box, 1.0 / box, device=device, dtype=torch.float64)
    return torch.hypot(kx, ky).round().long()


class Disc:
    """The K independent coefficients of a half-plane below a cut-off frequency, without the constant.

    Args:
        box: D.
        cutoff: cycles per box, at most D / 2; frequencies below it are in the disc.
        device: device of the tensors.

    Attributes:
        box: D.
        frequencies: (2, K) kx and ky, cycles per box.
        shell: (K,) int64, round(|k|).
        last_shell: the largest of them.
    """

    def __init__(self, box: int, cutoff: float, *, device: torch.device) -> None:
        # On the CPU: with a GPU, the program would wait for the number of coefficients.
        kx, ky = np.meshgrid(np.arange(box // 2 + 1.0), frequency_axis(box))
        radius = frequency_radius(box)
        # At kx = 0 a real image's coefficient at -ky is the conjugate of that at ky.
        inside = (radius < cutoff) & (radius > 0.5) & ((kx > 0) | (ky > 0))
        shell = radius[inside].round().astype(np.int64)

        def moved(values: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(values).to(device, non_blocking=True)

        self.box = box
        self.frequencies = moved(np.stack([kx[inside], ky[inside]]).astype(np.float32))
        self.shell, self.last_shell = moved(shell), int(shell.max(initial=0))
        self._count = moved(np.bincount(shell).clip(min=1))
        self._index = moved(np.flatnonzero(inside))

    def __len__(self) -> int:
        """Number K of coefficients."""
        return len(self.shell)

    def take(self, half_planes: Tensor) -> Tensor:
        """Select the disc's coefficients (B, K) of half-planes (B, D, D // 2 + 1)."""
        return half_planes.flatten(1)[:, self._index]

    def mean_by_shell(self, values: Tensor) -> Tensor:
        """Average values (K,) over each shell, (last shell + 1,); 0 for a shell without coefficients."""
        return values.new_zeros(len(self._count)).index_add(0, self.shell, values) / self._count


def radial_power(images: Tensor) -> Tensor:
    """Radial power spectrum of images (B, D, D), averaged over them: mean of |F|^2 / D^2 in each shell, (D // 2 + 1,).

    White noise of s.d. 1 has power 1 in all shells.
    """
    box = images.shape[-1]
    power = torch.fft.rfft2(images).abs().square().mean(0) / box**2
    shell = shells(box, device=images.device).flatten()
    count = torch.bincount(shell)[: box // 2 + 1]
    return torch.bincount(shell, weights=power.flatten().double())[: box // 2 + 1] / count
