"""Commands that make particles and background patches: extract-noise, extract-patches, simulate."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from cryogan.cli.app import Answer, DataDir, Say, app, examples
from cryogan.errors import InputError
from cryogan.simulation.disturbances import Disturbances

if TYPE_CHECKING:
    from cryogan.particles import MapHeader


@app.command(
    name="extract-noise", help_epilogue=examples("cryogan extract-noise micrographs.star particles.star --out noise")
)
def extract_noise_command(
    micrographs: Path,
    particles: Path,
    *,
    out: Path,
    particle_diameter: float | None = None,
    data_dir: DataDir = None,
    console: Say = None,
) -> Answer:
    """Extract background patches from micrographs, for reconstruct --noise.

    Args:
        micrographs: RELION micrograph STAR; MRC or TIFF images.
        particles: STAR of the particles, with their coordinates in the micrographs.
        out: Folder for noise.star, its stacks and a picture of each micrograph; new or empty.
        particle_diameter: Diameter, A, of the circle around each particle that patches avoid. Default: half of the
            box.
    """
    from cryogan.extraction import extract_noise

    star = extract_noise(
        micrographs, particles, out, particle_diameter=particle_diameter, data_dir=data_dir, console=console
    )
    return Answer({"folder": out, "noise": star})


@app.command(
    name="extract-patches", help_epilogue=examples("cryogan extract-patches micrographs.star --box 32 --out patches")
)
def extract_patches_command(
    micrographs: Path,
    *,
    out: Path,
    box: int,
    overlap: float = 0.5,
    seed: int = 0,
    data_dir: DataDir = None,
    console: Say = None,
) -> Answer:
    """Extract patches on a grid from micrographs, without picking, for reconstruct --particles-per-um2. Experimental.

    Args:
        micrographs: RELION micrograph STAR with CTFs, such as micrographs_ctf.star; MRC or TIFF images.
        out: Folder for particles.star, noise.star and their stacks; new or empty.
        box: Side of a patch, pixels of the micrographs; twice the particle's diameter is good.
        overlap: Fraction of its side that a patch shares with its neighbour.
        seed: Seed of the grids' origins.
    """
    from cryogan.extraction import extract_patches

    star = extract_patches(micrographs, out, box=box, overlap=overlap, seed=seed, data_dir=data_dir, console=console)
    return Answer({"folder": out, "patches": star, "noise": out / "noise.star"})


@app.command(
    name="simulate",
    help_epilogue=examples(
        "cryogan simulate --box 32 --pixel-size 4 --particles 400 --out set",
        "cryogan simulate --volume map.mrc --particles 100 --snr 0.2 --out set_of_map",
        "cryogan simulate --volume a.mrc --volume b.mrc --particles 100 --out both",
    ),
)
def simulate_command(
    *,
    out: Path,
    model: Path | None = None,
    volume: list[Path] | None = None,
    resolution: float = 5.0,
    symmetry: str | None = None,
    chains: list[str] | None = None,
    without_chains: list[str] | None = None,
    box: int = 64,
    pixel_size: float = 3.822,
    poses: Path | None = None,
    particles: int = 5000,
    noise: Literal["coloured", "white", "poisson", "none"] = "coloured",
    dose: float = 20.0,
    snr: float = 0.5,
    max_shift: float = 10.0,
    micrographs: int = 100,
    write_micrographs: bool = False,
    particles_per_um2: float | None = None,
    float32: Annotated[bool, Parameter(negative="")] = False,
    disturbances: Annotated[Disturbances | None, Parameter(name="*", group="Disturbances")] = None,
    seed: int = 0,
) -> Answer:
    """Simulate particles of an atomic model, of a map, or (with neither) of a phantom with D2 symmetry.

    Args:
        out: Folder for particles, noise patches and truth; new or empty.
        model: Atomic model, mmCIF or PDB, also gzipped.
        volume: Map, MRC; box and pixel size are the map's. Repeat it for other maps, which the particles show in turn.
        resolution: Resolution of the map made from the model, A.
        symmetry: Point group of the model, whose axes are then brought into RELION's setting. Default: its principal
            axes along those of the map, the longest along z.
        chains: Name of a chain of the model; repeat it for others. Default: all.
        without_chains: Name of a chain of the model to leave out; repeat it for others.
        box: Box size, pixels.
        pixel_size: Pixel size, A.
        poses: STAR with poses, shifts and CTF to use instead of random ones.
        particles: Number of particles.
        noise: coloured, white, poisson (counted electrons) or none.
        dose: Electrons per square A, for --noise poisson.
        snr: Variance of the signal within the particle's circle over that of the noise.
        max_shift: Half width of the triangular distribution of shifts, A.
        micrographs: Number of micrographs from which the particles come.
        write_micrographs: Write the micrographs, with the particles at known places, instead of noise patches; for
            extract-noise.
        particles_per_um2: Particles per square micrometre of the micrographs; they then stand anywhere, also one over
            another, and their CTF reaches out of their box; for extract-patches.
        float32: Write stacks as float32 instead of float16, which RELION reads from version 4 on.
        disturbances: What microscopes add; see docs/simulate.md.
        seed: Seed of every random number.
    """
    from cryogan.simulation import simulate

    if box < 16 or box % 2 or particles < 1 or micrographs < 1 or pixel_size <= 0 or snr <= 0 or dose <= 0:
        raise InputError("Box: an even number from 16; particles, micrographs, pixel size, SNR and dose: above 0.")
    if model is not None and volume:
        raise InputError("Give --model or --volume, not both.")
    if model is None and (symmetry is not None or chains or without_chains):
        raise InputError("--symmetry, --chains and --without-chains are of an atomic model; give it with --model.")
    place = None
    if model is not None:
        density = _model_density(model, chains or (), without_chains or (), symmetry, resolution, box, pixel_size)
    else:
        density, place = _density(volume or [], box, pixel_size, seed)
        pixel_size = place.pixel_size
    simulate(
        density,
        pixel_size,
        out,
        count=particles,
        poses=poses,
        noise=noise,
        dose=dose,
        snr=snr,
        max_shift=max_shift,
        micrographs=micrographs,
        write_micrographs=write_micrographs,
        particles_per_um2=particles_per_um2,
        float32=float32,
        disturbances=disturbances,
        place=place,
        seed=seed,
    )
    truth = out / ("truth.mrc" if not volume or len(volume) == 1 else "truth1.mrc")
    made = {"particles": out / "particles.star", "truth": truth, "poses": out / "truth.star"}
    return Answer({"folder": out} | made | ({} if noise == "none" else {"noise": out / "noise.star"}))


def _model_density(
    model: Path,
    chains: Sequence[str],
    without_chains: Sequence[str],
    symmetry: str | None,
    resolution: float,
    box: int,
    pixel_size: float,
) -> Any:
    """Density (D, D, D) of an atomic model; arguments as of `simulate_command`."""
    from cryogan.models.atomic_model import AtomicModel
    from cryogan.simulation.symmetry_axes import on_symmetry_axes

    atoms = AtomicModel.read(model, chains, without_chains).on_principal_axes()
    if symmetry is not None:
        atoms = on_symmetry_axes(atoms, symmetry, box, pixel_size)
    return atoms.density(resolution, box, pixel_size)


def _density(maps: list[Path], box: int, pixel_size: float, seed: int) -> "tuple[Any, MapHeader]":
    """Density of the maps, (K, D, D, D), or of a phantom, with its pixel size and place (the first map's)."""
    import numpy as np

    from cryogan.models.phantom import phantom
    from cryogan.particles import MapHeader, read_map

    if not maps:
        return phantom(box, pixel_size, seed), MapHeader(pixel_size)
    densities, headers = zip(*map(read_map, maps), strict=True)
    if len({(density.shape, header.pixel_size) for density, header in zip(densities, headers, strict=True)}) > 1:
        raise InputError("The maps given with --volume differ in box or pixel size; resample them.")
    return np.concatenate([density[None] for density in densities]), headers[0]
