"""Unpicked patches, cut anywhere from micrographs: no particle, one or several, whole or cut by the edge."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from cryogan.fourier import to_half_planes, to_images
from cryogan.physics.ctf import ctf
from cryogan.physics.shifts import shift
from cryogan.physics.simulator import Imaging, Simulator
from cryogan.rotations import uniform_rotations

BEYOND = 1 / 16  # of the box: how far beyond `whole_radius_A` particles are searched


@dataclass(frozen=True, kw_only=True)
class Unpicked(Imaging):
    """Imaging parameters of B patches with T particles in and around them.

    Attributes:
        rotations: (T, 3, 3), of the particles.
        shifts: (T, 2), of the particles.
        particles: (B,) int64, the row of the optics whose CTF and micrograph each patch has.
        seeds: (B,), of the noise.
        patch: (T,) int64, the patch of each particle.
    """

    patch: Tensor

    def __getitem__(self, rows: slice) -> "Unpicked":
        """Parameters of some of the patches and their particles."""
        start, stop, _ = rows.indices(len(self))
        inside = (self.patch >= start) & (self.patch < stop)
        seeds = None if self.seeds is None else self.seeds[rows]
        patch = self.patch[inside] - start
        return Unpicked(self.rotations[inside], self.shifts[inside], self.particles[rows], seeds, patch=patch)


def search_radii(width_A: float, radius_A: float) -> tuple[float, float]:
    """Largest shift, A, at which a particle is whole in a patch, and the largest that frequency marching searches."""
    whole_radius_A = width_A / 2 - radius_A
    return whole_radius_A, whole_radius_A + BEYOND * width_A


class UnpickedSimulator(Simulator):
    """Simulator of patches, y = C sum_i S_i P_i x + n over K particles, K Poisson distributed.

    The particles' places are uniform over the patch and a margin of the particle's radius, so that some are cut by the
    edge. Patches are simulated on twice the box and cropped: nothing leaves on one side to come back on the other.

    Args:
        args: projector, optics (a row for each patch) and noise, as for `Simulator`.
        density: particles per square A.
        radius_A: radius of a particle, at most half of the box.
        more: as for `Simulator`. Particles are whole up to `whole_radius_A`; `max_shift` is somewhat beyond, so that
            one that the edge cuts need not be taken for a whole one at the last shift.
    """

    centred = False

    def __init__(self, *args: Any, density: float, radius_A: float, **more: Any) -> None:
        super().__init__(*args, max_shift=0.0, **more)
        width = self.projector.box * self.pixel_size
        self.whole_radius_A, self.max_shift = search_radii(width, radius_A)
        self.prior_within_reach, self.prior_whole = (
            1 - math.exp(-density * math.pi * r**2) for r in (self.max_shift, self.whole_radius_A)
        )
        self._reach = width / 2 + radius_A
        self._mean = density * (2 * self._reach) ** 2

    def sample(self, count: int) -> Unpicked:
        """Sample the number of particles in each patch, their orientations and places, and CTFs of random patches."""
        generator, device = self.generator, self.generator.device
        numbers = torch.poisson(torch.full((count,), self._mean, device=device), generator=generator).long()
        patch = torch.repeat_interleave(torch.arange(count, device=device), numbers)
        return Unpicked(
            uniform_rotations(len(patch), generator),
            (2 * torch.rand(len(patch), 2, generator=generator, device=device) - 1) * self._reach,
            self.sample_particles(count),
            self.sample_seeds(count),
            patch=patch,
        )

    def project(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """Project the particles of each patch, sum_i S_i P_i x, to half-planes (B, D, D // 2 + 1)."""
        return to_half_planes(self._crop(to_images(self._scenes(spectrum, phi))))

    def clean(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """Simulate noiseless patches (B, D, D), C sum_i S_i P_i x."""
        transfer = ctf(
            self.optics[phi.particles],
            2 * self.projector.box,
            self.pixel_size,
            envelope_at_nyquist=self.envelope_at_nyquist,
            aperture_cutoff=self.aperture_cutoff,
        )
        return self._crop(to_images(self._scenes(spectrum, phi) * transfer))

    def _scenes(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """Project on twice the box, to half-planes (B, 2 D, D + 1)."""
        assert isinstance(phi, Unpicked)
        box = self.projector.box
        empty = torch.zeros(len(phi), 2 * box, box + 1, dtype=torch.complex64, device=spectrum.device)
        if not len(phi.patch):
            return empty
        projections = to_half_planes(pad(to_images(super().project(spectrum, phi)), (box // 2,) * 4))
        return empty.index_add(0, phi.patch, shift(projections, phi.shifts, self.pixel_size))

    def _crop(self, scenes: Tensor) -> Tensor:
        """Crop scenes (B, 2 D, 2 D) to patches (B, D, D)."""
        box = self.projector.box
        inside = slice(box // 2, box // 2 + box)
        return scenes[:, inside, inside]
