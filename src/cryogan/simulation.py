"""Particles from a volume: the data source of demonstrations, tests and benchmarks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import require_new
from cryogan.fourier import to_half_planes, to_images
from cryogan.particles import read_star, write_stack, write_star, write_volume
from cryogan.physics.ctf import CtfParameters, ctf
from cryogan.physics.noise import ColouredNoise, Noise, PoissonNoise, WhiteNoise, background_mask, normalise
from cryogan.physics.projector import FourierProjector
from cryogan.physics.shifts import shift, triangular_shifts
from cryogan.physics.simulator import Imaging, Simulator
from cryogan.rotations import euler_to_rotations, rotations_to_euler, uniform_rotations
from cryogan.run.inputs import PARTICLE_FRACTION

Coordinates = np.ndarray  # (N, 2) x, y in pixels of the micrographs
BATCH = 256
VOLTAGE, ABERRATION, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.07
DEFOCUS_RANGE = (8000.0, 18000.0)  # A
ASTIGMATISM = 300.0  # A, the largest half difference of defocus U and V
NOISE_FALLOFF = 0.35  # of the Nyquist frequency: where the coloured noise's Lorentzian part has halved


@dataclass(frozen=True)
class Particles:
    """What is known of N simulated particles."""

    phi: Imaging
    optics: CtfParameters
    micrographs: list[str]


def simulate(
    volume: np.ndarray,
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
        count: particles; with `poses`, at most its rows are made.
        poses: a STAR with Euler angles, origins and CTF, used instead of random ones.
        noise: "coloured" (stronger at low frequency), "white", "poisson" (counted electrons), or "none" (images as
            projected, no patches).
        dose: electrons per square A, for "poisson".
        snr: variance of the CTF-modulated signal within the particle's circle over that of the noise.
        max_shift: A, half width of the triangular distribution.
        micrographs: how many the particles are spread over; each has one CTF and one noise patch for each of
            its particles.
        write_micrographs: the particles stand in images of their micrographs, boxes side by side, half of the places
            free.
        particles_per_um2: of these micrographs; they then stand anywhere, one over another by
            chance. A micrograph goes on at its opposite side, so that its borders are like its middle.
        seed: of everything random.

    Raises:
        InputError: `out` is not empty, there are fewer particles than volumes, `poses` lacks columns, the dose is too
            small for the SNR, or there are no micrographs for particles_per_um2.
    """
    require_new(out)
    if write_micrographs and noise not in ("coloured", "white"):
        raise InputError("Micrographs are written with --noise coloured or white.")
    if particles_per_um2 is not None and not (write_micrographs and particles_per_um2 > 0):
        raise InputError("--particles-per-um2, above 0, is of the micrographs of --write-micrographs.")
    volumes = volume.reshape(-1, *volume.shape[-3:])
    classes, box = len(volumes), volume.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    electrons = dose * pixel_size**2
    models: dict[str, Noise] = {"white": WhiteNoise(box), "poisson": PoissonNoise(electrons, box)}
    model = models.get(noise) or ColouredNoise(_noise_power(box), box)
    particles = _from_star(poses, count) if poses else _random(count, max_shift, micrographs, generator)
    simulator = Simulator(
        FourierProjector(box, device=torch.device("cpu")),
        particles.optics,
        model,
        pixel_size=pixel_size,
        max_shift=max_shift,
        generator=generator,
    )
    if len(particles.phi) < classes:
        raise InputError(f"{len(particles.phi)} particles cannot show {classes} volumes; give more --particles.")
    images = stamps = torch.empty(len(particles.phi), box, box)
    if particles_per_um2 is not None:
        stamps = torch.empty(len(images), 2 * box, 2 * box)
    for k, density in enumerate(torch.from_numpy(np.ascontiguousarray(volumes, dtype=np.float32))):
        phi = particles.phi[k::classes]
        with torch.no_grad():
            spectrum = simulator.projector.transform(density)
            parts = [simulator.clean(spectrum, phi[i : i + BATCH]) for i in range(0, len(phi), BATCH)]
        images[k::classes] = torch.cat(parts)
        if particles_per_um2 is not None:
            stamps[k::classes] = _reaching_out(simulator, spectrum, phi)
    coordinates: Coordinates | None = None
    if noise != "none":
        background = background_mask(box, PARTICLE_FRACTION * box / 2, images.device)
        scale = (snr / images[:, ~background].var()).sqrt()
        images, stamps = images * scale, stamps * scale
    if write_micrographs:
        out.mkdir(parents=True, exist_ok=True)
        images, coordinates = _micrographs(out, stamps, box, particles, pixel_size, noise, particles_per_um2, generator)
        images = normalise(images, background)
    elif noise != "none":
        if noise == "poisson" and images.min() < -(electrons**0.5):
            raise InputError(
                f"At {dose:g} electrons per square A a pixel gets {electrons:.3g}, too few for an SNR of {snr:g}: some "
                "pixels would have less than none; give a larger --dose or a smaller --snr."
            )
        images = normalise(model.add(images, particles.phi.particles, generator), background)
        patches = normalise(model.sample(particles.phi.particles, generator), background)
    out.mkdir(parents=True, exist_ok=True)
    if noise != "none" and not write_micrographs:
        write_stack(out / "noise.mrcs", patches.numpy(), pixel_size, np.float16)
        names = [f"{i + 1:06d}@noise.mrcs" for i in range(len(patches))]
        write_star(out / "noise.star", {"noise": {"rlnImageName": names, "rlnMicrographName": particles.micrographs}})
    write_stack(out / "particles.mrcs", images.numpy(), pixel_size, np.float32 if noise == "none" else np.float16)
    _write_star(out / "particles.star", particles, box, pixel_size, coordinates)
    _write_star(out / "truth.star", particles, box, pixel_size, coordinates, classes)
    for k, each in enumerate(volumes, 1):
        write_volume(out / (f"truth{k}.mrc" if classes > 1 else "truth.mrc"), each, pixel_size)


def _noise_power(box: int) -> Tensor:
    """Radial power of the coloured noise, mean 1 over the image: a Lorentzian on a floor, like ice and camera."""
    frequency = torch.arange(box // 2 + 1) / (box // 2)
    power = 0.4 + 1.0 / (1.0 + (frequency / NOISE_FALLOFF).square())
    weight = torch.arange(box // 2 + 1).float()
    return power / ((power * weight).sum() / weight.sum())


def _random(count: int, max_shift: float, micrographs: int, generator: torch.Generator) -> Particles:
    """Uniform poses, triangular shifts, and a CTF for each micrograph."""
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
    phi = Imaging(
        uniform_rotations(count, generator), triangular_shifts(count, max_shift, generator), torch.arange(count)
    )
    return Particles(phi, optics, [f"micrograph_{i:04d}.mrc" for i in micrograph.tolist()])


def _from_star(path: Path, count: int) -> Particles:
    """Poses, shifts and CTF of the first `count` rows of a STAR."""
    blocks = read_star(path)
    named = [block for block in blocks.values() if "rlnAngleRot" in block]
    if not named:
        raise InputError(f"{path} has no _rlnAngleRot; give a STAR with poses.")
    table, optics = named[0], blocks.get("optics")
    rows = min(count, len(table))

    def column(name: str, default: float | None = None) -> np.ndarray:
        if name in table:
            return table.floats(name)[:rows]
        if optics is not None and name in optics:
            groups = dict(zip(optics.floats("rlnOpticsGroup"), optics.floats(name), strict=True))
            return np.array([groups[group] for group in table.floats("rlnOpticsGroup")[:rows]])
        if default is None:
            raise InputError(f"{path} has no _{name}; it needs poses, shifts and CTF.")
        return np.full(rows, default)

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
    return Particles(
        Imaging(rotations.float(), torch.from_numpy(shifts).float(), torch.arange(rows)),
        CtfParameters.from_columns(columns, device=torch.device("cpu")),
        names,
    )


@torch.no_grad()
def _reaching_out(simulator: Simulator, spectrum: Tensor, phi: Imaging) -> Tensor:
    """Clean images (N, 2 D, 2 D): what the CTF spreads beyond the box is there."""
    box, pixel_size = simulator.projector.box, simulator.pixel_size
    parts = []
    for i in range(0, len(phi), BATCH):
        some = phi[i : i + BATCH]
        centred = to_images(shift(simulator.project(spectrum, some), some.shifts, pixel_size))
        wide = to_half_planes(torch.nn.functional.pad(centred, (box // 2,) * 4))
        parts.append(to_images(wide * ctf(simulator.optics[some.particles], 2 * box, pixel_size)))
    return torch.cat(parts)


def _micrographs(
    out: Path,
    stamps: Tensor,
    box: int,
    particles: Particles,
    pixel_size: float,
    noise: str,
    particles_per_um2: float | None,
    generator: torch.Generator,
) -> tuple[Tensor, Coordinates]:
    """Write a micrograph for each name, with its particles' clean images (N, S, S) in noise; cut their boxes out."""
    half, names = stamps.shape[-1] // 2, np.array(particles.micrographs)
    cut, coordinates = torch.empty(len(stamps), box, box), np.empty((len(stamps), 2))
    order, first = np.unique(names, return_index=True)
    for name in order:
        rows = np.flatnonzero(names == name)
        if particles_per_um2 is None:
            side = box * int(np.ceil(np.sqrt(2 * len(rows))))
            places = torch.randperm((side // box) ** 2, generator=generator)[: len(rows)]
            centres = box * torch.stack([places // (side // box), places % (side // box)], dim=1) + box // 2
        else:
            side = 2 * max(half, round(np.sqrt(len(rows) / particles_per_um2) * 1e4 / pixel_size / 2))
            centres = torch.randint(side, (len(rows), 2), generator=generator)
        model: Noise = WhiteNoise(side) if noise == "white" else ColouredNoise(_noise_power(side), side)
        micrograph = model.sample(torch.zeros(1, dtype=torch.int64), generator)[0]

        def window(centre: Tensor, half: int, side: int = side) -> tuple[Tensor, Tensor]:
            y, x = (centre[:, None] + torch.arange(-half, half)) % side
            return y[:, None], x[None, :]

        for row, centre in zip(rows, centres, strict=True):
            micrograph[window(centre, half)] += stamps[row]
        for row, centre in zip(rows, centres, strict=True):
            cut[row] = micrograph[window(centre, box // 2)]
            coordinates[row] = centre.flip(0)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_stack(out / name, micrograph[None].numpy(), pixel_size, np.float32)
    p = particles.optics[torch.from_numpy(first)]
    micrographs: dict[str, list[object]] = {
        "rlnMicrographName": order.tolist(),
        "rlnOpticsGroup": [1] * len(order),
        "rlnDefocusU": p.defocus_u.tolist(),
        "rlnDefocusV": p.defocus_v.tolist(),
        "rlnDefocusAngle": p.defocus_angle.tolist(),
    }
    optics = _optics(p) | {"rlnMicrographPixelSize": [pixel_size]}
    write_star(out / "micrographs.star", {"optics": optics, "micrographs": micrographs})
    return cut, coordinates


def _optics(p: CtfParameters) -> dict[str, list[object]]:
    """An optics table of one group."""
    return {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": [float(p.voltage[0])],
        "rlnSphericalAberration": [float(p.spherical_aberration[0])],
        "rlnAmplitudeContrast": [float(p.amplitude_contrast[0])],
    }


def _write_star(
    path: Path,
    particles: Particles,
    box: int,
    pixel_size: float,
    coordinates: Coordinates | None,
    classes: int = 0,
) -> None:
    """A RELION 3.1 particle STAR of particles.mrcs; with the truth if the number of `classes` is given."""
    p = particles.optics
    optics = _optics(p) | {
        "rlnImagePixelSize": [pixel_size],
        "rlnImageSize": [box],
        "rlnImageDimensionality": [2],
    }
    rows = range(1, len(particles.phi) + 1)
    table: dict[str, list[object]] = {"rlnImageName": [f"{i:06d}@particles.mrcs" for i in rows]}
    if classes > 1:
        table["rlnClassNumber"] = [i % classes + 1 for i in range(len(particles.phi))]
    if classes > 0:
        angles = rotations_to_euler(particles.phi.rotations)
        for i, name in enumerate(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")):
            table[name] = angles[:, i].tolist()
        table["rlnOriginXAngst"] = particles.phi.shifts[:, 0].tolist()
        table["rlnOriginYAngst"] = particles.phi.shifts[:, 1].tolist()
    if coordinates is not None:
        table["rlnCoordinateX"], table["rlnCoordinateY"] = coordinates.T.tolist()
    table["rlnDefocusU"] = p.defocus_u.tolist()
    table["rlnDefocusV"] = p.defocus_v.tolist()
    table["rlnDefocusAngle"] = p.defocus_angle.tolist()
    table["rlnMicrographName"] = list(particles.micrographs)
    table["rlnOpticsGroup"] = [1] * len(particles.phi)
    write_star(path, {"optics": optics, "particles": table})
