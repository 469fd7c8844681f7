"""Checks of what users write themselves, such as a projector or a noise model, for their own tests."""

from collections.abc import Callable

import torch
from torch import Tensor

from cryogan.physics.noise import Noise


def assert_adjoint(
    forward: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor], Tensor],
    example: Tensor,
    *,
    generator: torch.Generator,
    rtol: float = 1e-4,
) -> None:
    """Assert that two linear functions are adjoint: <forward(x), y> = <x, backward(y)> for random x and y.

    The inner product is the real part of sum conj(a) b, so a function may take real numbers to complex ones.

    Args:
        forward: linear, such as a projector.
        backward: function that should be its adjoint, such as a back-projector.
        example: an input of `forward`; its shape, data type and device are used, its values are not.
        generator: source of x and y, on the example's device.
        rtol: tolerance, relative to the product of the norms of forward(x) and y.

    Raises:
        AssertionError: they are not adjoint; the message has both inner products.
    """
    x = torch.randn(example.shape, dtype=example.dtype, device=example.device, generator=generator)
    there = forward(x)
    y = torch.randn(there.shape, dtype=there.dtype, device=there.device, generator=generator)
    back = backward(y)
    if back.shape != x.shape:
        raise AssertionError(f"The adjoint returns shape {tuple(back.shape)} for inputs of shape {tuple(x.shape)}.")
    left, right = _inner(there, y), _inner(x, back)
    scale = float(there.norm() * y.norm())
    if not abs(left - right) <= rtol * scale:
        raise AssertionError(
            f"Not adjoint: <forward(x), y> = {left:g}, <x, backward(y)> = {right:g} (scale {scale:g})."
        )


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.conj() * b).real.sum(dtype=torch.float64))


def assert_standard_noise(noise: Noise, rows: Tensor, *, generator: torch.Generator, tolerance: float = 0.05) -> None:
    """Assert that a noise model draws what `Simulator` needs: mean 0 and s.d. 1, from the given generator alone.

    Args:
        noise: the model.
        rows: (B,) int64, particles for which it is asked; a few hundred, as the mean is compared with `tolerance`.
        generator: source of the noise.
        tolerance: tolerance on mean and s.d. over all pixels of all images.

    Raises:
        AssertionError: one of these is not so; the message says which.
    """
    state = generator.get_state()
    images = noise.sample(rows, generator)
    if images.ndim != 3 or len(images) != len(rows):
        raise AssertionError(f"The noise of {len(rows)} particles has shape {tuple(images.shape)}, not (B, D, D).")
    generator.set_state(state)
    if not torch.equal(images, noise.sample(rows, generator)):
        raise AssertionError(
            "The same generator gives other noise: the model has a source of random numbers of its own."
        )
    if torch.equal(images, noise.sample(rows, generator)):
        raise AssertionError("The noise is the same each time.")
    deviation, mean = (float(value) for value in torch.std_mean(images))
    if abs(mean) > tolerance or abs(deviation - 1) > tolerance:
        raise AssertionError(f"The noise has mean {mean:.3g} and s.d. {deviation:.3g}, not 0 and 1.")
