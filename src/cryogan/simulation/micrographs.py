"""Simulated micrographs, and the boxes of their particles."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.particles import write_stack, write_star
from cryogan.physics.noise import ColouredNoise, Noise, WhiteNoise
from cryogan.simulation.noise import noise_power
from cryogan.simulation.particles import Particles
from cryogan.simulation.star_files import Columns, defocus_columns, optics_columns


def place_in_micrographs(
    out: Path,
    stamps: Tensor,
    box: int,
    particles: Particles,
    pixel_size: float,
    noise: str,
    particles_per_um2: float | None,
    generator: torch.Generator,
) -> tuple[Tensor, NDArray[np.float64]]:
    """Write a micrograph for each name, with its particles in noise, and micrographs.star.

    Args:
        out: folder.
        stamps: (N, S, S), clean images in units of the noise's s.d.
        box: D, pixels.
        particles: the ground truth.
        pixel_size: A.
        noise: "white" or "coloured".
        particles_per_um2: density of particles, which then stand anywhere; None: side by side, in half of the places.
        generator: source of places and noise.

    Returns:
        The boxes (N, D, D) around the particles, and their places (N, 2), x and y in pixels.
    """
    half, names = stamps.shape[-1] // 2, np.array(particles.micrographs)
    cut, coordinates = torch.empty(len(stamps), box, box), np.empty((len(stamps), 2))
    order, first = np.unique(names, return_index=True)
    for name in order:
        rows = np.flatnonzero(names == name)
        side, centres = _places(len(rows), box, half, pixel_size, particles_per_um2, generator)
        model: Noise = WhiteNoise(side) if noise == "white" else ColouredNoise(noise_power(side), side)
        micrograph = model.sample(torch.zeros(1, dtype=torch.int64), generator)[0]
        for row, centre in zip(rows, centres, strict=True):
            micrograph[_window(centre, half, side)] += stamps[row]
        for row, centre in zip(rows, centres, strict=True):
            cut[row] = micrograph[_window(centre, box // 2, side)]
            coordinates[row] = centre.flip(0)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_stack(out / name, micrograph[None].numpy(), pixel_size, np.float32)
    optics = particles.optics[torch.from_numpy(first)]
    micrographs: Columns = {"rlnMicrographName": order.tolist(), "rlnOpticsGroup": [1] * len(order)}
    blocks = {
        "optics": optics_columns(optics) | {"rlnMicrographPixelSize": [pixel_size]},
        "micrographs": micrographs | defocus_columns(optics),
    }
    write_star(out / "micrographs.star", blocks)
    return cut, coordinates


def _places(
    count: int, box: int, half: int, pixel_size: float, particles_per_um2: float | None, generator: torch.Generator
) -> tuple[int, Tensor]:
    """Side of a micrograph in pixels, and the particles' centres (count, 2), y and x."""
    if particles_per_um2 is None:
        side = box * int(np.ceil(np.sqrt(2 * count)))
        places = torch.randperm((side // box) ** 2, generator=generator)[:count]
        return side, box * torch.stack([places // (side // box), places % (side // box)], dim=1) + box // 2
    side = 2 * max(half, round(np.sqrt(count / particles_per_um2) * 1e4 / pixel_size / 2))
    return side, torch.randint(side, (count, 2), generator=generator)


def _window(centre: Tensor, half: int, side: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of a square about a place; a micrograph goes on at its opposite side."""
    y, x = (centre[:, None] + torch.arange(-half, half)) % side
    return y[:, None], x[None, :]
