"""What is known of simulated particles: poses, CTF, micrographs, and how each of them is disturbed."""

from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.errors import InputError
from cryogan.particles import StarTable, read_star
from cryogan.physics.ctf import CtfParameters
from cryogan.physics.shifts import triangular_shifts
from cryogan.physics.simulator import Imaging
from cryogan.rotations import euler_to_rotations, uniform_rotations
from cryogan.simulation.disturbances import PARTICLE, Disturbances

VOLTAGE, ABERRATION, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.07
DEFOCUS_RANGE = (8000.0, 18000.0)  # A
ASTIGMATISM = 300.0  # A, the largest half difference of defocus U and V
NEIGHBOUR_RANGE = 1.25  # the farthest neighbour's distance over the nearest's


@dataclass(frozen=True)
class Particles:
    """The ground truth of N simulated particles.

    Attributes:
        phi: poses and shifts that the images were made with.
        optics: CTF that the images were made with.
        micrographs: N names.
        stated_optics: CTF that particles.star states.
        kinds: (N,) "particle" or one of `JUNK_KINDS`.
        snr_factors: (N,) SNR over that asked for.
        ramps: (N, 2) ramp at the box's edge in x and y, s.d. of the noise.
        neighbours: (N, 2) a neighbour's place less the particle's, x and y in A; NaN where there is none.
        strays: (N,) whether miscentring put a part of the particle outside of the box.
    """

    phi: Imaging
    optics: CtfParameters
    micrographs: list[str]
    stated_optics: CtfParameters
    kinds: NDArray[np.str_]
    snr_factors: Tensor
    ramps: Tensor
    neighbours: Tensor
    strays: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of particles N."""
        return len(self.phi)


def disturbance_generator(seed: int, name: str) -> torch.Generator:
    """A random generator of one disturbance, which follows from the seed and the disturbance's name alone."""
    sequence = np.random.SeedSequence(seed, spawn_key=(crc32(name.encode()),))
    return torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))


def random_particles(count: int, max_shift: float, micrographs: int, generator: torch.Generator) -> Particles:
    """Draw uniform poses, triangular shifts, and a CTF for each micrograph.

    Args:
        count: number of particles N.
        max_shift: half width of the shifts' distribution, A.
        micrographs: number of micrographs, over which the particles are spread in order; at most N are made.
        generator: source of the random numbers.
    """
    micrographs = min(micrographs, count)
    low, high = DEFOCUS_RANGE
    mean, split, angle = torch.rand(3, micrographs, generator=generator)
    mean, split = low + (high - low) * mean, ASTIGMATISM * split
    micrograph = torch.arange(count) * micrographs // count
    ones = torch.ones(count)
    optics = CtfParameters(
        defocus_u=(mean + split)[micrograph],
        defocus_v=(mean - split)[micrograph],
        defocus_angle=(180.0 * angle - 90.0)[micrograph],
        voltage=VOLTAGE * ones,
        spherical_aberration=ABERRATION * ones,
        amplitude_contrast=AMPLITUDE_CONTRAST * ones,
        phase_shift=0.0 * ones,
        b_factor=0.0 * ones,
        scale=ones,
    )
    rotations, shifts = uniform_rotations(count, generator), triangular_shifts(count, max_shift, generator)
    phi = Imaging(rotations, shifts, torch.arange(count))
    return _undisturbed(phi, optics, [f"micrograph_{i:04d}.mrc" for i in micrograph.tolist()])


def particles_from_star(path: Path, count: int) -> Particles:
    """Read poses, shifts and CTF of the first `count` rows of a STAR file.

    Raises:
        InputError: the file cannot be read or lacks poses or CTF.
    """
    blocks = read_star(path)
    with_poses = [block for block in blocks.values() if "rlnAngleRot" in block]
    if not with_poses:
        raise InputError(f"{path} has no _rlnAngleRot. Give a STAR with poses.")
    table, optics = with_poses[0], blocks.get("optics")
    rows = min(count, len(table))

    def column(name: str, default: float | None = None) -> NDArray[np.float64]:
        return _column(path, table, optics, name, default)[:rows]

    columns = {
        "defocus_u": column("rlnDefocusU"),
        "defocus_v": column("rlnDefocusV"),
        "defocus_angle": column("rlnDefocusAngle"),
        "voltage": column("rlnVoltage"),
        "spherical_aberration": column("rlnSphericalAberration"),
        "amplitude_contrast": column("rlnAmplitudeContrast"),
        "phase_shift": column("rlnPhaseShift", 0.0),
        "b_factor": column("rlnCtfBfactor", 0.0),
        "scale": column("rlnCtfScalefactor", 1.0),
    }
    rotations = euler_to_rotations(*(column(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")))
    shifts = np.stack([column("rlnOriginXAngst", 0.0), column("rlnOriginYAngst", 0.0)], axis=1)
    names = table.texts("rlnMicrographName")[:rows] if "rlnMicrographName" in table else ["unknown"] * rows
    return _undisturbed(
        Imaging(rotations.float(), torch.from_numpy(shifts).float(), torch.arange(rows)),
        CtfParameters.from_columns(columns, device=torch.device("cpu")),
        names,
    )


def _column(
    path: Path, table: StarTable, optics: StarTable | None, name: str, default: float | None
) -> NDArray[np.float64]:
    """A column of the particles, or of their optics groups."""
    if name in table:
        return table.floats(name)
    if optics is not None and name in optics:
        groups = dict(zip(optics.floats("rlnOpticsGroup"), optics.floats(name), strict=True))
        return np.array([groups[group] for group in table.floats("rlnOpticsGroup")])
    if default is None:
        raise InputError(f"{path} has no _{name}; it needs poses, shifts and CTF.")
    return np.full(len(table), default)


def _undisturbed(phi: Imaging, optics: CtfParameters, micrographs: list[str]) -> Particles:
    count = len(phi)
    return Particles(
        phi,
        optics,
        micrographs,
        stated_optics=optics,
        kinds=np.full(count, PARTICLE, dtype="U11"),
        snr_factors=torch.ones(count),
        ramps=torch.zeros(count, 2),
        neighbours=torch.full((count, 2), torch.nan),
        strays=np.zeros(count, dtype=np.bool_),
    )


def disturb(particles: Particles, disturbances: Disturbances, seed: int, radius_A: float, side_A: float) -> Particles:
    """Draw what is disturbed in each particle.

    Args:
        particles: undisturbed ones.
        disturbances: which are on, and how strong.
        seed: seed of the simulation; each disturbance has a generator of its own.
        radius_A: radius of the molecule.
        side_A: side of the box.
    """
    d, count = disturbances, len(particles)
    _, micrograph = np.unique(particles.micrographs, return_inverse=True)
    phi, optics, stated, strays = particles.phi, particles.optics, particles.optics, particles.strays
    if d.preferred_views:
        views = preferred_rotations(count, d.preferred_views, disturbance_generator(seed, "preferred_views"))
        phi = replace(phi, rotations=views)
    if d.miscentring:
        further = student_shifts(count, d.miscentring, disturbance_generator(seed, "miscentring"))
        phi = replace(phi, shifts=phi.shifts + further.clamp(-side_A / 4, side_A / 4))
        strays = (phi.shifts.abs().amax(1) + radius_A > side_A / 2).numpy()
    if d.b_factor:
        optics = replace(optics, b_factor=optics.b_factor + d.b_factor)
    if d.defocus_error:
        error = d.defocus_error * torch.randn(count, generator=disturbance_generator(seed, "defocus_error"))
        stated = replace(stated, defocus_u=stated.defocus_u + error, defocus_v=stated.defocus_v + error)
    logarithms = torch.randn(micrograph.max() + 1, generator=disturbance_generator(seed, "snr_spread"))[micrograph]
    angles = torch.rand(micrograph.max() + 1, generator=disturbance_generator(seed, "ice_gradient"))[micrograph]
    return replace(
        particles,
        phi=phi,
        optics=optics,
        stated_optics=stated,
        kinds=_kinds(count, d, seed),
        snr_factors=(d.snr_spread * logarithms).exp(),
        ramps=d.ice_gradient * _on_circle(angles),
        neighbours=_neighbours(count, d.neighbours, radius_A, disturbance_generator(seed, "neighbours")),
        strays=strays,
    )


def preferred_rotations(count: int, kappa: float, generator: torch.Generator) -> Tensor:
    """Rotations (count, 3, 3) whose beam direction R (0, 0, 1) has the density exp(kappa z) on the sphere.

    The distribution of von Mises and Fisher about z; z is drawn by inverting its cumulative distribution.
    """
    u, rot, psi = torch.rand(3, count, generator=generator, dtype=torch.float64)
    z = 1 + torch.log(u + (1 - u) * np.exp(-2 * kappa)) / kappa
    tilt = torch.rad2deg(torch.acos(z.clamp(-1, 1)))
    return euler_to_rotations((360 * rot).numpy(), tilt.numpy(), (360 * psi).numpy()).float()


def student_shifts(count: int, scale_A: float, generator: torch.Generator) -> Tensor:
    """Shifts (count, 2) in A: Student's t with two degrees of freedom times `scale_A`, x and y independent.

    P(|t| < s) = s / sqrt(2 + s^2), inverted. One in a hundred is beyond 9.9 `scale_A`.
    """
    p = 2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1
    return (scale_A * p * (2 / (1 - p.square())).sqrt()).float()


def _kinds(count: int, disturbances: Disturbances, seed: int) -> NDArray[np.str_]:
    """Draw the kind of each particle; of each kind as many as its share, rounded."""
    kinds = np.full(count, PARTICLE, dtype="U11")
    for kind, share in disturbances.junk.items():
        order = torch.randperm(count, generator=disturbance_generator(seed, f"junk_{kind}")).numpy()
        kinds[order[kinds[order] == PARTICLE][: round(share * count)]] = kind
    return kinds


def _neighbours(count: int, share: float, radius_A: float, generator: torch.Generator) -> Tensor:
    """Draw the places of neighbours (N, 2), uniform over a ring around the particle; NaN: no neighbour."""
    chosen = torch.randperm(count, generator=generator)[: round(share * count)]
    area, angle = torch.rand(2, count, generator=generator)
    distance = 2 * radius_A * (1 + (NEIGHBOUR_RANGE**2 - 1) * area).sqrt()
    places = torch.full((count, 2), torch.nan)
    places[chosen] = (distance[:, None] * _on_circle(angle))[chosen]
    return places


def _on_circle(turns: Tensor) -> Tensor:
    """Unit vectors (N, 2) at angles (N,) in full turns from x."""
    return torch.stack([torch.cos(2 * torch.pi * turns), torch.sin(2 * torch.pi * turns)], dim=1)
