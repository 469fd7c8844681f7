"""Poses refined from where they are, and sampled from their posterior, by Gauss-Newton."""

from typing import NamedTuple

import torch
from torch import Tensor

from cryogan.critics.matching.normal_equations import (
    NormalEquations,
    log_likelihood_ratio,
    normal_equations,
)
from cryogan.critics.matching.templates import Observed, Templates
from cryogan.rotations import small_rotations

DAMPING = 0.05


class RefinedPoses(NamedTuple):
    """Poses of B images: rotations (B, 3, 3), shifts (B, 2) in A, log-likelihood ratios (B,) in nats."""

    rotations: Tensor
    shifts: Tensor
    log_likelihood_ratio: Tensor


def refine_poses(
    templates: Templates,
    images: Observed,
    rotations: Tensor,
    shifts: Tensor,
    *,
    steps: int,
    max_turn: float,
    max_shift: float,
) -> RefinedPoses:
    """Refine each image's pose to the nearest maximum of its log-likelihood ratio.

    Args:
        templates: Templates of the map.
        images: Images, B.
        rotations: Rotations (B, 3, 3) at the start.
        shifts: Shifts (B, 2) at the start, A.
        steps: Number of Gauss-Newton steps.
        max_turn: Largest turn in a step, radians.
        max_shift: Bound of each shift, A; 0 keeps the shifts.

    Returns:
        The most likely of the poses on the way.
    """
    best = RefinedPoses(rotations, shifts, rotations.new_full((len(images),), -torch.inf))
    for _ in range(steps):
        equations = normal_equations(templates, images, rotations, shifts)
        best = _better(best, RefinedPoses(rotations, shifts, equations.log_likelihood_ratio))
        move = gauss_newton_step(equations, with_shifts=max_shift > 0)
        turn = move[:, :3] * (max_turn / move[:, :3].norm(dim=1, keepdim=True).clamp(min=max_turn))
        rotations = rotations @ small_rotations(turn)
        if max_shift > 0:
            pixel = templates.width_A / templates.projector.box
            shifts = (shifts + move[:, 3:].clamp(-pixel, pixel)).clamp(-max_shift, max_shift)
    return _better(best, RefinedPoses(rotations, shifts, log_likelihood_ratio(templates, images, rotations, shifts)))


def _better(first: RefinedPoses, second: RefinedPoses) -> RefinedPoses:
    """Return the more likely of two poses of each image."""
    second_is = second.log_likelihood_ratio > first.log_likelihood_ratio
    return RefinedPoses(
        torch.where(second_is[:, None, None], second.rotations, first.rotations),
        torch.where(second_is[:, None], second.shifts, first.shifts),
        torch.where(second_is, second.log_likelihood_ratio, first.log_likelihood_ratio),
    )


def gauss_newton_step(equations: NormalEquations, *, with_shifts: bool) -> Tensor:
    """Solve equation (viii) of docs/method.md, (J* J + D) m = J* r, for the step m of each image's pose.

    Args:
        equations: J* J and J* r of B images.
        with_shifts: Whether the shifts move, too.

    Returns:
        m, (B, M): turns about x, y, z in radians, and shifts along x, y in A if M is 5.
    """
    matrix = _damped(equations, with_shifts=with_shifts)
    gradient = equations.gradient[:, : matrix.shape[1], None]
    move: Tensor = torch.linalg.solve_ex(matrix, gradient)[0][:, :, 0]  # `solve` asks a GPU whether it worked
    return move


def sample_poses(
    templates: Templates,
    images: Observed,
    rotations: Tensor,
    shifts: Tensor,
    count: int,
    generator: torch.Generator,
    *,
    with_shifts: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample poses of each image from its posterior about the most likely pose.

    They are sampled from the Gaussian whose precision is the matrix of (viii) of docs/method.md, and weighted with
    their likelihood over that Gaussian.

    Args:
        templates: Templates of the map.
        images: Images, B.
        rotations: Most likely rotations (B, 3, 3).
        shifts: Most likely shifts (B, 2), A.
        count: Number of samples of each image, L.
        generator: Source of the random numbers.
        with_shifts: Whether the shifts are uncertain, too.

    Returns:
        Rotations (B, L, 3, 3), shifts (B, L, 2) in A, and weights (B, L) whose sum is 1 for each image.
    """
    equations = normal_equations(templates, images, rotations, shifts)
    width = torch.linalg.cholesky(torch.linalg.inv(_damped(equations, with_shifts=with_shifts)))
    size = len(images), count, width.shape[-1]
    normal = torch.randn(size, generator=generator, device=rotations.device)
    moves = normal @ width.mT
    turned = rotations[:, None] @ small_rotations(moves[..., :3].flatten(0, 1)).view(*size[:2], 3, 3)
    moved = shifts[:, None] + moves[..., 3:] if with_shifts else shifts[:, None].expand(-1, count, -1)
    ratio = log_likelihood_ratio(templates, images.repeat(count), turned.flatten(0, 1), moved.flatten(0, 1))
    return turned, moved, torch.softmax(ratio.view(size[:2]) + normal.square().sum(2) / 2, 1)


def _damped(equations: NormalEquations, *, with_shifts: bool) -> Tensor:
    """Return J* J + D of (viii), (B, M, M)."""
    matrix = equations.matrix if with_shifts else equations.matrix[:, :3, :3]
    # Damped, and bounded from below where a view does not depend on a direction (an empty map, a ball).
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    return matrix + torch.diag_embed(DAMPING * diagonal + 1e-3 * diagonal.amax(1, keepdim=True) + 1e-9)
