"""The volume x: from zero, masked, symmetric, positive."""

import torch
from torch import Tensor, nn

from cryogan.physics.symmetry import Symmetriser


class Volume(nn.Module):
    """A density map (D, D, D) in z, y, x, protein bright, that starts at zero.

    Args:
        box: D, pixels.
        radius: of the spherical mask, in pixels about the voxel D // 2.
        point_group: imposed by averaging; RELION's name and setting.
    """

    radius_fraction: Tensor
    mask: Tensor

    def __init__(self, box: int, radius: float, point_group: str, device: torch.device) -> None:
        super().__init__()
        self.density = nn.Parameter(torch.zeros(box, box, box, device=device))
        axis = torch.arange(box, device=device, dtype=torch.float32) - box // 2
        distance = (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()
        self.register_buffer("radius_fraction", (distance / radius).clamp(max=1.0), persistent=False)
        self.register_buffer("mask", (distance <= radius).float(), persistent=False)
        self.symmetrise = Symmetriser(point_group, box, device=device)
        self.point_group = self.symmetrise.rotations  # (n, 3, 3)

    def forward(self) -> Tensor:
        """The masked, symmetrised map; the simulator sees this and a reader gets this."""
        volume: Tensor = self.symmetrise(self.density * self.mask)
        return volume

    @torch.no_grad()
    def start_from(self, density: Tensor) -> None:
        """Take a map (D, D, D) instead of zero."""
        self.density.copy_(density * self.mask)

    @torch.no_grad()
    def clip(self, depth: float) -> None:
        """Bound the density from below, after each step.

        The bound is -depth times the map's maximum at the centre and rises linearly to 0 at the mask's
        border, which is how we read the paper's clipping: depth 0, early in a run, is positivity, and grows
        to 0.1.
        """
        bound = -depth * (self.density * self.mask).max().clamp(min=0.0) * (1.0 - self.radius_fraction)
        self.density.copy_(torch.maximum(self.density, bound) * self.mask)
