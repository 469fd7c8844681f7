"""The least-squares map of particles whose poses are known, or known with weights."""

from collections.abc import Iterable

import torch
from torch import Tensor

from cryogan.critics.matching.templates import Observed
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.posterior import Posterior


@torch.no_grad()
def least_squares_map(half: HalfSet, density: Tensor, posterior: Posterior, cutoff: float, steps: int) -> Tensor:
    """Move a map towards the least-squares map of the particles, by preconditioned conjugate gradients.

    Minimises the posterior's mean of sum |y - C S P x|^2, with the noise whitened, among masked and symmetric maps.
    Few steps leave alone what the particles hardly determine.

    Args:
        half: Particles.
        density: Map (D, D, D) from which it starts.
        posterior: Poses of the particles.
        cutoff: Shell; frequencies below it take part.
        steps: Number of conjugate gradient steps.

    Returns:
        The map (D, D, D) after these steps.
    """
    equations = NormalEquations(half, density, posterior, cutoff)
    residual = equations.right_hand_side() - equations.product(density)
    direction = preconditioned = equations.precondition(residual)
    size = (residual * preconditioned).sum()
    for _ in range(steps):
        turned = equations.product(direction)
        rate = size / (direction * turned).sum()
        density = density + rate * direction
        residual = residual - rate * turned
        preconditioned = equations.precondition(residual)
        before, size = size, (residual * preconditioned).sum()
        direction = preconditioned + size / before * direction
    return density


class NormalEquations:
    """The normal equations of the least-squares map x: E P* C^2 P x = E P* S* C y, the noise whitened.

    The mean is over the particles and their posterior.

    Args:
        half: Particles.
        density: Map (D, D, D), for its shape.
        posterior: Poses of the particles.
        cutoff: Shell; frequencies below it take part.
    """

    def __init__(self, half: HalfSet, density: Tensor, posterior: Posterior, cutoff: float) -> None:
        self._half, self._disc, self._shape = half, half.disc(cutoff), density.shape
        self._spectrum = half.projector.transform(density)
        self._templates = half.templates(self._spectrum, self._disc)
        self._weights = torch.split(posterior.weights, IMAGES_AT_ONCE)
        self._rotations = [part.flatten(0, 1) for part in torch.split(posterior.rotations, IMAGES_AT_ONCE)]
        self._shifts = [part.flatten(0, 1) for part in torch.split(posterior.shifts, IMAGES_AT_ONCE)]
        self._powers = [
            self._disc.take(transfer).square() * self._templates.precision for _, transfer in half.batches()
        ]
        back, radius = half.back, half.back.radius
        window = (cutoff - radius).clamp(0.0, 1.0) * (radius > 0.5)
        sums = [weights.sum(1) @ power for weights, power in zip(self._weights, self._powers, strict=True)]
        self._inverse = window / back.normal_diagonal(self._disc, torch.stack(sums).sum(0) / len(half), len(half))

    def right_hand_side(self) -> Tensor:
        """Return E P* S* C y, (D, D, D)."""
        batches = zip(self._half.batches(), self._weights, self._shifts, strict=True)
        return self._back_project(self._matched(*batch, weights, shifts) for batch, weights, shifts in batches)

    def product(self, density: Tensor) -> Tensor:
        """Return E P* C^2 P x, (D, D, D), of a map x."""
        templates = self._half.templates(self._half.projector.transform(density), self._disc)
        parts = zip(self._weights, self._powers, self._rotations, strict=True)
        return self._back_project(
            (weights[:, :, None] * power[:, None]).flatten(0, 1) * templates.projections(rotations)
            for weights, power, rotations in parts
        )

    def precondition(self, gradient: Tensor) -> Tensor:
        """Return a gradient (D, D, D) over the diagonal of the equations, masked and symmetric."""
        volume = self._half.volume
        moved = torch.fft.irfftn(torch.fft.rfftn(gradient * volume.mask) * self._inverse, s=self._shape)
        result: Tensor = volume.symmetrise(moved * volume.mask)
        return result

    def _matched(self, half_planes: Tensor, transfer: Tensor, weights: Tensor, shifts: Tensor) -> Tensor:
        """Return the weighted matched filter of images at each of their poses, (B L, K)."""
        images = Observed.on(self._disc, half_planes, transfer).repeat(weights.shape[1])
        return weights.flatten()[:, None] * self._templates.matched(images, shifts)

    def _back_project(self, parts: Iterable[Tensor]) -> Tensor:
        total = torch.zeros_like(self._spectrum)
        for rotations, values in zip(self._rotations, parts, strict=True):
            self._half.back.add(total, self._disc, rotations, values)
        result: Tensor = torch.fft.irfftn(self._half.back.finish(total), s=self._shape)
        return result
