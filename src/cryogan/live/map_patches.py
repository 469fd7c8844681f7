"""Background patches for a map, downsampled as the portions are."""

from pathlib import Path

import numpy as np

from cryogan.config import Settings
from cryogan.errors import InputError
from cryogan.live.folder import LiveFolder
from cryogan.particles import read_particles, write_stack, write_star
from cryogan.particles.images import evenly_spread
from cryogan.particles.preprocess import ImageReader
from cryogan.run.sizes import Sizes

MOST = 4000  # patches of a map


def write_patches(folder: LiveFolder, number: int, noise: Path, data_dir: Path | None, settings: Settings) -> Path:
    """Write the background patches of a map at the working box, at most `MOST`, spread evenly over the file.

    Args:
        folder: our folder.
        number: number of the map.
        noise: STAR or .cs file of patches, which may grow from map to map.
        data_dir: another folder with image stacks.
        settings: settings of the maps, as the user gave them.

    Returns:
        Their STAR file.

    Raises:
        InputError: they cannot be read.
    """
    star, stack = folder.map_noise(number), folder.map_noise(number).with_suffix(".mrcs")
    table = read_particles(noise, data_dir, need_ctf=False)
    table = table.select(evenly_spread(len(table), MOST))
    sizes = Sizes.of(table, settings)
    reader = ImageReader(table, sizes.box, sizes.background, settings.invert, settings.keep_gradient)
    images, good = reader.read(np.arange(len(table)))
    if not good.any():
        raise InputError(f"{noise}: no patch can be used. Extract them again.")
    write_stack(stack, images[good], reader.pixel_size, np.float16)
    names = [f"{image:06d}@{folder.maps.name}/{stack.name}" for image in range(1, int(good.sum()) + 1)]
    columns = {"rlnImageName": names, "rlnMicrographName": table.micrographs[good].tolist()}
    write_star(star, {"particles": columns})
    return star
