"""Extraction of patches from micrographs: background for `reconstruct --noise`, or patches with particles anywhere."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from cryogan.errors import InputError
from cryogan.files import require_new
from cryogan.particles import ParticleTable, read_particles, write_stack, write_star
from cryogan.particles.micrographs import (
    Micrographs,
    cut,
    fill_broken,
    grid_places,
    micrograph_shape,
    quiet_places,
    read_micrograph,
    read_micrographs,
    whole_places,
)
from cryogan.particles.relion import CTF_COLUMNS
from cryogan.particles.resample import fourier_crop
from cryogan.particles.table import CTF_DEFAULTS, CTF_REQUIRED
from cryogan.report.figures import plot_places

NOISE_SHARE = 10  # patches for each background patch
PARTICLE_FRACTION = 0.5  # of the box: a particle's diameter, where it is not given


@dataclass
class _PatchSet:
    """Patches of one kind: a stack for each micrograph, and the table that names them.

    Attributes:
        folder: where they are written.
        pixel_size: A.
        stems: name of each micrograph's stack, by micrograph, without what follows.
        ending: what follows, before the suffix.
        rows: columns of the table.
    """

    folder: Path
    pixel_size: float
    stems: Mapping[str, str]
    ending: str = ""
    rows: dict[str, list[object]] = field(default_factory=lambda: defaultdict(list))

    def __len__(self) -> int:
        return len(self.rows["rlnImageName"])

    def add(
        self, micrograph: str, centres: NDArray[np.int64], patches: NDArray[np.float32], columns: Mapping[str, object]
    ) -> None:
        """Write the patches (n, D, D) of a micrograph about centres (n, 2); `columns` are equal for all of them."""
        stack = f"{self.stems[micrograph]}{self.ending}.mrcs"
        write_stack(self.folder / stack, patches, self.pixel_size)
        for index, (x, y) in enumerate(centres.tolist()):
            self.rows["rlnImageName"].append(f"{index + 1:06d}@{stack}")
            self.rows["rlnMicrographName"].append(micrograph)
            self.rows["rlnCoordinateX"].append(float(x))
            self.rows["rlnCoordinateY"].append(float(y))
            for column, value in columns.items():
                self.rows[column].append(value)

    def write(self, name: str, optics: dict[str, list[object]]) -> Path:
        """Write the table as a STAR file of this name, and return its path."""
        path = self.folder / name
        write_star(path, {"optics": optics, "particles": dict(self.rows)})
        return path


def extract_noise(
    micrographs: Path,
    particles: Path,
    out: Path,
    *,
    particle_diameter: float | None = None,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Extract background patches: from each micrograph as many as it has particles, at their box and pixel size.

    They are placed where no particle is, no pixel is blank, repeated or NaN, and the variance is lowest, as in the
    paper's supplement. Each patch is normalised to mean 0 and s.d. 1 and keeps its micrograph's name. A picture of
    each micrograph shows the places.

    Args:
        micrographs: RELION micrograph STAR.
        particles: STAR of particles with _rlnMicrographName, _rlnCoordinateX and _rlnCoordinateY.
        out: new or empty folder.
        particle_diameter: A; default: half of the box.
        data_dir: another folder in which to look for micrographs and image stacks.
        console: where progress and the result are printed; default: standard error.

    Returns:
        The patches' STAR file, for `reconstruct --noise`.

    Raises:
        InputError: input that cannot be used, particles outside their micrograph, or no micrograph with room for a
            patch.
    """
    console = console or Console(stderr=True)
    require_new(out)
    images = read_micrographs(micrographs, data_dir)
    table = read_particles(particles, data_dir)
    places = _coordinates(particles, table)
    box = table.box - table.box % 2
    side = _side(micrographs, images, table)
    radius = (particle_diameter or PARTICLE_FRACTION * box * table.pixel_size) / 2 / images.pixel_size
    files = _picked(micrographs, particles, images, places)
    _require_inside(particles, files, places, radius)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    noise = _PatchSet(out, table.pixel_size, _stems(list(files)))
    for name in track(files, "Background patches", console=console, disable=not console.is_terminal):
        micrograph, broken = fill_broken(read_micrograph(files[name]))
        found = quiet_places(micrograph, broken, places[name], side, radius, len(places[name]))
        plot_places(out / "figures" / f"{noise.stems[name]}.png", micrograph, places[name], radius, found, side)
        if len(found):
            patches = _standardised(fourier_crop(cut(micrograph, found, side), box))
            noise.add(name, found, patches, {"rlnOpticsGroup": 1})
    if not len(noise):
        raise InputError(
            f"{micrographs}: no micrograph has room for a patch of {side} px. Give a smaller --particle-diameter."
        )
    star = noise.write("noise.star", _optics(table.pixel_size, box))
    wanted = sum(len(places[name]) for name in files)
    _print(console, f"{len(noise)} patches for {wanted} particles of {len(files)} micrographs: {star}")
    if crowded := files.keys() - set(noise.rows["rlnMicrographName"]):
        _print(console, f"No room in {len(crowded)} micrographs: {', '.join(sorted(crowded))}")
    return star


def extract_patches(
    micrographs: Path,
    out: Path,
    *,
    box: int,
    overlap: float = 0.5,
    seed: int = 0,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Extract patches on a grid that covers each micrograph; a patch holds no particle, one, or several.

    Patches have the mean of their whole micrograph subtracted, are divided by its s.d., and carry its CTF. Those with
    blank, repeated or NaN pixels are left out. For every `NOISE_SHARE` patches one more, of the lowest variance, goes
    to noise.star as background, in the same unit.

    Args:
        micrographs: RELION micrograph STAR with CTFs.
        out: new or empty folder.
        box: side of a patch, pixels of the micrographs, even.
        overlap: fraction of its side by which a patch overlaps its neighbour.
        seed: seed of the random corners at which the grids begin.
        data_dir: another folder in which to look for the micrographs.
        console: where progress and the result are printed; default: standard error.

    Returns:
        The patches' STAR file, for `reconstruct --particles-per-um2`.

    Raises:
        InputError: input that cannot be used: no CTF, a micrograph smaller than a patch.
    """
    console = console or Console(stderr=True)
    require_new(out)
    if box < 16 or box % 2 or not 0 <= overlap < 1:
        raise InputError("The box: an even number from 16. The overlap: from 0 to below 1.")
    images = read_micrographs(micrographs, data_dir)
    columns, optics = _ctf(micrographs, images, box)
    generator = np.random.default_rng(seed)
    stems, left_out = _stems(images.names), 0
    patches = _PatchSet(out, images.pixel_size, stems, "_patches")
    noise = _PatchSet(out, images.pixel_size, stems, "_noise")
    out.mkdir(parents=True, exist_ok=True)
    for number in track(range(len(images.names)), "Patches", console=console, disable=not console.is_terminal):
        micrograph, broken = _normalised(images.files[number], box)
        grid = grid_places(micrograph.shape, box, overlap, generator)
        places = grid[whole_places(grid, broken, box)]
        left_out += len(grid) - len(places)
        quiet = _background_places(micrograph, broken, box, len(places))
        of_micrograph = {column: values[number] for column, values in columns.items()}
        for patch_set, centres in ((patches, places), (noise, quiet)):
            if len(centres):
                patch_set.add(images.names[number], centres, cut(micrograph, centres, box), of_micrograph)
    if not len(patches) or not len(noise):
        raise InputError(f"{micrographs}: no patch of {box} px is free of blank, repeated and NaN pixels.")
    particle_star, noise_star = patches.write("particles.star", optics), noise.write("noise.star", optics)
    made = f"{len(patches)} patches of {len(images.names)} micrographs: {particle_star}"
    _print(console, f"{made}; {len(noise)} of background: {noise_star}")
    if left_out:
        _print(console, f"{left_out} patches with blank, repeated or NaN pixels were left out.")
    return particle_star


def _side(path: Path, images: Micrographs, table: ParticleTable) -> int:
    """Side of the particles' box in pixels of the micrographs, even."""
    box = table.box - table.box % 2
    side = 2 * round(box * table.pixel_size / images.pixel_size / 2)
    if side < box:
        raise InputError(
            f"{path}: the micrographs' pixels ({images.pixel_size:.3f} A) are coarser than the particles' "
            f"({table.pixel_size:.3f} A). Give the micrographs that the particles were extracted from."
        )
    return side


def _require_inside(
    path: Path, files: Mapping[str, Path], places: Mapping[str, NDArray[np.float64]], radius: float
) -> None:
    """Refuse particles beyond the borders: their coordinates belong to other micrographs, or another pixel size."""
    for name, file in files.items():
        height, width = micrograph_shape(file)
        centres = places[name]
        outside = ~((centres >= -radius) & (centres <= np.array([width, height]) + radius)).all(axis=1)
        if outside.any():
            x, y = centres[outside][0]
            raise InputError(
                f"{path}: {outside.sum()} of the {len(centres)} particles of {name} lie outside it (the first at x "
                f"{x:g}, y {y:g}; it has {width} x {height} px). Give the micrographs that the coordinates were picked "
                "in, at that pixel size."
            )


def _standardised(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patches (n, D, D), each with mean 0 and s.d. 1."""
    patches -= patches.mean((1, 2), keepdims=True)
    patches /= patches.std((1, 2), keepdims=True)
    return patches


def _normalised(file: Path, box: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A micrograph of mean 0 and s.d. 1 over its good pixels, and where it is broken."""
    micrograph, broken = fill_broken(read_micrograph(file))
    if min(micrograph.shape) < box:
        raise InputError(f"{file}: is smaller than a patch of {box} px. Give a smaller --box.")
    good = micrograph[~broken] if broken.any() else micrograph
    if good.size:  # of equal pixels none is good
        micrograph -= good.mean(dtype=np.float64)
        micrograph /= good.std(dtype=np.float64)
    return micrograph, broken


def _background_places(
    micrograph: NDArray[np.float32], broken: NDArray[np.bool_], box: int, patches: int
) -> NDArray[np.int64]:
    """Centres (n, 2) of the places of lowest variance, a tenth as many as there are patches but at least one."""
    nowhere = np.zeros((0, 2))  # particles to avoid
    return quiet_places(micrograph, broken, nowhere, box, 0.0, max(1, patches // NOISE_SHARE))


def _picked(
    micrographs: Path, particles: Path, images: Micrographs, places: dict[str, NDArray[np.float64]]
) -> dict[str, Path]:
    """Files of the micrographs that have particles, by name."""
    files = {name: file for name, file in zip(images.names, images.files, strict=True) if name in places}
    if not files:
        raise InputError(
            f"{micrographs}: none of its micrographs is named in {particles} (first: {images.names[0]!r}, "
            f"there {next(iter(places))!r}). Give files of the same project."
        )
    return files


def _stems(names: list[str]) -> dict[str, str]:
    """File name without suffix for each micrograph's output, numbered if two micrographs share one."""
    unique = len({PurePath(name).stem for name in names}) == len(names)
    return {
        name: PurePath(name).stem if unique else f"{number:06d}_{PurePath(name).stem}"
        for number, name in enumerate(names)
    }


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _ctf(path: Path, images: Micrographs, box: int) -> tuple[dict[str, list[str]], dict[str, list[object]]]:
    """CTF columns of the N micrographs, and an optics table for their patches."""
    held = [images.table] + ([] if images.optics is None else [images.optics])
    missing = [name for key in CTF_REQUIRED if not any((name := CTF_COLUMNS[key]) in block for block in held)]
    if missing:
        raise InputError(
            f"{path}: no CTF: _{', _'.join(missing)} missing. Estimate it and give that file, in RELION "
            "micrographs_ctf.star."
        )
    names = [CTF_COLUMNS[key] for key in (*CTF_REQUIRED, *CTF_DEFAULTS)]
    columns = {name: images.table.texts(name) for name in names if name in images.table}
    optics = _optics(images.pixel_size, box)
    if images.optics is not None:
        columns["rlnOpticsGroup"] = images.table.texts("rlnOpticsGroup")
        groups = len(images.optics)
        sizes = {name: values * groups for name, values in optics.items() if name.startswith("rlnImage")}
        for name in images.optics.columns:
            optics[name] = [*images.optics.texts(name)]
        optics |= sizes
    else:
        columns["rlnOpticsGroup"] = ["1"] * len(images.names)
    return columns, optics


def _optics(pixel_size: float, box: int) -> dict[str, list[object]]:
    """Optics table of one group."""
    return {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnImagePixelSize": [pixel_size],
        "rlnImageSize": [box],
        "rlnImageDimensionality": [2],
    }


def _coordinates(path: Path, table: ParticleTable) -> dict[str, NDArray[np.float64]]:
    """Coordinates (n, 2) x, y of the particles, by micrograph."""
    if table.star is None:
        raise InputError(f"{path}: .cs files hold no coordinates in pixels. Give a RELION STAR file.")
    block = next(block for block in table.star.values() if "rlnImageName" in block)
    names = np.array(block.texts("rlnMicrographName"))
    both = np.stack([block.floats("rlnCoordinateX"), block.floats("rlnCoordinateY")], axis=1)
    return {str(name): both[names == name] for name in dict.fromkeys(names.tolist())}
