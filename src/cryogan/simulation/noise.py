"""The spectrum of the simulated background."""

import torch
from torch import Tensor

NOISE_FALLOFF = 0.35  # of the Nyquist frequency: where the coloured noise's Lorentzian part has halved


def noise_power(box: int) -> Tensor:
    """Radial power of the coloured noise: a Lorentzian on a floor, like ice and camera.

    Args:
        box: D, pixels.

    Returns:
        (D // 2 + 1,), power of each shell; its mean over the image is 1.
    """
    frequency = torch.arange(box // 2 + 1) / (box // 2)
    power = 0.4 + 1.0 / (1.0 + (frequency / NOISE_FALLOFF).square())
    weight = torch.arange(box // 2 + 1).float()
    return power / ((power * weight).sum() / weight.sum())
