"""Where the particles are seen from: a density over view directions."""

import numpy as np
import torch
from torch import Tensor, nn

from cryogan.rotations import small_rotations, spread_rotations, uniform_rotations

CELLS = 768  # 7 degrees apart
KERNEL = np.radians(8.0)  # s.d. with which counts are smoothed
PROPOSALS = 64  # for each view that is drawn
PRIOR = 0.1  # of the mean, added to all counts
LARGEST_STEP = 3.0  # factor on the density
TURNS, BEST_TURNS = 1200, 8  # rotations of a prior that are compared, about 11 degrees apart, and that are refined
TURN_STEPS = np.radians((6.0, 6.0, 3.0, 3.0, 1.5, 1.5))


class PoseDistribution(nn.Module):
    """A density, constant on each of `CELLS` cells of the sphere, of the beam's direction R (0, 0, 1) in the volume.

    In-plane angles are uniform. `density` (CELLS,) has mean 1.

    Args:
        device: where it is.
        prior: density (CELLS,) in a frame that is not the volume's, until `turn_prior` has found the rotation.
    """

    directions: Tensor  # (CELLS, 3)
    density: Tensor
    prior_fit: Tensor  # correlation of the prior with the views when it was first turned onto them; 0 before

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
        """Rotations (count, 3, 3), by importance from `PROPOSALS` times as many uniform ones."""
        proposals = uniform_rotations(PROPOSALS * count, generator)
        weights = self.density[self.cells(proposals[:, :, 2])]
        return proposals[torch.multinomial(weights, count, replacement=True, generator=generator)]

    def cells(self, directions: Tensor) -> Tensor:
        """The cell (N,) of each direction (N, 3)."""
        return torch.cat([(part @ self.directions.T).argmax(1) for part in torch.split(directions, 1 << 12)])

    def counts(self, rotations: Tensor, group: Tensor) -> Tensor:
        """Views (CELLS,), smoothed, of rotations (N, 3, 3) and of those that a point group (n, 3, 3) makes equal."""
        directions = torch.einsum("gij,nj->gni", group, rotations[:, :, 2]).flatten(0, 1)
        counts = torch.zeros_like(self.density).index_add(0, self.cells(directions), torch.ones_like(directions[:, 0]))
        return self._smooth(counts, KERNEL)

    def learn(self, real: Tensor, simulated: Tensor, group: Tensor) -> None:
        """Towards the density whose simulated images are looked at from where the real ones are.

        A critic of the direction d from which it looks, E_real b - E_simulated (b + b^2 / 2), is best with
        1 + b(d) = h_real(d) / h_simulated(d) and says nothing where both are alike. The density is multiplied
        by 1 + b and smoothed: Richardson's and Lucy's deconvolution (views are looked at from a few degrees
        beside) as Silverman stops it from following each particle.

        Args:
            real, simulated: (N, 3, 3), the views from which the critic looks at either stream.
            group: (n, 3, 3), the volume's point group.
        """
        ratio = (self.counts(real, group) + PRIOR) / (self.counts(simulated, group) + PRIOR)
        self.density.copy_(self._smooth(self.density * ratio.clamp(1 / LARGEST_STEP, LARGEST_STEP), KERNEL / 2))

    def mixture(self, directions: Tensor, concentrations: Tensor, weights: Tensor) -> Tensor:
        """The density (CELLS,) of a mixture of von Mises and Fisher: sum of weight exp(kappa d . direction).

        Args:
            directions: (N, 3), unit vectors.
            concentrations: (N,), kappa; NaN: 1 / KERNEL^2, of the kernel that smooths counts.
            weights: (N,); what each component has in all, also where it is narrower than a cell.
        """
        kappa, total = concentrations.nan_to_num(1 / KERNEL**2), torch.zeros_like(self.density)
        for part in torch.split(torch.arange(len(weights), device=weights.device), 1 << 14):
            on_cells = torch.softmax(kappa[part, None] * (directions[part] @ self.directions.T), dim=1)
            total += weights[part] @ on_cells
        return total / total.mean()

    def turn_prior(self, real: Tensor, simulated: Tensor, group: Tensor, generator: torch.Generator) -> None:
        """The prior's frame is another one: take the rotation that brings it onto the views of the real images.

        Of the density of the views, real over simulated ones as in `learn`, and the prior under the rotations of a
        grid and then near the best of these, the largest correlation. A mirrored volume needs no mirrored prior:
        x -> -x leaves the directions of equal views to R (0, 0, 1) -> -diag(-1, 1, 1) R (0, 0, 1), a half-turn
        about x, which is among the rotations.

        Args:
            real, simulated: (N, 3, 3), the views from which the critic looks at either stream.
            group: (n, 3, 3), the volume's point group; the turned prior is its mean over equal views.
            generator: turns the grid.
        """
        assert self.prior is not None
        prior = self.prior
        target = self.density * (self.counts(real, group) + PRIOR) / (self.counts(simulated, group) + PRIOR)
        equal = torch.einsum("gij,cj->gci", group, self.directions) @ self.directions.T
        kernel = torch.exp((equal - 1) / (KERNEL / 2) ** 2).sum(0)

        def turned(rotations: Tensor) -> Tensor:
            """(N, CELLS)"""
            cells = self.cells(torch.einsum("nji,cj->nci", rotations, self.directions).flatten(0, 1))
            return prior[cells].view(len(rotations), CELLS) @ kernel

        def fit(rotations: Tensor) -> Tensor:
            """Correlations (N,)."""
            return torch.corrcoef(torch.cat([target[None], turned(rotations)]))[0, 1:].nan_to_num()

        grid = spread_rotations(max(1, TURNS // len(group)), group.double().cpu().numpy(), generator)
        best = grid[fit(grid).topk(min(BEST_TURNS, len(grid))).indices]
        still_or_turned = torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)]).to(grid)
        for step in TURN_STEPS:
            near = best[:, None] @ small_rotations(step * still_or_turned)  # (n, 7, 3, 3)
            chosen = fit(near.flatten(0, 1)).view(near.shape[:2]).argmax(1)
            best = near[torch.arange(len(best), device=best.device), chosen]
        fits = fit(best)
        if not self.prior_fit:  # later views are those of a map that the prior has shaped
            self.prior_fit.copy_(fits.max())
        density = turned(best[fits.argmax()][None])[0]
        # No view is excluded: what has no density could not be learned, and its frequencies would have no weight.
        self.density.copy_((density / density.mean() + PRIOR) / (1 + PRIOR))

    def _smooth(self, values: Tensor, width: float) -> Tensor:
        """Of mean 1."""
        kernel = ((self.directions @ self.directions.T - 1) / width**2).exp()
        smooth: Tensor = kernel @ values
        return smooth / smooth.mean()

    def coverage(self) -> Tensor:
        """How often the frequencies in each direction (CELLS,) lie in a view's slice, over that of uniform views."""
        near = (-0.5 * (self.directions @ self.directions.T / KERNEL).square()).exp()
        covered: Tensor = near @ self.density / near.sum(1)
        return covered
