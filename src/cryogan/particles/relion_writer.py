"""Particle STAR files of RELION 3.1, written from a particle table."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.particles.relion import (
    MAGNIFICATION_COLUMNS,
    OPTICS_COLUMNS,
    PARTICLE_COLUMNS,
    SUBSET,
    TILT_COLUMNS,
    UID_COLUMN,
    particle_block,
)
from cryogan.particles.star import write_star
from cryogan.particles.table import ParticleTable

_ORIGINS_3_0 = {"rlnOriginX": "rlnOriginXAngst", "rlnOriginY": "rlnOriginYAngst"}  # pixels, and A of 3.1
_CONSTANTS = OPTICS_COLUMNS | MAGNIFICATION_COLUMNS | TILT_COLUMNS | {"phase_flipped": "rlnCtfDataArePhaseFlipped"}

Columns = dict[str, list[object]]


def write_particles(
    path: Path | str,
    table: ParticleTable,
    random_subset: NDArray[np.integer] | None = None,
    columns: Mapping[str, NDArray[np.number] | NDArray[np.str_]] | None = None,
) -> None:
    """Write a RELION 3.1 particle STAR with all columns of the source.

    Images are named as in the source, because RELION looks for them from the folder it is started in; those of a .cs
    file are named by their whole path. Where the source has no optics table (RELION 3.0, a .cs file) one is made.

    Args:
        path: the file to write.
        table: N particles.
        random_subset: (N,) 1 or 2, written as _rlnRandomSubset.
        columns: more columns (N,) by RELION's name, or in the place of the source's.

    Raises:
        ValueError: `random_subset` has another length or other values.
    """
    count = len(table)
    particles, optics = _of_source(table)
    names = [str(stack.resolve()) for stack in table.stacks] if table.star is None else table.stack_names
    particles["rlnImageName"] = [
        f"{image + 1:06d}@{names[stack]}" for image, stack in zip(table.image_index, table.stack_index, strict=True)
    ]
    if table.uids is not None:
        particles[UID_COLUMN] = table.uids.tolist()
    if optics is None:
        optics, particles["rlnOpticsGroup"] = _make_optics(table)
    if random_subset is not None:
        if len(random_subset) != count or not np.isin(random_subset, (1, 2)).all():
            raise ValueError(f"random_subset must hold {count} values of 1 or 2")
        particles[SUBSET] = [int(half) for half in random_subset]
    _convert_origins(table, particles)
    particles |= {name: values.tolist() for name, values in (columns or {}).items()}
    write_star(path, {"optics": optics, "particles": particles})


def _of_source(table: ParticleTable) -> tuple[Columns, Columns | None]:
    """Return the columns of the source's particles, and of its optics groups if it has them."""
    if table.star is not None:
        source = particle_block(table.source, table.star)
        optics = table.star.get("optics")
        return (
            {name: [values[row] for row in table.source_row] for name, values in source.columns.items()},
            None if optics is None else {name: list(values) for name, values in optics.columns.items()},
        )
    particles: Columns = {}
    if (table.micrographs != "").any():
        particles["rlnMicrographName"] = table.micrographs.tolist()
    for key, name in PARTICLE_COLUMNS.items():
        if np.isfinite(table.ctf[key]).all():
            particles[name] = table.ctf[key].tolist()
    return particles, None


def _convert_origins(table: ParticleTable, particles: Columns) -> None:
    """Turn origins in pixels, of RELION 3.0, into those in A; beside an optics table RELION reads no others."""
    for old, new in _ORIGINS_3_0.items():
        values = particles.pop(old, None)
        if values is not None and new not in particles:
            particles[new] = (np.array([float(str(value)) for value in values]) * table.file_pixel_sizes).tolist()


def _make_optics(table: ParticleTable) -> tuple[Columns, list[object]]:
    """Return an optics table with a group for each set of constants, and the group of each particle."""
    names = {key: name for key, name in _CONSTANTS.items() if key in table.ctf}
    constants = {name: table.ctf[key] for key, name in names.items()}
    odd = [table.ctf[key] for key in ("trefoil_y", "trefoil_x")] if "trefoil_x" in table.ctf else []
    whole = np.stack([*constants.values(), table.file_pixel_sizes, table.file_boxes, *odd], axis=1)
    groups, members = np.unique(whole, axis=0, return_inverse=True)
    numbers = range(1, len(groups) + 1)
    optics: Columns = {
        "rlnOpticsGroup": list(numbers),
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers],
        "rlnImagePixelSize": groups[:, len(constants)].tolist(),
        "rlnImageSize": [int(box) for box in groups[:, len(constants) + 1]],
        "rlnImageDimensionality": [2] * len(groups),
    }
    for column, name in enumerate(constants):
        if np.isfinite(groups[:, column]).all():
            optics[name] = groups[:, column].tolist()
    if "rlnCtfDataArePhaseFlipped" in optics:
        optics["rlnCtfDataArePhaseFlipped"] = [int(bool(value)) for value in optics["rlnCtfDataArePhaseFlipped"]]
    if odd:
        optics["rlnOddZernike"] = [f"[0,0,{y:.9g},0,0,{x:.9g}]" for y, x in groups[:, -2:]]
    return optics, [int(member) + 1 for member in members.reshape(-1)]
