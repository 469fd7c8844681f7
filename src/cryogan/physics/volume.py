"""The volume x: from zero, masked, symmetric, positive."""

import torch
from torch import Tensor, nn

from cryogan.grids import centred_axis, frequency_radius, squared_norm
from cryogan.physics.symmetry import Symmetriser


class Volume(nn.Module):
    """A density map (D, D, D) in z, y, x, protein bright, that starts at zero.

    Args:
        box: D, pixels.
        radius: of the spherical mask, in pixels about the voxel D // 2.
        point_group: imposed by averaging; RELION's name and setting.
        free_from: shell; coarser frequencies stay as `start_from` has given them. 0: all are free.
    """

    radius_fraction: Tensor
    mask: Tensor
    kept: Tensor
    coarse: Tensor

    def __init__(self, box: int, radius: float, point_group: str, device: torch.device, free_from: float = 0.0) -> None:
        super().__init__()
        self.density = nn.Parameter(torch.zeros(box, box, box, device=device))
        distance = torch.from_numpy(squared_norm(*[centred_axis(box)] * 3)).to(device, torch.float32).sqrt()
        self.register_buffer("radius_fraction", (distance / radius).clamp(max=1.0), persistent=False)
        self.register_buffer("mask", (distance <= radius).float(), persistent=False)
        self.symmetrise = Symmetriser(point_group, box, device=device)
        self.point_group = self.symmetrise.rotations  # (n, 3, 3)
        self._free_from = free_from
        if free_from > 0:
            self.register_buffer("kept", torch.zeros(box, box, box, device=device))
            coarse = torch.from_numpy(frequency_radius(box, axes=3) < free_from).to(device)
            self.register_buffer("coarse", coarse, persistent=False)

    def forward(self) -> Tensor:
        """The masked, symmetrised map; the simulator sees this and a reader gets this."""
        volume: Tensor = self.symmetrise(self.density * self.mask)
        return self._with_kept(volume)

    def _with_kept(self, volume: Tensor) -> Tensor:
        """The frequencies that are kept of `start_from`, the others of a map (D, D, D)."""
        if self._free_from == 0:
            return volume
        return volume + self._coarse(self.kept - volume)

    def _coarse(self, volume: Tensor) -> Tensor:
        low: Tensor = torch.fft.irfftn(torch.fft.rfftn(volume) * self.coarse, s=volume.shape)
        return low

    @torch.no_grad()
    def start_from(self, density: Tensor) -> None:
        """Take a map (D, D, D) instead of zero."""
        self.density.copy_(density * self.mask)
        if self._free_from > 0:
            self.kept.copy_(self.symmetrise(self.density))

    @torch.no_grad()
    def clip(self, depth: float) -> None:
        """Bound the density from below, after each step.

        The bound is -depth times the map's maximum at the centre and rises linearly to 0 at the mask's
        border, which is how we read the paper's clipping: depth 0, early in a run, is positivity, and grows
        to 0.1.
        """
        density = self._with_kept(self.density * self.mask)
        bound = -depth * (density * self.mask).max().clamp(min=0.0) * (1.0 - self.radius_fraction)
        self.density.copy_(torch.maximum(density, bound) * self.mask)
