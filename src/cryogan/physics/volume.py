"""The volume x, the map that is learned: starts at zero, is masked, symmetric and (nearly) positive."""

import torch
from torch import Tensor, nn

from cryogan.grids import centred_axis, frequency_radius, squared_norm
from cryogan.physics.symmetry import Symmetriser


class Volume(nn.Module):
    """Density map (D, D, D) in z, y, x, protein bright, that starts at zero.

    Args:
        box: D, pixels.
        radius_px: radius of the spherical mask about the voxel D // 2, pixels.
        point_group: name of the group that is imposed by averaging, in RELION's setting.
        device: device of all tensors.
        free_from: shell; coarser frequencies stay as `start_from` has set them. 0: all frequencies are free.
        mask: (D, D, D) from 0 to 1, bounds the map in place of the sphere.

    Attributes:
        density: the parameter (D, D, D), before mask and symmetry.
        mask: (D, D, D), by which the density is multiplied: 1 inside the sphere, 0 outside, or the mask given.
        support: (D, D, D), 1 where the mask is above 0, 0 elsewhere. A soft mask is not multiplied in again and again.
        radius_fraction: (D, D, D), distance from the centre over the mask's radius, at most 1.
        point_group: (n, 3, 3), the group's rotations.
    """

    radius_fraction: Tensor
    mask: Tensor
    support: Tensor
    kept: Tensor
    coarse: Tensor

    def __init__(
        self,
        box: int,
        radius_px: float,
        point_group: str,
        device: torch.device,
        free_from: float = 0.0,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.density = nn.Parameter(torch.zeros(box, box, box, device=device))
        distance = torch.from_numpy(squared_norm(*[centred_axis(box)] * 3)).to(device, torch.float32).sqrt()
        self.register_buffer("radius_fraction", (distance / radius_px).clamp(max=1.0), persistent=False)
        sphere = (distance <= radius_px).float()
        self.register_buffer("mask", sphere if mask is None else mask.to(sphere), persistent=False)
        self.register_buffer("support", (self.mask > 0).float(), persistent=False)
        self.symmetrise = Symmetriser(point_group, box, device=device)
        self.point_group = self.symmetrise.rotations
        self._free_from = free_from
        if free_from > 0:
            self.register_buffer("kept", torch.zeros(box, box, box, device=device))
            coarse = torch.from_numpy(frequency_radius(box, axes=3) < free_from).to(device)
            self.register_buffer("coarse", coarse, persistent=False)

    def forward(self) -> Tensor:
        """Map (D, D, D) with mask and symmetry: what the simulator projects and what is written."""
        volume: Tensor = self.symmetrise(self.density * self.mask)
        return self._with_kept(volume)

    def _with_kept(self, volume: Tensor) -> Tensor:
        """Replace a map's coarse frequencies by those that `start_from` has set."""
        if self._free_from == 0:
            return volume
        return volume + self._coarse(self.kept - volume)

    def _coarse(self, volume: Tensor) -> Tensor:
        """Low-pass a map to the frequencies that stay."""
        low: Tensor = torch.fft.irfftn(torch.fft.rfftn(volume) * self.coarse, s=volume.shape)
        return low

    @torch.no_grad()
    def start_from(self, density: Tensor) -> None:
        """Start from a map (D, D, D) instead of zero."""
        self.density.copy_(density * self.support)
        if self._free_from > 0:
            self.kept.copy_(self.symmetrise(self.density * self.mask))

    @torch.no_grad()
    def clip(self, depth: float) -> None:
        """Bound the density from below; called after each step.

        The bound is -depth times the map's maximum at the centre and rises linearly to 0 at the mask's border, which is
        how we read the clipping of the paper's supplement: depth is 0 early in a run, which is positivity, and grows
        to 0.1.

        Args:
            depth: fraction of the map's maximum, 0 or more.
        """
        density = self._with_kept(self.density * self.support)
        bound = -depth * (density * self.mask).max().clamp(min=0.0) * (1.0 - self.radius_fraction)
        self.density.copy_(torch.maximum(density, bound) * self.support)
