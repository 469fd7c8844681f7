"""Commands that make particles and background patches: extract-noise, extract-patches, simulate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

from cryogan.cli.app import Answer, DataDir, Say, app, examples
from cryogan.cli.help import RARE
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
    """Extract patches on a grid from micrographs, without picking. Experimental.

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


class MapSource(BaseModel):
    """The maps that simulated particles show: of an atomic model, from files, or (with neither) a phantom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path | None = Field(default=None, description="Atomic model, mmCIF or PDB, also gzipped.")
    volume: Annotated[list[Path], Parameter(negative="")] = Field(
        default=[],
        description="Map, MRC; box and pixel size are the map's. Repeat it for other maps, which the particles show "
        "in turn.",
    )
    resolution: float = Field(default=5.0, description="Resolution of the map made from the model, A.")
    symmetry: Annotated[str | None, Parameter(group=RARE)] = Field(
        default=None,
        description="Point group of the model, whose axes are then brought into RELION's setting. Default: its "
        "principal axes along those of the map, the longest along z.",
    )
    chains: Annotated[list[str], Parameter(negative="", group=RARE)] = Field(
        default=[], description="Name of a chain of the model; repeat it for others. Default: all."
    )
    without_chains: Annotated[list[str], Parameter(negative="", group=RARE)] = Field(
        default=[], description="Name of a chain of the model to leave out; repeat it for others."
    )
    box: int = Field(default=64, description="Box size, pixels.")
    pixel_size: float = Field(default=3.822, description="Pixel size, A.")

    def density(self, seed: int) -> "tuple[Any, MapHeader]":
        """Make the density, (D, D, D) or (K, D, D, D) of K maps, with its pixel size and place (the first map's).

        Args:
            seed: seed of the phantom.

        Raises:
            InputError: a box that cannot be, a source beside another, maps that do not fit each other.
        """
        from cryogan.models.phantom import phantom
        from cryogan.particles import MapHeader

        if self.box < 16 or self.box % 2 or self.pixel_size <= 0:
            raise InputError("The box has to be an even number of pixels from 16 on, and the pixel size above 0.")
        if self.model is not None and self.volume:
            raise InputError("Give --model or --volume, not both.")
        if self.model is None and (self.symmetry is not None or self.chains or self.without_chains):
            raise InputError("--symmetry, --chains and --without-chains are of an atomic model. Give it with --model.")
        if self.volume:
            return self._of_files()
        made = phantom(self.box, self.pixel_size, seed) if self.model is None else self._of_model(self.model)
        return made, MapHeader(self.pixel_size)

    def _of_model(self, model: Path) -> Any:
        from cryogan.models.atomic_model import AtomicModel
        from cryogan.simulation.symmetry_axes import on_symmetry_axes

        atoms = AtomicModel.read(model, self.chains, self.without_chains).on_principal_axes()
        if self.symmetry is not None:
            atoms = on_symmetry_axes(atoms, self.symmetry, self.box, self.pixel_size)
        return atoms.density(self.resolution, self.box, self.pixel_size)

    def _of_files(self) -> "tuple[Any, MapHeader]":
        import numpy as np

        from cryogan.particles import read_map

        densities, headers = zip(*map(read_map, self.volume), strict=True)
        if len({(density.shape, header.pixel_size) for density, header in zip(densities, headers, strict=True)}) > 1:
            raise InputError("The maps given with --volume differ in box or pixel size. Resample them.")
        return np.concatenate([density[None] for density in densities]), headers[0]


@app.command(
    name="simulate",
    help_epilogue=examples(
        "cryogan simulate --box 32 --pixel-size 4 --particles 400 --out set",
        "cryogan simulate --volume map.mrc --particles 100 --snr 0.2 --out set_of_map",
        "cryogan simulate --volume a.mrc --volume b.mrc --particles 100 --out both",
        more=True,
    ),
)
def simulate_command(
    *,
    out: Path,
    source: Annotated[MapSource | None, Parameter(name="*", group="Map")] = None,
    poses: Annotated[Path | None, Parameter(group=RARE)] = None,
    particles: int = 5000,
    noise: Literal["coloured", "white", "poisson", "none"] = "coloured",
    dose: Annotated[float, Parameter(group=RARE)] = 20.0,
    snr: float = 0.5,
    max_shift: float = 10.0,
    micrographs: int = 100,
    write_micrographs: Annotated[bool, Parameter(group=RARE)] = False,
    particles_per_um2: Annotated[float | None, Parameter(group=RARE)] = None,
    float32: Annotated[bool, Parameter(negative="", group=RARE)] = False,
    disturbances: Annotated[Disturbances | None, Parameter(name="*", group=RARE)] = None,
    seed: int = 0,
) -> Answer:
    """Simulate particles of an atomic model, of a map, or of a phantom.

    Args:
        out: Folder for particles, noise patches and truth; new or empty.
        poses: STAR with poses, shifts and CTF to use instead of random ones.
        particles: Number of particles.
        noise: coloured, white, poisson (counted electrons) or none.
        dose: Electrons per square A, for --noise poisson.
        snr: Variance of the signal within the particle's circle over that of the noise.
        max_shift: Half width of the triangular distribution of shifts, A.
        micrographs: Number of micrographs from which the particles come.
        write_micrographs: Write micrographs with particles at known places, not noise patches; for extract-noise.
        particles_per_um2: Particles per square micrometre of the micrographs, overlapping; for extract-patches.
        float32: Write stacks as float32 instead of float16, which RELION reads from version 4 on.
        seed: Seed of every random number.
    """
    from cryogan.simulation import simulate

    source = source or MapSource()
    if min(particles, micrographs, snr, dose) <= 0:
        raise InputError("Particles, micrographs, SNR and dose have to be above 0.")
    density, place = source.density(seed)
    simulate(
        density,
        place.pixel_size,
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
    truth = out / ("truth1.mrc" if len(source.volume) > 1 else "truth.mrc")
    made = {"folder": out, "particles": out / "particles.star", "truth": truth, "poses": out / "truth.star"}
    return Answer(made if noise == "none" else made | {"noise": out / "noise.star"})
