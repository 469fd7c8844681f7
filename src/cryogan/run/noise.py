"""The noise models that a run can name, and how each is built for one half's particles.

A noise model of your own is one file: derive a class from `cryogan.Noise` whose constructor takes `NoiseInputs`, and
name it with `--noise-model module:Class`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryogan.config import NOISE_MODELS, Settings
from cryogan.errors import InputError
from cryogan.loading import load_named
from cryogan.particles import ParticleImages, ParticleTable
from cryogan.physics.noise import (
    ColouredNoise,
    Noise,
    PatchNoise,
    PoissonNoise,
    WhiteNoise,
    background_mask,
    background_power,
)

MEASURED = 1000  # images from which signal and noise are estimated


@dataclass(frozen=True)
class NoiseInputs:
    """What the noise of one half's images at one stage can be built from.

    Attributes:
        settings: settings of the run.
        images: the half's real particles at the stage's box; its rows are those that the noise is sampled for.
        particle_radius: radius of the circle that holds a particle, A; outside is background.
        device: device on which images are simulated.
    """

    settings: Settings
    images: ParticleImages
    particle_radius: float
    device: torch.device

    def sample_images(self) -> Tensor:
        """Return up to 1,000 of the images, evenly over the set, (B, D, D)."""
        return torch.from_numpy(self.images.batch(self.images.spread(MEASURED))).to(self.device)

    def background(self) -> Tensor:
        """Return which pixels are background, (D, D) of bool."""
        return background_mask(self.images.box, self.particle_radius / self.images.pixel_size, self.device)


def build_noise(name: str, inputs: NoiseInputs) -> Noise:
    """Return the noise model that `--noise-model` names: one of `NOISE_MODELS`, or `module:Class` of your own.

    Raises:
        InputError: there is none of that name, or it is not a noise model.
    """
    build: Callable[[NoiseInputs], Noise] = load_named(name, NOISE_MODELS, "noise model")
    noise = build(inputs)
    if not isinstance(noise, Noise):
        raise InputError(f"{name} is not a noise model. Derive it from cryogan.Noise.")
    return noise


def white(inputs: NoiseInputs) -> Noise:
    """Return Gaussian noise of variance 1 in each pixel."""
    return WhiteNoise(inputs.images.box)


def coloured(inputs: NoiseInputs) -> Noise:
    """Return Gaussian noise with the power spectrum of the images' background."""
    return ColouredNoise(background_power(inputs.sample_images(), inputs.background()), inputs.images.box)


def poisson(inputs: NoiseInputs) -> Noise:
    """Return the counting noise of `--dose` electrons per square A."""
    if inputs.settings.dose is None:
        raise InputError("--noise-model poisson needs --dose.")
    return PoissonNoise(inputs.settings.dose * inputs.images.pixel_size**2, inputs.images.box)


def patch_noise(
    images: ParticleImages, table: ParticleTable, patches: ParticleImages, *, turn: bool, device: torch.device
) -> tuple[Noise, Tensor]:
    """Return the noise of background patches, each lent to particles of its micrograph.

    Args:
        images: the half's real particles.
        table: the file of the patches, for messages.
        patches: patches at the same box.
        turn: turn and mirror patches at random.
        device: device on which images are simulated.

    Returns:
        The noise model, and the rows of `images` that have a patch of their micrograph: only their CTF is simulated.

    Raises:
        InputError: no particle has a patch of its micrograph.
    """
    names = patches.table.micrographs
    covered = np.isin(images.table.micrographs, names)
    if not covered.any():
        raise InputError(f"{table.source}: no patch comes from a micrograph of this half set. Give more patches.")
    pixels = torch.from_numpy(patches.batch(np.arange(len(patches)))).to(device)
    noise = PatchNoise(pixels, names, images.table.micrographs, turn=turn)
    return noise, torch.from_numpy(np.flatnonzero(covered)).to(device)
