"""Write a set of simulated particles with its ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from cryogan.run.sizes import PARTICLE_FRACTION
from cryogan.simulation.disturbances import Disturbances
from cryogan.simulation.images import clean_images, put_junk, ramp_images
from cryogan.simulation.micrographs import place_in_micrographs
from cryogan.simulation.molecule import detergent_belt, molecule_radius
from cryogan.simulation.noise import noise_power
from cryogan.simulation.particles import Particles, disturb, particles_from_star, random_particles
from cryogan.simulation.star_files import write_particle_stars


@dataclass(frozen=True)
class _Options:
    """The options of `simulate` that the images depend on, under the same names."""

    pixel_size: float
    noise: str
    dose: float
    snr: float
    max_shift: float
    write_micrographs: bool
    particles_per_um2: float | None
    disturbances: Disturbances
    seed: int


@dataclass(frozen=True)
class _DataSet:
    """What `simulate` writes: volumes (K, D, D, D), detergent belts, images and noise patches (N, D, D).

    `coordinates` (N, 2) are the particles' places in their micrographs, x and y in pixels.
    """

    volumes: NDArray[np.float32]
    belts: list[NDArray[np.float32]]
    particles: Particles
    images: Tensor
    patches: Tensor | None
    coordinates: NDArray[np.float64] | None


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

    With several volumes, particle i shows volume i modulo K: truth.star has _rlnClassNumber, the maps are truth1.mrc...

    Args:
        volume: (D, D, D) in z, y, x, protein bright; or several, (K, D, D, D).
        pixel_size: A.
        out: folder that does not exist or is empty.
        count: number of particles; with `poses`, at most its rows are made.
        poses: a STAR with Euler angles, origins and CTF, used instead of random ones.
        noise: "coloured" (stronger at low frequency), "white", "poisson" (counted electrons), or "none" (no patches).
        dose: electrons per square A, for "poisson".
        snr: variance of the CTF-modulated signal within the particle's circle over that of the noise.
        max_shift: half width of the triangular distribution of shifts, A.
        micrographs: number of micrographs; each has one CTF, and one noise patch for each of its particles.
        write_micrographs: write micrographs.star and its images instead of the noise, for `cryogan extract-noise`; the
            particles are cut from them: boxes side by side, half of the places free.
        particles_per_um2: density of particles in these micrographs; they then stand anywhere, one over another by
            chance. A micrograph goes on at its opposite side, so that its borders are like its middle.
        float32: write stacks as float32, which every program reads, instead of float16.
        disturbances: junk, neighbours and other faults of real data, recorded in truth.star; None: none.
        place: header of the volume's file, whose origin truth.mrc keeps; None: it begins at 0.
        seed: seed of everything random.

    Raises:
        InputError: `out` is not empty, `poses` lacks columns, or options that do not go together.
    """
    d = disturbances or Disturbances()
    options = _Options(pixel_size, noise, dose, snr, max_shift, write_micrographs, particles_per_um2, d, seed)
    require_new(out)
    _check_micrographs(write_micrographs, noise, particles_per_um2)
    _check_disturbances(d, write_micrographs, noise, particles_per_um2, poses)
    generator = torch.Generator().manual_seed(seed)
    given = particles_from_star(poses, count) if poses else random_particles(count, max_shift, micrographs, generator)
    made = _make(volume.reshape(-1, *volume.shape[-3:]), given, options, out, generator)
    dtype: DTypeLike = np.float32 if float32 or noise == "none" else np.float16
    _write(made, options, replace(place or MapHeader(pixel_size), pixel_size=pixel_size), dtype, out)


def _make(
    volumes: NDArray[np.float32], given: Particles, options: _Options, out: Path, generator: torch.Generator
) -> _DataSet:
    """Make the images of undisturbed particles and what disturbs them; micrographs are written at once, to `out`."""
    o, box = options, volumes.shape[-1]
    belts = [detergent_belt(v, o.pixel_size, o.disturbances) for v in volumes] if o.disturbances.belt else []
    shown = volumes + np.stack(belts) if belts else volumes
    radius_A = max(molecule_radius(density, o.pixel_size) for density in shown)
    particles = disturb(given, o.disturbances, o.seed, radius_A, box * o.pixel_size)
    if len(particles) < len(volumes):
        raise InputError(f"{len(particles)} particles cannot show {len(volumes)} volumes. Give more --particles.")
    model = _noise_model(o.noise, o.dose * o.pixel_size**2, box)
    projector = FourierProjector(box, device=torch.device("cpu"))
    simulator = Simulator(
        projector, particles.optics, model, pixel_size=o.pixel_size, max_shift=o.max_shift, generator=generator
    )
    images, stamps = clean_images(simulator, shown, particles.phi, o.particles_per_um2 is not None)
    background = background_mask(box, PARTICLE_FRACTION * box / 2, images.device)
    power = images[:, ~background].var()
    put_junk(stamps, simulator, shown, particles, o.seed, float(power), radius_A)
    if o.noise != "none":
        stamps = stamps * ((o.snr / power).sqrt() * particles.snr_factors.sqrt())[:, None, None]
    coordinates = patches = None
    if o.write_micrographs:
        out.mkdir(parents=True, exist_ok=True)
        images, coordinates = place_in_micrographs(
            out, stamps, box, particles, o.pixel_size, o.noise, o.particles_per_um2, generator
        )
        images = normalise(images, background)
    elif o.noise == "none":
        images = stamps
    else:
        _check_dose(stamps, o.noise, o.dose, o.pixel_size, o.snr)
        images = normalise(model.add(stamps, particles.phi.particles, generator), background)
        patches = normalise(model.sample(particles.phi.particles, generator), background)
    if o.disturbances.ice_gradient:
        images = images + ramp_images(particles.ramps, box)
    return _DataSet(volumes, belts, particles, images, patches, coordinates)


def _write(made: _DataSet, options: _Options, header: MapHeader, dtype: DTypeLike, out: Path) -> None:
    """Write a data set; the stacks in this data type, the maps with this header."""
    o, box = options, made.volumes.shape[-1]
    out.mkdir(parents=True, exist_ok=True)
    _write_stacks(out, made.images, made.patches, made.particles, o.pixel_size, dtype)
    write_particle_stars(
        out, made.particles, o.disturbances, box, o.pixel_size, o.snr, len(made.volumes), made.coordinates
    )
    _write_volumes(out, "truth", list(made.volumes), header)
    _write_volumes(out, "belt", made.belts, header)


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
        raise InputError(f"The shares of junk sum to {sum(d.junk.values()):g}. Give shares of at most 1 in all.")
    if d.preferred_views and poses is not None:
        raise InputError("--preferred-views draws poses, and --poses gives them. Leave out one.")
    if noise == "none" and (d.snr_spread or d.ice_gradient):
        raise InputError("--snr-spread and --ice-gradient are relative to the noise. Give another --noise than none.")
    if write_micrographs and d.ice_gradient:
        raise InputError("--ice-gradient is of particle images. Leave out --write-micrographs.")
    if particles_per_um2 is not None and d.neighbours:
        raise InputError("With --particles-per-um2 particles have neighbours by chance. Leave out --neighbours.")


def _noise_model(noise: str, electrons: float, box: int) -> Noise:
    models: dict[str, Noise] = {"white": WhiteNoise(box), "poisson": PoissonNoise(electrons, box)}
    return models.get(noise) or ColouredNoise(noise_power(box), box)


def _check_dose(images: Tensor, noise: str, dose: float, pixel_size: float, snr: float) -> None:
    """Refuse a dose at which a pixel would count fewer electrons than none."""
    electrons = dose * pixel_size**2
    if noise == "poisson" and images.min() < -(electrons**0.5):
        raise InputError(
            f"At {dose:g} electrons per square A a pixel gets {electrons:.3g}, too few for an SNR of {snr:g}: some "
            "pixels would have less than none. Give a larger --dose or a smaller --snr."
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
