"""The cryo-EM physics simulator, Algorithm 2: it draws the imaging parameters and makes images of a volume."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cryogan.physics.ctf import CtfParameters, ctf
from cryogan.physics.fourier import to_images
from cryogan.physics.noise import Noise
from cryogan.physics.poses import uniform_rotations
from cryogan.physics.projector import FourierProjector
from cryogan.physics.shifts import shift, triangular_shifts


@dataclass(frozen=True)
class Imaging:
    """The imaging parameters phi of B images."""

    rotations: Tensor  # (B, 3, 3), slice frame to volume frame
    shifts: Tensor  # (B, 2) x, y in A, the sign of _rlnOriginXAngst
    particles: Tensor  # (B,) int64, the particle whose CTF and micrograph are taken

    def __len__(self) -> int:
        return len(self.particles)

    def __getitem__(self, rows: slice) -> "Imaging":
        return Imaging(self.rotations[rows], self.shifts[rows], self.particles[rows])


class Simulator(nn.Module):
    """y = C S P x + n, equation (1).

    Args:
        projector: P.
        optics: the particles' CTF parameters, N rows.
        noise: n; asked for the same particles as the CTF.
        pixel_size: A.
        max_shift: A, half width of the triangular distribution of shifts.
        generator: source of every random number; it sits on the device that simulates.
        envelope_at_nyquist, aperture_cutoff: see `ctf`.
        region: (D, D) bool, the pixels of each noisy image that get mean 0 and s.d. 1, as preprocessing did to
            the particles; None leaves the images as they are.
    """

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
        region: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.projector, self.optics, self.noise = projector, optics, noise
        self.pixel_size, self.max_shift, self.generator = pixel_size, max_shift, generator
        self.envelope_at_nyquist, self.aperture_cutoff = envelope_at_nyquist, aperture_cutoff
        self.region = region
        # Learned as logarithms: a scale stays positive and its step is relative.
        self.log_signal = nn.Parameter(torch.zeros((), device=generator.device))
        self.log_noise = nn.Parameter(torch.zeros((), device=generator.device))

    def draw(self, count: int) -> Imaging:
        """phi ~ p(phi): uniform poses, triangular shifts, CTFs of random particles."""
        generator = self.generator
        return Imaging(
            uniform_rotations(count, generator),
            triangular_shifts(count, self.max_shift, generator),
            torch.randint(len(self.optics), (count,), generator=generator, device=generator.device),
        )

    def project(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """P x, as half-planes (B, D, D // 2 + 1)."""
        return self.projector.slices(spectrum, phi.rotations)

    def clean(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """C S P x, noiseless images (B, D, D) of the volume's `projector.transform`."""
        half_planes = shift(self.project(spectrum, phi), phi.shifts, self.pixel_size)
        transfer = ctf(
            self.optics[phi.particles],
            self.projector.box,
            self.pixel_size,
            envelope_at_nyquist=self.envelope_at_nyquist,
            aperture_cutoff=self.aperture_cutoff,
        )
        return to_images(half_planes * transfer)

    def forward(self, spectrum: Tensor, phi: Imaging) -> Tensor:
        """y = C S P x + n with learned scales, images (B, D, D)."""
        noise = self.noise.sample(phi.particles, self.generator)
        images = self.log_signal.exp() * self.clean(spectrum, phi) + self.log_noise.exp() * noise
        return normalise(images, self.region)


def background_mask(box: int, radius: float, device: torch.device) -> Tensor:
    """(D, D) bool: the pixels farther than `radius` pixels from the centre pixel D // 2."""
    axis = torch.arange(box, device=device) - box // 2
    return axis[:, None].square() + axis.square() > radius**2


def normalise(images: Tensor, region: Tensor | None) -> Tensor:
    """Images (B, D, D) with mean 0 and s.d. 1 over the pixels of `region`; None leaves them as they are."""
    if region is None:
        return images
    weight = region.to(images.dtype) / region.sum()
    mean = (images * weight).sum((-2, -1), keepdim=True)
    variance = ((images - mean).square() * weight).sum((-2, -1), keepdim=True)
    return (images - mean) / variance.sqrt()
