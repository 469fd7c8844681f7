"""Where the particles are seen from: a density over view directions."""

import numpy as np
import torch
from torch import Tensor, nn

from cryogan.physics.poses import uniform_rotations

CELLS = 768  # 7 degrees apart
KERNEL = np.radians(8.0)  # s.d. with which counts are smoothed
PROPOSALS = 64  # for each view that is drawn
PRIOR = 0.1  # of the mean, added to all counts
LARGEST_STEP = 3.0  # factor on the density


class ViewDistribution(nn.Module):
    """A density, constant on each of `CELLS` cells of the sphere, of the beam's direction R (0, 0, 1) in the volume.

    In-plane angles are uniform. `density` (CELLS,) has mean 1.
    """

    directions: Tensor  # (CELLS, 3)
    density: Tensor

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        index = np.arange(CELLS) + 0.5
        z, azimuth = 1 - 2 * index / CELLS, np.pi * (1 + 5**0.5) * index  # a Fibonacci spiral
        ring = np.sqrt(1 - z**2)
        points = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=1)
        self.register_buffer("directions", torch.from_numpy(points).float().to(device), persistent=False)
        self.register_buffer("density", torch.ones(CELLS, device=device))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Rotations (count, 3, 3), by importance from `PROPOSALS` times as many uniform ones."""
        proposals = uniform_rotations(PROPOSALS * count, generator)
        weights = self.density[self.cells(proposals[:, :, 2])]
        return proposals[torch.multinomial(weights, count, replacement=True, generator=generator)]

    def cells(self, directions: Tensor) -> Tensor:
        """The cell (N,) of each direction (N, 3)."""
        return torch.cat([(part @ self.directions.T).argmax(1) for part in torch.split(directions, 1 << 16)])

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
