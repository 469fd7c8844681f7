"""The particles of `gpu.py`: the paper's synthetic experiment in size, made on a device without any file.

The molecule is the phantom with D2 symmetry, projected in real space, which is not how the program projects; CTFs and
coloured noise are those of `cryogan simulate`. There are no shifts.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryogan.fourier import to_half_planes, to_images
from cryogan.models.phantom import phantom
from cryogan.particles import write_stack, write_star, write_volume
from cryogan.physics.ctf import CtfParameters, ctf
from cryogan.physics.noise import ColouredNoise, background_mask, normalise
from cryogan.physics.projector import project_in_real_space
from cryogan.run.sizes import PARTICLE_FRACTION
from cryogan.simulation.disturbances import Disturbances
from cryogan.simulation.noise import noise_power
from cryogan.simulation.particles import Particles, random_particles
from cryogan.simulation.star_files import write_particle_stars
from million import write_in_pieces

SNR = 0.55  # the paper's
PIECE = 64  # images made at once


def make(folder: Path, box: int, pixel_size: float, count: int, micrographs: int, device: torch.device) -> None:
    """Write particles.mrcs and .star, noise.mrcs and .star, truth.mrc and truth.star, as `simulate` does.

    There is a noise patch for each micrograph.
    """
    folder.mkdir(parents=True)
    particles = random_particles(count, 0.0, micrographs, torch.Generator().manual_seed(0))
    generator, noise = torch.Generator(device).manual_seed(1), ColouredNoise(noise_power(box).to(device), box)
    background = background_mask(box, PARTICLE_FRACTION * box / 2, device)
    volume = phantom(box, pixel_size, 0)
    write_volume(folder / "truth.mrc", volume, pixel_size)
    write_particle_stars(folder, particles, Disturbances(), box, pixel_size, SNR, 1, None)

    def images() -> Iterator[np.ndarray]:
        power = None
        for clean in projections(torch.from_numpy(volume).to(device), particles, pixel_size):
            power = clean[:, ~background].var() if power is None else power
            rows = torch.arange(len(clean), device=device)
            noisy = noise.add((SNR / power).sqrt() * clean, rows, generator)
            yield normalise(noisy, background).cpu().numpy()

    write_in_pieces(folder / "particles.mrcs", images(), (count, box, box), pixel_size)
    names = sorted(set(particles.micrographs))
    patches = normalise(noise.sample(torch.arange(len(names), device=device), generator), background)
    write_stack(folder / "noise.mrcs", patches.cpu().numpy(), pixel_size, np.float16)
    rows = [f"{i + 1:06d}@noise.mrcs" for i in range(len(names))]
    write_star(folder / "noise.star", {"noise": {"rlnImageName": rows, "rlnMicrographName": names}})


def projections(volume: Tensor, particles: Particles, pixel_size: float) -> Iterator[Tensor]:
    """Images (B, D, D) of the particles in turn, with their CTF and without noise, on the volume's device."""
    optics = CtfParameters(**{name: values.to(volume.device) for name, values in vars(particles.optics).items()
                              if values is not None})  # fmt: skip
    for start in range(0, len(particles), PIECE):
        rows = slice(start, start + PIECE)
        flat = project_in_real_space(volume, particles.phi.rotations[rows].to(volume.device))
        yield to_images(to_half_planes(flat) * ctf(optics[rows], len(volume), pixel_size))
