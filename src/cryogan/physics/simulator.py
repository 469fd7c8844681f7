"""The cryo-EM physics simulator, Algorithm 2: it draws the imaging parameters and makes images of a volume."""

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
    """The imaging parameters phi of B images."""

    rotations: Tensor  # (B, 3, 3), slice frame to volume frame
    shifts: Tensor  # (B, 2) x, y in A, the sign of _rlnOriginXAngst
    particles: Tensor  # (B,) int64, the particle whose CTF and micrograph are taken
    # (B,) int64 on the CPU, of the noise: images whose seeds follow each other are drawn together. None: from the
    # simulator's generator.
    seeds: Tensor | None = None

    def __len__(self) -> int:
        return len(self.particles)

    def __getitem__(self, rows: slice) -> "Imaging":
        seeds = None if self.seeds is None else self.seeds[rows]
        return Imaging(self.rotations[rows], self.shifts[rows], self.particles[rows], seeds)


class Simulator(nn.Module):
    """y = C S P x + n, equation (1).

    `shift_width` is the half width, A, of the distribution of shifts; `prior_within_reach` the share of images that
    show a particle within `max_shift` of their centre, `prior_whole` the share that does within `whole_radius_A`.
    `centred` says whether each image shows one particle, near its centre.

    Args:
        projector: P.
        optics: the particles' CTF parameters, N rows.
        noise: n; asked for the same particles as the CTF.
        drawable: (M,) int64, the particles whose CTF is drawn; None draws any.
        views: distribution of the view directions; None: uniform.
        pixel_size: A.
        max_shift: A, largest half width of the triangular distribution of shifts, and the width at the start.
        generator: source of every random number; it sits on the device that simulates.
        envelope_at_nyquist, aperture_cutoff: see `ctf`.
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
        drawable: Tensor | None = None,
        views: PoseDistribution | None = None,
    ) -> None:
        super().__init__()
        self.projector, self.optics, self.noise = projector, optics, noise
        self.pixel_size, self.max_shift, self.generator = pixel_size, max_shift, generator
        self.envelope_at_nyquist, self.aperture_cutoff = envelope_at_nyquist, aperture_cutoff
        self.views = views
        # Draws what is needed on the CPU, so that no step waits for a GPU; `generator` itself where that is on the CPU.
        cpu = generator.device.type == "cpu"
        self.host_generator = generator if cpu else torch.Generator().manual_seed(generator.initial_seed())
        self.register_buffer("shift_width", torch.tensor(max_shift, device=generator.device))
        self._drawable = torch.arange(len(optics), device=generator.device) if drawable is None else drawable
        # Learned as logarithms: a scale stays positive and its step is relative.
        self.log_signal = nn.Parameter(torch.zeros((), device=generator.device))
        self.log_noise = nn.Parameter(torch.zeros((), device=generator.device))

    def sample(self, count: int) -> Imaging:
        """phi ~ p(phi): poses, triangular shifts, CTFs of random particles, seeds of the noise."""
        generator, views = self.generator, self.views
        return Imaging(
            uniform_rotations(count, generator) if views is None else views.sample(count, generator),
            triangular_shifts(count, self.shift_width, generator),
            self.sample_particles(count),
            self.sample_seeds(count),
        )

    def sample_seeds(self, count: int) -> Tensor:
        """Seeds of the noise (count,), see `Imaging`.

        The noise itself, which is the most to draw, is drawn in lots, each from a seed of its own: who simulates some
        lots of a batch draws no others.
        """
        first = torch.randint(2**31, (lots(count), 1), generator=self.host_generator)
        return (first + torch.arange(lot_size(count))).flatten()[:count]

    def sample_particles(self, count: int) -> Tensor:
        """Random particles (count,), whose CTF and micrograph are taken."""
        device = self.generator.device
        return self._drawable[torch.randint(len(self._drawable), (count,), generator=self.generator, device=device)]

    def project(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """P x, as half-planes (B, D, D // 2 + 1)."""
        return self.projector.slices(spectrum, phi.rotations)

    def clean(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """C S P x, noiseless images (B, D, D) of the volume's `projector.transform`."""
        half_planes = shift(self.project(spectrum, phi), phi.shifts, self.pixel_size)
        return to_images(half_planes * self.transfer(phi.particles))

    def transfer(self, particles: Tensor) -> Tensor:
        """C, the CTF of the given particles (B,), on half-planes (B, D, D // 2 + 1)."""
        return ctf(
            self.optics[particles],
            self.projector.box,
            self.pixel_size,
            envelope_at_nyquist=self.envelope_at_nyquist,
            aperture_cutoff=self.aperture_cutoff,
        )

    def forward(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """y = C S P x + n with learned scales, images (B, D, D)."""
        scale = self.log_noise.exp()
        clean = self.log_signal.exp() * self.clean(spectrum, phi) / scale
        if phi.seeds is None:
            return scale * self.noise.add(clean, phi.particles, self.generator)
        seeds, generator = phi.seeds.tolist(), torch.Generator(self.generator.device)
        starts = [i for i, seed in enumerate(seeds) if i == 0 or seed != seeds[i - 1] + 1]
        each = [slice(start, stop) for start, stop in pairwise([*starts, len(seeds)])]
        noisy = [self.noise.add(clean[i], phi.particles[i], generator.manual_seed(seeds[i.start])) for i in each]
        return scale * torch.cat(noisy)
