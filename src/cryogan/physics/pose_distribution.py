"""The distribution of the particles' orientations: a density over viewing directions, in-plane angles uniform."""

import numpy as np
import torch
from torch import Tensor, nn

from cryogan.rotations import small_rotations, spread_rotations, uniform_rotations

CELLS = 768  # 7 degrees apart
KERNEL = np.radians(8.0)  # s.d. with which counts are smoothed
PROPOSALS = 64  # uniform orientations for each one that is sampled
PRIOR = 0.1  # of the mean, added to all counts
LARGEST_STEP = 3.0  # factor by which the density changes at most in a step
TURNS, BEST_TURNS = 1200, 8  # rotations of a prior that are compared, about 11 degrees apart, and that are refined
TURN_STEPS = np.radians((6.0, 6.0, 3.0, 3.0, 1.5, 1.5))


class PoseDistribution(nn.Module):
    """Density of the beam's direction R (0, 0, 1) in the volume, constant on each of `CELLS` cells of the sphere.

    Args:
        device: device of all tensors.
        prior: density (CELLS,) in a frame that is not the volume's, until `turn_prior` has found the rotation.

    Attributes:
        directions: (CELLS, 3), centres of the cells.
        density: (CELLS,), mean 1.
        prior_fit: correlation of the prior with the directions that it was first rotated onto; 0 before.
    """

    directions: Tensor
    density: Tensor
    prior_fit: Tensor

    def __init__(self, device: torch.device, prior: Tensor | None = None) -> None:
        super().__init__()
        index = np.arange(CELLS) + 0.5
        z, azimuth = 1 - 2 * index / CELLS, np.pi * (1 + 5**0.5) * index  # a Fibonacci spiral
        ring = np.sqrt(1 - z**2)
        points = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=1)
        self.register_buffer("directions", torch.from_numpy(points).float().to(device), persistent=False)
        self.register_buffer("density", torch.ones(CELLS, device=device))
        self.register_buffer("prior_fit", torch.zeros((), device=device))
        self.prior = prior

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Sample orientations (count, 3, 3), by importance from `PROPOSALS` times as many uniform ones."""
        proposals = uniform_rotations(PROPOSALS * count, generator)
        weights = self.density[self.cells(proposals[:, :, 2])]
        return proposals[torch.multinomial(weights, count, replacement=True, generator=generator)]

    def cells(self, directions: Tensor) -> Tensor:
        """Find the cell (N,) of each direction (N, 3)."""
        return torch.cat([(part @ self.directions.T).argmax(1) for part in torch.split(directions, 1 << 12)])

    def counts(self, rotations: Tensor, group: Tensor) -> Tensor:
        """Count viewing directions in each cell, smoothed, mean 1.

        Args:
            rotations: (N, 3, 3), orientations.
            group: (n, 3, 3), point group; directions that it makes equal are counted too.

        Returns:
            (CELLS,).
        """
        directions = torch.einsum("gij,nj->gni", group, rotations[:, :, 2]).flatten(0, 1)
        counts = torch.zeros_like(self.density).index_add(0, self.cells(directions), torch.ones_like(directions[:, 0]))
        return self._smooth(counts, KERNEL)

    def learn(self, real: Tensor, simulated: Tensor, group: Tensor) -> None:
        """Update the density so that simulated images get the orientations that real ones get from the critic.

        A critic b(d) of the direction d, E_real b - E_simulated (b + b^2 / 2), is optimal with
        1 + b(d) = h_real(d) / h_simulated(d) and vanishes where both densities h are equal. The density is multiplied
        by 1 + b and smoothed: Richardson-Lucy deconvolution (assigned directions are a few degrees off), regularised
        by smoothing each step (Silverman) so that it does not follow single particles.

        Args:
            real: (N, 3, 3), orientations that the critic assigns to real images.
            simulated: (N, 3, 3), those that it assigns to simulated images.
            group: (n, 3, 3), the volume's point group.
        """
        ratio = (self.counts(real, group) + PRIOR) / (self.counts(simulated, group) + PRIOR)
        self.density.copy_(self._smooth(self.density * ratio.clamp(1 / LARGEST_STEP, LARGEST_STEP), KERNEL / 2))

    def mixture(self, directions: Tensor, concentrations: Tensor, weights: Tensor) -> Tensor:
        """Density of a mixture of von Mises-Fisher distributions, the sum of weight exp(kappa d . direction).

        Args:
            directions: (N, 3), unit vectors.
            concentrations: (N,), kappa; NaN: 1 / KERNEL^2, that of the kernel which smooths counts.
            weights: (N,), the integral of each component, also where it is narrower than a cell.

        Returns:
            (CELLS,), mean 1.
        """
        kappa, total = concentrations.nan_to_num(1 / KERNEL**2), torch.zeros_like(self.density)
        for part in torch.split(torch.arange(len(weights), device=weights.device), 1 << 14):
            on_cells = torch.softmax(kappa[part, None] * (directions[part] @ self.directions.T), dim=1)
            total += weights[part] @ on_cells
        return total / total.mean()

    def turn_prior(self, real: Tensor, simulated: Tensor, group: Tensor, generator: torch.Generator) -> None:
        """Rotate the prior, which is in another frame, onto the directions of the real images; set the density to it.

        The rotation is the one with the largest correlation between the rotated prior and the density of directions,
        real over simulated as in `learn`: the best of a grid, refined. A mirrored volume needs no mirrored prior:
        x -> -x maps the direction R (0, 0, 1) of an image to -diag(-1, 1, 1) R (0, 0, 1), a half-turn about x, which is
        among the rotations.

        Args:
            real: (N, 3, 3), orientations that the critic assigns to real images.
            simulated: (N, 3, 3), those that it assigns to simulated images.
            group: (n, 3, 3), the volume's point group; the rotated prior is averaged over equal directions.
            generator: source of the grid's random rotation.
        """
        assert self.prior is not None
        prior = self.prior
        target = self.density * (self.counts(real, group) + PRIOR) / (self.counts(simulated, group) + PRIOR)
        equal = torch.einsum("gij,cj->gci", group, self.directions) @ self.directions.T
        kernel = torch.exp((equal - 1) / (KERNEL / 2) ** 2).sum(0)

        def turned(rotations: Tensor) -> Tensor:
            """Priors (N, CELLS) under rotations (N, 3, 3)."""
            cells = self.cells(torch.einsum("nji,cj->nci", rotations, self.directions).flatten(0, 1))
            return prior[cells].view(len(rotations), CELLS) @ kernel

        def fit(rotations: Tensor) -> Tensor:
            """Correlations (N,) of rotated priors with the target."""
            return torch.corrcoef(torch.cat([target[None], turned(rotations)]))[0, 1:].nan_to_num()

        grid = spread_rotations(max(1, TURNS // len(group)), group.double().cpu().numpy(), generator)
        best = grid[fit(grid).topk(min(BEST_TURNS, len(grid))).indices]
        still_or_turned = torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)]).to(grid)
        for step in TURN_STEPS:
            near = best[:, None] @ small_rotations(step * still_or_turned)  # (n, 7, 3, 3)
            chosen = fit(near.flatten(0, 1)).view(near.shape[:2]).argmax(1)
            best = near[torch.arange(len(best), device=best.device), chosen]
        fits = fit(best)
        if not self.prior_fit:  # later directions are those of a map that the prior has shaped
            self.prior_fit.copy_(fits.max())
        density = turned(best[fits.argmax()][None])[0]
        # No direction is excluded: one without density could not be learned, and its frequencies had no curvature.
        self.density.copy_((density / density.mean() + PRIOR) / (1 + PRIOR))

    def _smooth(self, values: Tensor, width: float) -> Tensor:
        """Smooth values (CELLS,) with a kernel of s.d. `width`, radians, and scale them to mean 1."""
        kernel = ((self.directions @ self.directions.T - 1) / width**2).exp()
        smooth: Tensor = kernel @ values
        return smooth / smooth.mean()

    def coverage(self) -> Tensor:
        """Sampling of Fourier space in each direction (CELLS,): density of slices there, over that of uniform views.

        A frequency k lies in the slices of the viewing directions perpendicular to it.
        """
        near = (-0.5 * (self.directions @ self.directions.T / KERNEL).square()).exp()
        covered: Tensor = near @ self.density / near.sum(1)
        return covered
