"""Back-projection P*, the adjoint of projection: Fourier coefficients of images, gathered into a volume."""

import torch
from torch import Tensor

from cryogan.fourier import Disc
from cryogan.grids import frequency_axis, squared_norm
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.projector import FourierProjector
from cryogan.physics.volume import Volume

DIAGONAL_FLOOR = 0.03  # of the mean over the shells


class BackProjector:
    """Back-projection into masked and symmetric volumes.

    Args:
        projector: P.
        volume: gives mask and point group.

    Attributes:
        radius: |k| (D, D, D // 2 + 1) of a volume's half spectrum, cycles per box.
        shell: its rounded value, int64.
        shells: number of shells, corners included.
    """

    def __init__(self, projector: FourierProjector, volume: Volume) -> None:
        self._projector, self._volume = projector, volume
        box = projector.box
        axis, device = frequency_axis(box), volume.mask.device
        squared = torch.from_numpy(squared_norm(axis, axis, axis[: box // 2 + 1]))
        self.radius = squared.to(device, torch.float32).sqrt()
        self.shell = self.radius.round().long()
        self.shells = int(self.shell.max()) + 1
        self._cell: Tensor | None = None

    def add(self, into: Tensor, disc: Disc, rotations: Tensor, values: Tensor) -> None:
        """Add coefficients of images to a spectrum, by the adjoint of `FourierProjector.samples`.

        Args:
            into: spectrum (2, P, P, P // 2 + 1), changed in place.
            disc: the K coefficients.
            rotations: (B, 3, 3), orientations of the images.
            values: complex (B, K).
        """
        self._projector.add_samples(into, rotations, disc.frequencies, values)

    def finish(self, spectrum: Tensor) -> Tensor:
        """Turn a spectrum that `add` has filled into a volume, by the adjoint of `FourierProjector.transform`.

        Args:
            spectrum: (2, P, P, P // 2 + 1).

        Returns:
            Half spectrum (D, D, D // 2 + 1) of the masked and symmetrised volume.
        """
        volume = self._volume
        with torch.enable_grad():
            probe = torch.zeros_like(volume.density, requires_grad=True)
            transform = self._projector.transform(volume.symmetrise(probe * volume.mask))
            (gradient,) = torch.autograd.grad(transform, probe, spectrum)
        result: Tensor = torch.fft.rfftn(volume.symmetrise(gradient))
        return result

    def normal_diagonal(
        self, disc: Disc, weights: Tensor, images: float, views: PoseDistribution | None = None
    ) -> Tensor:
        """Diagonal of P* diag(weights) P in Fourier space, summed over images.

        By the slice theorem it is the mean of the weights over a shell, falling as 1 / |k|: a slice has |k|
        coefficients where the volume has |k|^2.

        Args:
            disc: the K coefficients.
            weights: (K,), such as the mean of C^2 over the images.
            images: their number.
            views: distribution of their viewing directions; None: uniform.

        Returns:
            (D, D, D // 2 + 1).
        """
        by_shell = disc.mean_by_shell(weights)
        by_shell = by_shell / (4.0 * torch.arange(len(by_shell), device=by_shell.device).clamp(min=1))
        by_shell = images * self._volume.density.numel() * by_shell
        inside = torch.where(self.shell < len(by_shell), by_shell[self.shell.clamp(max=len(by_shell) - 1)], 0.0)
        if views is not None:
            inside = inside * views.coverage()[self._cells(views)]
        # Where the CTFs pass next to nothing, as at the lowest frequencies, the step stays bounded.
        return inside + DIAGONAL_FLOOR * by_shell[1:].mean()

    def _cells(self, views: PoseDistribution) -> Tensor:
        """Cell of each coefficient's direction, (D, D, D // 2 + 1)."""
        if self._cell is None:
            axis = torch.from_numpy(frequency_axis(len(self.radius))).to(self.radius)
            z, y, x = torch.meshgrid(axis, axis, axis[: self.radius.shape[2]].abs(), indexing="ij")
            self._cell = views.cells(torch.stack([x, y, z], dim=-1).flatten(0, 2)).view_as(self.radius)
        return self._cell
