"""Poses refined from where they are, and sampled from their posterior, by Gauss-Newton."""

from typing import NamedTuple

import torch
from torch import Tensor

from cryogan.critics.matching.templates import Observed, Templates
from cryogan.rotations import small_rotations

DIFFERENCE_VOXELS = 0.5  # by which the outermost coefficient moves in a finite difference, of the padded spectrum
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
    for step in range(steps + 1):
        model, residual, ratio = templates.residual(images, rotations, shifts)
        better = ratio > best.log_likelihood_ratio
        best = RefinedPoses(
            torch.where(better[:, None, None], rotations, best.rotations),
            torch.where(better[:, None], shifts, best.shifts),
            torch.where(better, ratio, best.log_likelihood_ratio),
        )
        if step == steps:
            break
        move = gauss_newton_step(templates, images, rotations, model, residual, with_shifts=max_shift > 0)
        turn = move[:, :3] * (max_turn / move[:, :3].norm(dim=1, keepdim=True).clamp(min=max_turn))
        rotations = rotations @ small_rotations(turn)
        if max_shift > 0:
            pixel = templates.width_A / templates.projector.box
            shifts = (shifts + move[:, 3:].clamp(-pixel, pixel)).clamp(-max_shift, max_shift)
    return best


def gauss_newton_step(
    templates: Templates, images: Observed, rotations: Tensor, model: Tensor, residual: Tensor, *, with_shifts: bool
) -> Tensor:
    """Solve equation (viii) of docs/method.md, (J* J + D) m = J* r, for the step m of each image's pose.

    Args:
        templates: Templates of the map.
        images: Images, B.
        rotations: Rotations (B, 3, 3) of the poses.
        model: C P x at the poses, whitened, as `Templates.residual` returns it.
        residual: r, what the model leaves of the images.
        with_shifts: Whether the shifts move, too.

    Returns:
        m, (B, M): turns about x, y, z in radians, and shifts along x, y in A if M is 5.
    """
    jacobian, normal_matrix = _normal_equations(templates, images, rotations, model, with_shifts=with_shifts)
    gradient = jacobian @ torch.view_as_real(residual).flatten(1)[:, :, None]
    move: Tensor = torch.linalg.solve_ex(normal_matrix, gradient)[0][:, :, 0]  # `solve` asks a GPU whether it worked
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
    model, _, _ = templates.residual(images, rotations, shifts)
    _, normal_matrix = _normal_equations(templates, images, rotations, model, with_shifts=with_shifts)
    width = torch.linalg.cholesky(torch.linalg.inv(normal_matrix))
    size = len(images), count, width.shape[-1]
    normal = torch.randn(size, generator=generator, device=rotations.device)
    moves = normal @ width.mT
    turned = rotations[:, None] @ small_rotations(moves[..., :3].flatten(0, 1)).view(*size[:2], 3, 3)
    moved = shifts[:, None] + moves[..., 3:] if with_shifts else shifts[:, None].expand(-1, count, -1)
    _, _, ratio = templates.residual(images.repeat(count), turned.flatten(0, 1), moved.flatten(0, 1))
    return turned, moved, torch.softmax(ratio.view(size[:2]) + normal.square().sum(2) / 2, 1)


def _normal_equations(
    templates: Templates, images: Observed, rotations: Tensor, model: Tensor, *, with_shifts: bool
) -> tuple[Tensor, Tensor]:
    """Return J, (B, M, 2 K), and J* J + D, (B, M, M), of (viii); arguments as of `gauss_newton_step`."""
    projector = templates.projector
    delta = DIFFERENCE_VOXELS * projector.box / projector.padded / templates.disc.last_shell
    scale = templates.precision.sqrt() * images.transfer
    turns = small_rotations(delta * torch.eye(3, device=rotations.device))
    slopes = [(scale * templates.projections(rotations @ turn) - model) / delta for turn in turns]
    if with_shifts:
        slopes += [2j * torch.pi / templates.width_A * k * model for k in templates.disc.frequencies]
    jacobian = torch.view_as_real(torch.stack(slopes, 1)).flatten(2)
    products = jacobian @ jacobian.mT
    # Damped, and bounded from below where a view does not depend on a direction (an empty map, a ball).
    diagonal = products.diagonal(dim1=1, dim2=2)
    damping = torch.diag_embed(DAMPING * diagonal + 1e-3 * diagonal.amax(1, keepdim=True) + 1e-9)
    return jacobian, products + damping
