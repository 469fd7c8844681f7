"""Images of simulated particles without noise, and of what stands in their place or beside them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.fourier import to_half_planes, to_images
from cryogan.physics.ctf import ctf
from cryogan.physics.shifts import shift
from cryogan.physics.simulator import Imaging, Simulator
from cryogan.rotations import uniform_rotations
from cryogan.simulation.disturbances import PARTICLE
from cryogan.simulation.particles import Particles, disturbance_generator

BATCH = 256
FRAGMENTS = 8  # different parts of a molecule among the broken particles
AGGREGATE_COPIES = 3
CONTAMINANT_POWER = 4.0  # variance within the particle's circle, over that of the particles' images
SOFT_EDGE = 2.0  # pixels, over which a broken molecule's density falls
FRAME = 3  # boxes a side: a neighbour's image does not come in again at the opposite side


@torch.no_grad()
def clean_images(
    simulator: Simulator, volumes: NDArray[np.float32], phi: Imaging, reaching_out: bool
) -> tuple[Tensor, Tensor]:
    """Project the volumes, in turn, with the particles' poses, shifts and CTF.

    Args:
        simulator: projector and CTF.
        volumes: (K, D, D, D); particle i shows volume i modulo K.
        phi: imaging parameters of N particles.
        reaching_out: whether what the CTF spreads beyond the box is wanted.

    Returns:
        Images (N, D, D), and stamps: (N, 2 D, 2 D) if `reaching_out`, or else the images themselves.
    """
    classes, box = len(volumes), simulator.projector.box
    images = stamps = torch.empty(len(phi), box, box)
    if reaching_out:
        stamps = torch.empty(len(images), 2 * box, 2 * box)
    for k, density in enumerate(volumes):
        spectrum, shown = _spectrum(simulator, density), phi[k::classes]
        parts = [simulator.clean(spectrum, shown[i : i + BATCH]) for i in range(0, len(shown), BATCH)]
        images[k::classes] = torch.cat(parts)
        if reaching_out:
            stamps[k::classes] = wide_images(simulator, spectrum, shown, 2)
    return images, stamps


def _spectrum(simulator: Simulator, density: NDArray[np.float32]) -> Tensor:
    return simulator.projector.transform(torch.from_numpy(np.ascontiguousarray(density, dtype=np.float32)))


@torch.no_grad()
def wide_images(
    simulator: Simulator, spectrum: Tensor, phi: Imaging, boxes: int, places: Tensor | None = None
) -> Tensor:
    """Clean images in a frame of several boxes, so that what the CTF spreads beyond the box is there.

    Args:
        simulator: projector and CTF.
        spectrum: the volume's `projector.transform`.
        phi: imaging parameters of N images.
        boxes: side of the frame in boxes.
        places: (N, 2), x and y in A, by which each molecule is displaced further.

    Returns:
        (N, boxes D, boxes D)
    """
    box, pixel_size = simulator.projector.box, simulator.pixel_size
    parts = []
    for i in range(0, len(phi), BATCH):
        batch = phi[i : i + BATCH]
        centred = to_images(shift(simulator.project(spectrum, batch), batch.shifts, pixel_size))
        wide = to_half_planes(torch.nn.functional.pad(centred, ((boxes - 1) * box // 2,) * 4))
        if places is not None:
            wide = shift(wide, -places[i : i + BATCH], pixel_size)
        parts.append(to_images(wide * ctf(simulator.optics[batch.particles], boxes * box, pixel_size)))
    return torch.cat(parts)


def put_junk(
    stamps: Tensor,
    simulator: Simulator,
    volumes: NDArray[np.float32],
    particles: Particles,
    seed: int,
    power: float,
    radius_A: float,
) -> None:
    """Put junk in the place of particles, by their kind, and neighbours beside them; cut off what leaves the box.

    Args:
        stamps: (N, S, S), clean images, S a multiple of the box, which are changed in place; those of whole particles
            without a neighbour stay.
        simulator: projector and CTF.
        volumes: (K, D, D, D); particle i shows volume i modulo K.
        particles: the ground truth, with kinds and neighbours.
        seed: seed of the simulation.
        power: variance of the clean images within the particle's circle.
        radius_A: radius of the molecule.
    """
    stamps[_rows(particles.kinds == "empty")] = 0
    _put_contaminants(stamps, simulator.projector.box, _rows(particles.kinds == "contaminant"), power, seed)
    junk = _Junk(stamps, simulator, particles, seed)
    for k, density in enumerate(volumes):
        shown = np.arange(len(stamps)) % len(volumes) == k
        junk.put_strays(density, shown)
        junk.put_broken(density, shown)
        junk.put_aggregates(density, shown, radius_A)
        junk.add_neighbours(density, shown)


def _rows(chosen: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.flatnonzero(chosen))


def _put_contaminants(stamps: Tensor, box: int, rows: Tensor, power: float, seed: int) -> None:
    """Put bright Gaussian blobs within a sixth of the box's side from its centre, s.d. a 16th to a sixth of it."""
    if not len(rows):
        return
    side = stamps.shape[-1]
    x, y, size = torch.rand(3, len(stamps), 1, 1, generator=disturbance_generator(seed, "contaminants"))[:, rows]
    axis = (torch.arange(side) - side // 2) / box
    width = 1 / 16 + (1 / 6 - 1 / 16) * size
    squared = (axis - (x - 0.5) / 3).square() + (axis[:, None] - (y - 0.5) / 3).square()
    blobs = torch.exp(-squared / (2 * width.square()))
    circle = (axis.square() + axis[:, None].square()).sqrt() < 0.4375
    stamps[rows] = blobs * (CONTAMINANT_POWER * power / blobs[:, circle].var(1)).sqrt()[:, None, None]


@dataclass(frozen=True)
class _Junk:
    """Images of molecules that do not stand alone and whole in their box, put into stamps (N, S, S).

    Each method takes the density (D, D, D) of a molecule, and the particles (N,) that show it.
    """

    stamps: Tensor
    simulator: Simulator
    particles: Particles
    seed: int

    def put_strays(self, density: NDArray[np.float32], shown: NDArray[np.bool_]) -> None:
        """Replace the images of particles that leave the box, which come in again at its opposite side."""
        rows = _rows(shown & self.particles.strays & (self.particles.kinds == PARTICLE))
        if len(rows):
            self.stamps[rows] = self._cut(_spectrum(self.simulator, density), self.particles.phi, rows)

    def put_broken(self, density: NDArray[np.float32], shown: NDArray[np.bool_]) -> None:
        """Replace the images of broken particles by those of one side of the molecule, in the same pose."""
        generator = disturbance_generator(self.seed, "fragments")
        normals = uniform_rotations(FRAGMENTS, generator)[:, :, 2]
        fragment = torch.randint(FRAGMENTS, (len(self.stamps),), generator=generator).numpy()
        axis = torch.arange(len(density)) - len(density) // 2
        for k, normal in enumerate(normals):
            rows = _rows(shown & (self.particles.kinds == "broken") & (fragment == k))
            if len(rows):
                height = normal[2] * axis[:, None, None] + normal[1] * axis[:, None] + normal[0] * axis
                part = density * (0.5 + height / SOFT_EDGE).clamp(0, 1).numpy()
                self.stamps[rows] = self._cut(_spectrum(self.simulator, part), self.particles.phi, rows)

    def put_aggregates(self, density: NDArray[np.float32], shown: NDArray[np.bool_], radius_A: float) -> None:
        """Replace the images of aggregates by sums of molecules in random poses, within a radius from the place."""
        generator, count = disturbance_generator(self.seed, "aggregates"), len(self.stamps)
        rows = _rows(shown & (self.particles.kinds == "aggregate"))
        if not len(rows):
            return
        spectrum = _spectrum(self.simulator, density)
        total = torch.zeros(len(rows), *self.stamps.shape[1:])
        for _ in range(AGGREGATE_COPIES):
            rotations, (area, angle) = uniform_rotations(count, generator), torch.rand(2, count, generator=generator)
            turns = 2 * torch.pi * angle
            places = radius_A * area.sqrt()[:, None] * torch.stack([turns.cos(), turns.sin()], dim=1)
            total += self._cut(spectrum, self._moved(rotations, places), rows)
        self.stamps[rows] = total

    def add_neighbours(self, density: NDArray[np.float32], shown: NDArray[np.bool_]) -> None:
        """Add the neighbours' images, in random poses."""
        neighbours = self.particles.neighbours
        rotations = uniform_rotations(len(self.stamps), disturbance_generator(self.seed, "neighbours' poses"))
        rows = _rows(shown & ~torch.isnan(neighbours[:, 0]).numpy())
        if len(rows):
            phi = self._moved(rotations, neighbours)
            self.stamps[rows] += self._cut(_spectrum(self.simulator, density), phi, rows)

    def _moved(self, rotations: Tensor, places: Tensor) -> Imaging:
        """Imaging parameters of molecules in other poses, at places (N, 2), x and y in A, from the particles'."""
        phi = self.particles.phi
        return replace(phi, rotations=rotations, shifts=phi.shifts - places)

    def _cut(self, spectrum: Tensor, phi: Imaging, rows: Tensor) -> Tensor:
        """Clean images (M, S, S) of some rows, cut from a frame in which no shifted molecule reaches the border."""
        side, shifts = self.stamps.shape[-1], phi.shifts[rows]
        still = Imaging(phi.rotations[rows], torch.zeros_like(shifts), phi.particles[rows])
        frame = wide_images(self.simulator, spectrum, still, FRAME, -shifts)
        start = frame.shape[-1] // 2 - side // 2
        return frame[:, start : start + side, start : start + side]


def ramp_images(ramps: Tensor, box: int) -> Tensor:
    """Linear ramps (N, D, D) of ramps (N, 2): their value D / 2 pixels from the centre along x and y."""
    axis = (torch.arange(box) - box // 2) / (box / 2)
    return ramps[:, 0, None, None] * axis + ramps[:, 1, None, None] * axis[:, None]
