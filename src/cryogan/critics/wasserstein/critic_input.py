"""Preparation of images, real or simulated, for the convolutional critic."""

import torch
from torch import Tensor

from cryogan.config import Settings
from cryogan.fourier import frequencies, to_half_planes, to_images
from cryogan.physics.noise import turn_and_mirror
from cryogan.physics.simulator import Simulator


class CriticInput:
    """CTF correction, smoothing, random turns and mirrors, and normalisation; the same for both streams.

    The correction C / (C^2 + tau) with each image's own CTF C spares the critic the learning of the CTFs, and
    gives the low frequencies, which a small defocus suppresses, their weight. Both streams pass through the
    same operator with the same distribution of C, so distributions that were equal stay equal.

    For a critic of two planes the image's CTF goes with it as the second, its zero frequency at pixel D // 2, turned
    and mirrored alike.

    Args:
        settings: Settings of the run.
        simulator: Simulator, for the particles' CTFs.
        planes: Number of planes of the critic's input, 1 or 2.

    Attributes:
        smoothing: Standard deviation, A, of the Gaussian kernel; the training narrows it.
    """

    def __init__(self, settings: Settings, simulator: Simulator, planes: int) -> None:
        self._tau, self._augment, self._simulator = settings.ctf_correction, settings.augment, simulator
        self._planes = planes
        self.smoothing = settings.smoothing

    def __call__(self, images: Tensor, particles: Tensor, turns: Tensor) -> Tensor:
        """Prepare images for the critic.

        Args:
            images: Images (B, D, D).
            particles: Particles (B,) whose CTFs the images have.
            turns: Turns (B,) for `turn_and_mirror`, if the settings ask for it.

        Returns:
            The critic's input, (B, planes, D, D).
        """
        if self._tau > 0:
            transfer = self._simulator.transfer(particles)
            images = to_images(to_half_planes(images) * transfer / (transfer.square() + self._tau))
        if self.smoothing > 0:
            box, pixel_size = images.shape[-1], self._simulator.pixel_size
            kx, ky = frequencies(box, pixel_size, device=images.device, dtype=images.dtype)
            kernel = torch.exp(-2 * (torch.pi * self.smoothing) ** 2 * (kx.square() + ky.square()))
            images = to_images(to_half_planes(images) * kernel)
        planes = standardise(images)[:, None]
        if self._planes == 2:
            planes = torch.cat([planes, to_plane(self._simulator.transfer(particles))[:, None]], dim=1)
        return turn_and_mirror(planes, turns) if self._augment else planes


def to_plane(half_planes: Tensor) -> Tensor:
    """Return whole planes (B, D, D) of real, even half-planes (B, D, D // 2 + 1), zero frequency at pixel D // 2."""
    box = half_planes.shape[-2]
    column = torch.arange(box, device=half_planes.device) - box // 2
    # A negative kx is found at -k, which for the row of -D / 2 is itself.
    row = torch.where(column[None, :] < 0, -column[:, None], column[:, None]) % box
    return half_planes[:, row, column.abs().expand(box, box)]


def standardise(images: Tensor) -> Tensor:
    """Normalise images (B, D, D) to mean 0 and standard deviation 1 each, as the paper does for both streams."""
    deviation, mean = torch.std_mean(images, dim=(-2, -1), keepdim=True)
    return (images - mean) / deviation
