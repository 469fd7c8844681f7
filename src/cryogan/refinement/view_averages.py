"""Averages of particles in a few views, at the poses that were found: by them people judge what was rejected.

A pose is found by likeness with the map, so that an average of noise at such poses looks like the map, too. Images of
noise, treated alike, are therefore averaged beside the particles.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from cryogan.fourier import shells, to_half_planes, to_images
from cryogan.grids import centred_axis
from cryogan.physics.shifts import shift

REACH = math.radians(25.0)  # from its view, of the particles in an average
SPREAD_AMONG = 1000  # particles among whose views the shown ones are chosen
LEAST_POWER = 0.05  # mean of C^2, below which a frequency is damped
LEAST_IMAGES = 5  # of an average


def spread_views(rotations: Tensor, group: Tensor, number: int) -> Tensor:
    """Choose views far from each other among those of particles: each is the farthest from all before.

    Args:
        rotations: Orientations (N, 3, 3).
        group: Point group (n, 3, 3).
        number: Number of views V.

    Returns:
        Orientations (V, 3, 3).
    """
    few = rotations[:: max(1, len(rotations) // SPREAD_AMONG)]
    chosen, nearest = [0], few.new_full((len(few),), -1.0)
    for _ in range(min(number, len(few)) - 1):
        directions = group @ few[chosen[-1], :, 2]
        nearest = torch.maximum(nearest, (few[:, :, 2] @ directions.T).amax(1))
        chosen.append(int(nearest.argmin()))
    return few[chosen]


class ViewAverages:
    """Averages of S sets of images in V views.

    Args:
        views: Orientations (V, 3, 3) of the views.
        group: Point group (n, 3, 3).
        sets: S.
        box: D, pixels.
        pixel_size: A.

    Attributes:
        counts: Number of images in each average, (S, V).
    """

    def __init__(self, views: Tensor, group: Tensor, sets: int, box: int, pixel_size: float) -> None:
        self._views, self._group, self._pixel_size = views, group, pixel_size
        self._images = views.new_zeros(sets * len(views), box, box)
        self._power = views.new_zeros(sets * len(views), box, box // 2 + 1)
        self.counts = views.new_zeros(sets, len(views))

    def add(self, half_planes: Tensor, transfer: Tensor, rotations: Tensor, shifts: Tensor, sets: Tensor) -> None:
        """Add images.

        Args:
            half_planes: Half-planes (B, D, D // 2 + 1).
            transfer: CTFs (B, D, D // 2 + 1).
            rotations: Orientations (B, 3, 3).
            shifts: Shifts (B, 2), A.
            sets: Set of each image (B,), int64.
        """
        alike = self._group[:, None] @ rotations  # (n, B, 3, 3)
        cosines = torch.einsum("gbi,vi->bvg", alike[..., 2], self._views[:, :, 2])
        near, best = cosines.flatten(1).max(1)
        view, element = best // len(self._group), best % len(self._group)
        turn = self._views[view].mT @ alike[element, torch.arange(len(view), device=view.device)]
        angle = torch.atan2(turn[:, 1, 0] - turn[:, 0, 1], turn[:, 0, 0] + turn[:, 1, 1])
        turned = turned_in_plane(to_images(shift(half_planes, -shifts, self._pixel_size) * transfer), angle)
        inside = near > math.cos(REACH)
        place = (sets * len(self._views) + view)[inside]
        self._images.index_add_(0, place, turned[inside])
        self._power.index_add_(0, place, transfer[inside].square())
        self.counts.view(-1).index_add_(0, place, torch.ones_like(near)[inside])

    def images(self, cutoff: float) -> Tensor:
        """Return the averages (S, V, D, D), corrected for their CTFs, of frequencies below a cut-off (a shell).

        Averages of fewer than 5 images are 0.
        """
        window, power, least = self._correction(cutoff)
        averages = to_images(to_half_planes(self._images) * window / (power + least))
        averages[self.counts.flatten() < LEAST_IMAGES] = 0
        return averages.view(*self.counts.shape, *averages.shape[1:])

    def expected(self, projections: Tensor, cutoff: float) -> Tensor:
        """Return what the averages of the first set would be if its images showed a map: (V, D, D).

        Args:
            projections: Projections (V, D, D) of the map.
            cutoff: Shell.
        """
        window, power, least = (values[: len(projections)] for values in self._correction(cutoff))
        return to_images(to_half_planes(projections) * window * power / (power + least))

    def _correction(self, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return a window, and the sum of C^2 and its floor, for each average: (S V, ...)."""
        shell = shells(self._images.shape[-1], device=self._images.device)
        power = self._power.new_zeros(len(self._power), int(shell.max()) + 1)
        power.index_add_(1, shell.flatten(), self._power.flatten(1))
        mean = (power / torch.bincount(shell.flatten()))[:, shell]  # in-plane turns leave the shells
        least = LEAST_POWER * self.counts.view(-1, 1, 1).clamp(min=1)
        return (shell < cutoff).expand_as(mean), mean, least


def turned_in_plane(images: Tensor, angles: Tensor) -> Tensor:
    """Turn images (B, D, D) about pixel D // 2 by angles (B,), radians, from x to y; bilinear."""
    box = images.shape[-1]
    axis = torch.from_numpy(centred_axis(box)).to(images)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
    places = torch.stack([cosine * x + sine * y, cosine * y - sine * x], dim=-1)
    grid = (places + box // 2 + 0.5) * (2 / box) - 1
    turned: Tensor = grid_sample(images[:, None], grid, align_corners=False)[:, 0]
    return turned
