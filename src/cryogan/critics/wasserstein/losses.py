"""The losses (10), (12) and (13) of the paper."""

from collections.abc import Callable

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]


def critic_loss(real_scores: Tensor, simulated_scores: Tensor) -> Tensor:
    """Return the critic's loss: minus the estimate of the Wasserstein distance, mean D(sim) - mean D(real)."""
    return simulated_scores.mean() - real_scores.mean()


def volume_loss(simulated_scores: Tensor) -> Tensor:
    """Return the volume's loss, equation (13): -mean D(sim)."""
    return -simulated_scores.mean()


def gradient_penalty(critic: Critic, between: Tensor) -> Tensor:
    """Return the penalty of (10) without lambda: the mean of (|grad D(y_int)| - 1)^2.

    The norm is over all pixels of an image, and of all planes of the critic's input.

    Args:
        critic: Critic, from (B, ..., D, D) to (B,).
        between: y_int, (B, ..., D, D), as `interpolate` returns them.
    """
    between = between.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm: Tensor = gradient.flatten(1).norm(dim=1)
    return (norm - 1).square().mean()


def interpolate(real: Tensor, simulated: Tensor, places: Tensor) -> Tensor:
    """Return y_int of (10), (B, ..., D, D), between real and simulated images at places (B,) uniform from 0 to 1."""
    alpha = places.view(-1, *[1] * (real.ndim - 1))
    return alpha * real + (1 - alpha) * simulated
