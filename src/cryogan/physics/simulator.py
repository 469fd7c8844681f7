"""The cryo-EM physics simulator, Algorithm 2: samples imaging parameters and simulates images of a volume."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from cryogan.fourier import to_images
from cryogan.parallel.ranks import lot_size, lots
from cryogan.physics.ctf import CtfParameters, ctf
from cryogan.physics.noise import Noise
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.projector import FourierProjector
from cryogan.physics.shifts import shift, triangular_shifts
from cryogan.rotations import uniform_rotations


@dataclass(frozen=True)
class Imaging:
    """Imaging parameters phi of B images.

    Attributes:
        rotations: (B, 3, 3), slice frame to volume frame.
        shifts: (B, 2) x, y in A, with the sign of `_rlnOriginXAngst`.
        particles: (B,) int64, the particle whose CTF and micrograph are used.
        seeds: (B,) int64 on the CPU, of the noise: that of images with consecutive seeds is drawn at once, from the
            first of the seeds. None: it is drawn from the simulator's generator.
    """

    rotations: Tensor
    shifts: Tensor
    particles: Tensor
    seeds: Tensor | None = None

    def __len__(self) -> int:
        """Number B of images."""
        return len(self.particles)

    def __getitem__(self, rows: slice) -> "Imaging":
        """Parameters of some of the images."""
        seeds = None if self.seeds is None else self.seeds[rows]
        return Imaging(self.rotations[rows], self.shifts[rows], self.particles[rows], seeds)


class Simulator(nn.Module):
    """Simulator of equation (1), y = C S P x + n.

    Args:
        projector: P.
        optics: CTF parameters of N particles.
        noise: n, sampled for the particles whose CTF is used.
        pixel_size: A.
        max_shift: largest half width, A, of the triangular distribution of shifts, and the width at the start.
        generator: source of every random number, on the device that simulates.
        envelope_at_nyquist: see `ctf`.
        aperture_cutoff: see `ctf`.
        ctf_rows: (M,) int64, the particles whose CTFs are sampled; None: all.
        views: distribution of the orientations; None: uniform.

    Attributes:
        shift_width: half width, A, of the distribution of shifts.
        prior_within_reach: share of the images that show a particle within `max_shift` of their centre.
        prior_whole: share of the images that show a particle within `whole_radius_A` of their centre.
        whole_radius_A: largest shift at which the whole particle is in the image.
        centred: whether each image shows one particle, near its centre.
        log_signal: logarithm of the signal's learned scale.
        log_noise: logarithm of the noise's learned scale.
    """

    shift_width: Tensor
    centred = True
    prior_within_reach = prior_whole = 1.0
    whole_radius_A = math.inf

    def __init__(
        self,
        projector: FourierProjector,
        optics: CtfParameters,
        noise: Noise,
        *,
        pixel_size: float,
        max_shift: float,
        generator: torch.Generator,
        envelope_at_nyquist: float = 1.0,
        aperture_cutoff: float = float("inf"),
        ctf_rows: Tensor | None = None,
        views: PoseDistribution | None = None,
    ) -> None:
        super().__init__()
        self.projector, self.optics, self.noise = projector, optics, noise
        self.pixel_size, self.max_shift, self.generator = pixel_size, max_shift, generator
        self.envelope_at_nyquist, self.aperture_cutoff = envelope_at_nyquist, aperture_cutoff
        self.views = views
        # For random numbers that are needed on the CPU, so that no step waits for a GPU.
        cpu = generator.device.type == "cpu"
        self.host_generator = generator if cpu else torch.Generator().manual_seed(generator.initial_seed())
        self.register_buffer("shift_width", torch.tensor(max_shift, device=generator.device))
        self._ctf_rows = torch.arange(len(optics), device=generator.device) if ctf_rows is None else ctf_rows
        # Learned as logarithms: a scale stays positive and its step is relative.
        self.log_signal = nn.Parameter(torch.zeros((), device=generator.device))
        self.log_noise = nn.Parameter(torch.zeros((), device=generator.device))

    def sample(self, count: int) -> Imaging:
        """Sample phi ~ p(phi): orientations, triangular shifts, CTFs of random particles, seeds of the noise."""
        generator, views = self.generator, self.views
        return Imaging(
            uniform_rotations(count, generator) if views is None else views.sample(count, generator),
            triangular_shifts(count, self.shift_width, generator),
            self.sample_particles(count),
            self.sample_seeds(count),
        )

    def sample_seeds(self, count: int) -> Tensor:
        """Sample seeds of the noise (count,), see `Imaging`.

        A batch's noise is drawn in lots, each with a seed of its own, so that of several processes each draws only the
        noise of the images that it simulates.
        """
        first = torch.randint(2**31, (lots(count), 1), generator=self.host_generator)
        return (first + torch.arange(lot_size(count))).flatten()[:count]

    def sample_particles(self, count: int) -> Tensor:
        """Sample particles (count,), int64, whose CTF and micrograph are used."""
        device = self.generator.device
        return self._ctf_rows[torch.randint(len(self._ctf_rows), (count,), generator=self.generator, device=device)]

    def project(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """Project: P x.

        Args:
            spectrum: the volume's `projector.transform`.
            phi: imaging parameters of B images.

        Returns:
            Half-planes (B, D, D // 2 + 1).
        """
        return self.projector.slices(spectrum, phi.rotations)

    def clean(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """Simulate noiseless images (B, D, D), C S P x, equation (2); arguments as for `project`."""
        half_planes = shift(self.project(spectrum, phi), phi.shifts, self.pixel_size)
        return to_images(half_planes * self.transfer(phi.particles))

    def transfer(self, particles: Tensor) -> Tensor:
        """Compute C, the CTFs of the given particles (B,), on half-planes (B, D, D // 2 + 1)."""
        return ctf(
            self.optics[particles],
            self.projector.box,
            self.pixel_size,
            envelope_at_nyquist=self.envelope_at_nyquist,
            aperture_cutoff=self.aperture_cutoff,
        )

    def forward(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """Simulate images (B, D, D), C S P x + n, with the learned scales of signal and noise."""
        scale = self.log_noise.exp()
        clean = self.log_signal.exp() * self.clean(spectrum, phi) / scale
        if phi.seeds is None:
            return scale * self.noise.add(clean, phi.particles, self.generator)
        seeds = phi.seeds.tolist()
        starts = [i for i, seed in enumerate(seeds) if i == 0 or seed != seeds[i - 1] + 1]
        lots = [(slice(start, stop), seeds[start]) for start, stop in pairwise([*starts, len(seeds)])]
        return scale * self.noise.add_in_lots(clean, phi.particles, lots)
