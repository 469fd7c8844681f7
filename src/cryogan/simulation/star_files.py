"""The STAR files of simulated particles: what a reconstruction may know, and the truth."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryogan.particles import write_star
from cryogan.physics.ctf import CtfParameters
from cryogan.rotations import rotations_to_euler
from cryogan.simulation.disturbances import Disturbances
from cryogan.simulation.particles import Particles

Columns = dict[str, list[object]]


def optics_columns(optics: CtfParameters) -> Columns:
    """An optics table of one group, with the constants of the first particle."""
    return {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": [float(optics.voltage[0])],
        "rlnSphericalAberration": [float(optics.spherical_aberration[0])],
        "rlnAmplitudeContrast": [float(optics.amplitude_contrast[0])],
    }


def defocus_columns(optics: CtfParameters) -> Columns:
    """The defocus of each row."""
    return {
        "rlnDefocusU": optics.defocus_u.tolist(),
        "rlnDefocusV": optics.defocus_v.tolist(),
        "rlnDefocusAngle": optics.defocus_angle.tolist(),
    }


def write_particle_stars(
    out: Path,
    particles: Particles,
    disturbances: Disturbances,
    box: int,
    pixel_size: float,
    snr: float,
    classes: int,
    coordinates: NDArray[np.float64] | None,
) -> None:
    """Write particles.star, and truth.star with poses, shifts, classes and all that was disturbed.

    Args:
        out: folder.
        particles: the ground truth.
        disturbances: the columns of those that are on are written.
        box: D, pixels.
        pixel_size: A.
        snr: median over the micrographs.
        classes: number of volumes.
        coordinates: (N, 2), x and y in pixels of the micrographs; None where there are no micrographs.
    """
    size: Columns = {"rlnImagePixelSize": [pixel_size], "rlnImageSize": [box], "rlnImageDimensionality": [2]}
    optics = optics_columns(particles.optics) | size
    rows = range(1, len(particles) + 1)
    names: Columns = {"rlnImageName": [f"{i:06d}@particles.mrcs" for i in rows]}
    placed: Columns = {}
    if coordinates is not None:
        placed["rlnCoordinateX"], placed["rlnCoordinateY"] = coordinates.T.tolist()
    groups: Columns = {"rlnMicrographName": list(particles.micrographs), "rlnOpticsGroup": [1] * len(particles)}
    stated = names | placed | defocus_columns(particles.stated_optics) | groups
    write_star(out / "particles.star", {"optics": optics, "particles": stated})
    if classes > 1:
        names["rlnClassNumber"] = [i % classes + 1 for i in range(len(particles))]
    truth = names | _poses(particles) | placed | defocus_columns(particles.optics) | groups
    disturbed = _disturbance_columns(particles, disturbances, snr)
    write_star(out / "truth.star", {"optics": optics, "particles": truth | disturbed})


def _poses(particles: Particles) -> Columns:
    angles = rotations_to_euler(particles.phi.rotations)
    columns: Columns = {f"rlnAngle{name}": angles[:, i].tolist() for i, name in enumerate(("Rot", "Tilt", "Psi"))}
    columns["rlnOriginXAngst"] = particles.phi.shifts[:, 0].tolist()
    columns["rlnOriginYAngst"] = particles.phi.shifts[:, 1].tolist()
    return columns


def _disturbance_columns(particles: Particles, disturbances: Disturbances, snr: float) -> Columns:
    """Columns of truth.star: the kind of each particle, and the truth of the disturbances that are on."""
    d, columns = disturbances, Columns()
    if d.any:
        columns["cryoganParticleKind"] = particles.kinds.tolist()
    if d.neighbours:
        # From the image's centre, as the particle stands at minus its shift; 0 0 where there is none.
        places = torch.nan_to_num(particles.neighbours - particles.phi.shifts)
        columns["cryoganNeighbourXAngst"], columns["cryoganNeighbourYAngst"] = places.T.tolist()
    if d.defocus_error:
        error = particles.stated_optics.defocus_u - particles.optics.defocus_u
        columns["cryoganDefocusError"] = error.tolist()
    if d.snr_spread:
        columns["cryoganSnr"] = (snr * particles.snr_factors).tolist()
    if d.ice_gradient:
        columns["cryoganRampX"], columns["cryoganRampY"] = particles.ramps.T.tolist()
    if d.b_factor:
        columns["rlnCtfBfactor"] = particles.optics.b_factor.tolist()
    return columns
