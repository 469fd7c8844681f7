"""The shift operator S and the distribution of shifts."""

import torch
from torch import Tensor

from cryogan.fourier import frequencies


def triangular_shifts(count: int, max_shift: float | Tensor, generator: torch.Generator) -> Tensor:
    """Draw shifts (count, 2), x and y independent, triangular on [-max_shift, max_shift] with the peak at 0; A."""
    uniform = torch.rand(count, 2, 2, generator=generator, device=generator.device)
    return (uniform[..., 0] - uniform[..., 1]) * max_shift


def shift(half_planes: Tensor, shifts: Tensor, pixel_size: float) -> Tensor:
    """Displace images, given as half-planes, by minus `shifts`: the operator S.

    Args:
        half_planes: complex (B, D, D // 2 + 1).
        shifts: (B, 2), x and y in A, with the sign of `_rlnOriginXAngst`: what RELION would move the image by
            to centre it, so the content stands at minus the shift.
        pixel_size: A.

    Returns:
        Half-planes (B, D, D // 2 + 1).
    """
    kx, ky = frequencies(half_planes.shape[-2], pixel_size, device=shifts.device, dtype=shifts.dtype)
    angle = 2.0 * torch.pi * (kx * shifts[:, 0, None, None] + ky * shifts[:, 1, None, None])
    return half_planes * torch.complex(angle.cos(), angle.sin())
