"""Write a set of simulated particles with its ground truth."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import require_new
from cryogan.particles import MapHeader, write_map, write_stack, write_star
from cryogan.physics.noise import ColouredNoise, Noise, PoissonNoise, WhiteNoise, background_mask, normalise
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator
from cryogan.run.inputs import PARTICLE_FRACTION
from cryogan.simulation.disturbances import Disturbances
from cryogan.simulation.images import clean_images, put_junk, ramp_images
from cryogan.simulation.micrographs import place_in_micrographs
from cryogan.simulation.molecule import detergent_belt, molecule_radius
from cryogan.simulation.noise import noise_power
from cryogan.simulation.particles import Particles, disturb, particles_from_star, random_particles
from cryogan.simulation.star_files import write_particle_stars


def simulate(
    volume: NDArray[np.float32],
    pixel_size: float,
    out: Path,
    *,
    count: int = 5000,
    poses: Path | None = None,
    noise: str = "coloured",
    dose: float = 20.0,
    snr: float = 0.5,
    max_shift: float = 10.0,
    micrographs: int = 100,
    write_micrographs: bool = False,
    particles_per_um2: float | None = None,
    float32: bool = False,
    disturbances: Disturbances | None = None,
    place: MapHeader | None = None,
    seed: int = 0,
) -> None:
    """Write particles.mrcs and .star, noise.mrcs and .star, truth.mrc and truth.star to `out`.

    Of several volumes the particles show one after the other in turn: truth.star has _rlnClassNumber, and the volumes
    are truth1.mrc, truth2.mrc, ...

    With `write_micrographs`, instead of the noise, micrographs.star and its images, from which the particles are cut
    and `cryogan extract-noise` takes patches.

    Args:
        volume: (D, D, D) in z, y, x, protein bright; or several, (K, D, D, D).
        pixel_size: A.
        out: folder that does not exist or is empty.
        count: number of particles; with `poses`, at most its rows are made.
        poses: a STAR with Euler angles, origins and CTF, used instead of random ones.
        noise: "coloured" (stronger at low frequency), "white", "poisson" (counted electrons), or "none" (images as
            projected, no patches).
        dose: electrons per square A, for "poisson".
        snr: variance of the CTF-modulated signal within the particle's circle over that of the noise.
        max_shift: half width of the triangular distribution of shifts, A.
        micrographs: number of micrographs; each has one CTF, and one noise patch for each of its particles.
        write_micrographs: the particles stand in images of their micrographs, boxes side by side, half of the places
            free.
        particles_per_um2: density of particles in these micrographs; they then stand anywhere, one over another by
            chance. A micrograph goes on at its opposite side, so that its borders are like its middle.
        float32: write stacks as float32, which every program reads, instead of float16.
        disturbances: junk, neighbours and all else that makes particles of a microscope untidy; None: none. truth.star
            records them for each particle.
        place: header of the volume's file, whose origin truth.mrc keeps; None: it begins at 0.
        seed: of everything random.

    Raises:
        InputError: `out` is not empty, there are fewer particles than volumes, `poses` lacks columns, the dose is too
            small for the SNR, there are no micrographs for particles_per_um2, or a disturbance does not go with
            another option.
    """
    disturbances = disturbances or Disturbances()
    require_new(out)
    _check_micrographs(write_micrographs, noise, particles_per_um2)
    _check_disturbances(disturbances, write_micrographs, noise, particles_per_um2, poses)
    volumes = volume.reshape(-1, *volume.shape[-3:])
    box = volume.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    belts = [detergent_belt(v, pixel_size, disturbances) for v in volumes] if disturbances.belt else []
    shown = volumes + np.stack(belts) if belts else volumes
    radius_A = max(molecule_radius(density, pixel_size) for density in shown)
    given = particles_from_star(poses, count) if poses else random_particles(count, max_shift, micrographs, generator)
    particles = disturb(given, disturbances, seed, radius_A, box * pixel_size)
    if len(particles) < len(volumes):
        raise InputError(f"{len(particles)} particles cannot show {len(volumes)} volumes; give more --particles.")
    projector = FourierProjector(box, device=torch.device("cpu"))
    model = _noise_model(noise, dose * pixel_size**2, box)
    simulator = Simulator(
        projector, particles.optics, model, pixel_size=pixel_size, max_shift=max_shift, generator=generator
    )
    images, stamps = clean_images(simulator, shown, particles.phi, particles_per_um2 is not None)
    background = background_mask(box, PARTICLE_FRACTION * box / 2, images.device)
    power = images[:, ~background].var()
    put_junk(stamps, simulator, shown, particles, seed, float(power), radius_A)
    if noise != "none":
        stamps = stamps * ((snr / power).sqrt() * particles.snr_factors.sqrt())[:, None, None]
    coordinates = patches = None
    if write_micrographs:
        out.mkdir(parents=True, exist_ok=True)
        images, coordinates = place_in_micrographs(
            out, stamps, box, particles, pixel_size, noise, particles_per_um2, generator
        )
        images = normalise(images, background)
    elif noise == "none":
        images = stamps
    else:
        _check_dose(stamps, noise, dose, pixel_size, snr)
        images = normalise(model.add(stamps, particles.phi.particles, generator), background)
        patches = normalise(model.sample(particles.phi.particles, generator), background)
    if disturbances.ice_gradient:
        images = images + ramp_images(particles.ramps, box)
    out.mkdir(parents=True, exist_ok=True)
    _write_stacks(out, images, patches, particles, pixel_size, np.float32 if float32 or noise == "none" else np.float16)
    write_particle_stars(out, particles, disturbances, box, pixel_size, snr, len(volumes), coordinates)
    place = replace(place or MapHeader(pixel_size), pixel_size=pixel_size)
    _write_volumes(out, "truth", list(volumes), place)
    _write_volumes(out, "belt", belts, place)


def _check_micrographs(write_micrographs: bool, noise: str, particles_per_um2: float | None) -> None:
    if write_micrographs and noise not in ("coloured", "white"):
        raise InputError("Micrographs are written with --noise coloured or white.")
    if particles_per_um2 is not None and not (write_micrographs and particles_per_um2 > 0):
        raise InputError("--particles-per-um2, above 0, is of the micrographs of --write-micrographs.")


def _check_disturbances(
    d: Disturbances, write_micrographs: bool, noise: str, particles_per_um2: float | None, poses: Path | None
) -> None:
    """Refuse disturbances beside options that leave no place for them."""
    if sum(d.junk.values()) > 1:
        raise InputError(f"The shares of junk sum to {sum(d.junk.values()):g}; give shares of at most 1 in all.")
    if d.preferred_views and poses is not None:
        raise InputError("--preferred-views draws poses, and --poses gives them; leave out one.")
    if noise == "none" and (d.snr_spread or d.ice_gradient):
        raise InputError("--snr-spread and --ice-gradient are relative to the noise; give another --noise than none.")
    if write_micrographs and d.ice_gradient:
        raise InputError("--ice-gradient is of particle images; leave out --write-micrographs.")
    if particles_per_um2 is not None and d.neighbours:
        raise InputError("With --particles-per-um2 particles have neighbours by chance; leave out --neighbours.")


def _noise_model(noise: str, electrons: float, box: int) -> Noise:
    models: dict[str, Noise] = {"white": WhiteNoise(box), "poisson": PoissonNoise(electrons, box)}
    return models.get(noise) or ColouredNoise(noise_power(box), box)


def _check_dose(images: Tensor, noise: str, dose: float, pixel_size: float, snr: float) -> None:
    """Refuse a dose at which a pixel would count fewer electrons than none."""
    electrons = dose * pixel_size**2
    if noise == "poisson" and images.min() < -(electrons**0.5):
        raise InputError(
            f"At {dose:g} electrons per square A a pixel gets {electrons:.3g}, too few for an SNR of {snr:g}: some "
            "pixels would have less than none; give a larger --dose or a smaller --snr."
        )


def _write_stacks(
    out: Path, images: Tensor, patches: Tensor | None, particles: Particles, pixel_size: float, dtype: DTypeLike
) -> None:
    """Write particles.mrcs and, if there are patches, noise.mrcs and noise.star."""
    write_stack(out / "particles.mrcs", images.numpy(), pixel_size, dtype)
    if patches is not None:
        write_stack(out / "noise.mrcs", patches.numpy(), pixel_size, dtype)
        names = [f"{i + 1:06d}@noise.mrcs" for i in range(len(patches))]
        write_star(out / "noise.star", {"noise": {"rlnImageName": names, "rlnMicrographName": particles.micrographs}})


def _write_volumes(out: Path, name: str, volumes: Sequence[NDArray[np.float32]], header: MapHeader) -> None:
    """Write NAME.mrc, or NAME1.mrc, NAME2.mrc, ... of several volumes."""
    for k, density in enumerate(volumes, 1):
        write_map(out / (f"{name}{k}.mrc" if len(volumes) > 1 else f"{name}.mrc"), density, header)
