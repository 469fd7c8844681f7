"""Background patches from micrographs: the noise that `reconstruct` pairs with each micrograph's CTF."""

from collections import defaultdict
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from cryogan.errors import InputError
from cryogan.folders import require_new
from cryogan.particles import ParticleTable, read_particles, write_stack, write_star
from cryogan.particles.micrographs import cut, quiet_places, read_micrograph, read_micrographs
from cryogan.particles.preprocessing import fourier_crop
from cryogan.report import draw_places

PARTICLE_FRACTION = 0.5  # of the box: a particle's diameter, where it is not given


def extract_noise(
    micrographs: Path,
    particles: Path,
    out: Path,
    *,
    particle_diameter: float | None = None,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Patches of background with the particles' box and pixel size, as many from each micrograph as it has particles.

    They lie where no particle is and the variance is lowest, as in the paper's supplement; each is normalised
    to mean 0 and s.d. 1 and keeps its micrograph's name. A picture of each micrograph shows the places.

    Args:
        micrographs: RELION micrograph STAR.
        particles: STAR of particles with _rlnMicrographName, _rlnCoordinateX and _rlnCoordinateY in it.
        out: new or empty folder.
        particle_diameter: A; default: half of the box.
        data_dir: where else to look for micrographs and image stacks.

    Returns:
        The patches' STAR file, for `reconstruct --noise`.

    Raises:
        InputError: input that cannot be used, or no micrograph with room for a patch.
    """
    console = console or Console(stderr=True)
    require_new(out)
    images = read_micrographs(micrographs, data_dir)
    table = read_particles(particles, data_dir)
    places = _coordinates(particles, table)
    box = table.box - table.box % 2
    side = 2 * round(box * table.pixel_size / images.pixel_size / 2)
    if side < box:
        raise InputError(
            f"{micrographs}: the micrographs' pixels ({images.pixel_size:.3f} A) are coarser than the particles' "
            f"({table.pixel_size:.3f} A); give the micrographs that the particles were extracted from."
        )
    radius = (particle_diameter or PARTICLE_FRACTION * box * table.pixel_size) / 2 / images.pixel_size
    by_name = dict(zip(images.names, images.files, strict=True))
    picked = [name for name in by_name if name in places]
    if not picked:
        raise InputError(
            f"{micrographs}: none of its micrographs is named in {particles} (first: {images.names[0]!r}, "
            f"there {next(iter(places))!r}); give files of the same project."
        )
    (out / "figures").mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[object]] = defaultdict(list)
    crowded = []
    unique = len({PurePath(name).stem for name in picked}) == len(picked)
    shown = track(picked, "Background patches", console=console, disable=not console.is_terminal)
    for number, name in enumerate(shown):
        micrograph = read_micrograph(by_name[name])
        found = quiet_places(micrograph, places[name], side, radius, len(places[name]))
        stem = PurePath(name).stem if unique else f"{number:06d}_{PurePath(name).stem}"
        draw_places(out / "figures" / f"{stem}.png", micrograph, places[name], radius, found, side)
        if not len(found):
            crowded.append(name)
            continue
        patches = fourier_crop(cut(micrograph, found, side), box)
        patches -= patches.mean((1, 2), keepdims=True)
        patches /= patches.std((1, 2), keepdims=True)
        write_stack(out / f"{stem}.mrcs", patches, table.pixel_size)
        for index, (x, y) in enumerate(found):
            rows["rlnImageName"].append(f"{index + 1:06d}@{stem}.mrcs")
            rows["rlnMicrographName"].append(name)
            rows["rlnCoordinateX"].append(float(x))
            rows["rlnCoordinateY"].append(float(y))
            rows["rlnOpticsGroup"].append(1)
    if not rows:
        raise InputError(
            f"{micrographs}: no micrograph has room for a patch of {side} px; give a smaller --particle-diameter."
        )
    optics: dict[str, list[object]] = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnImagePixelSize": [table.pixel_size],
        "rlnImageSize": [box],
        "rlnImageDimensionality": [2],
    }
    write_star(out / "noise.star", {"optics": optics, "particles": dict(rows)})
    wanted = sum(len(places[name]) for name in picked)
    console.print(
        f"{len(rows['rlnImageName'])} patches for {wanted} particles of {len(picked)} micrographs: "
        f"{out / 'noise.star'}",
        highlight=False,
        soft_wrap=True,
    )
    if crowded:
        console.print(f"No room in {len(crowded)} micrographs: {', '.join(crowded)}", highlight=False, soft_wrap=True)
    return out / "noise.star"


def _coordinates(path: Path, table: ParticleTable) -> dict[str, NDArray[np.float64]]:
    """x, y (n, 2) of the particles by their micrograph."""
    if table.star is None:
        raise InputError(f"{path}: give a RELION STAR file; .cs files hold no coordinates in pixels.")
    block = next(block for block in table.star.values() if "rlnImageName" in block)
    names = np.array(block.texts("rlnMicrographName"))
    both = np.stack([block.floats("rlnCoordinateX"), block.floats("rlnCoordinateY")], axis=1)
    return {str(name): both[names == name] for name in dict.fromkeys(names.tolist())}
