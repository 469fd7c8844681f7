"""Particle .cs files of cryoSPARC, written with poses."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.files import replacing
from cryogan.particles.cryosparc import CTF_FIELDS, MICROGRAPH
from cryogan.particles.cryosparc_tables import join, load, write
from cryogan.particles.table import ParticleTable


def write_cs_particles(
    path: Path,
    table: ParticleTable,
    rotation_vectors: NDArray[np.floating],
    shifts: NDArray[np.floating],
    half: NDArray[np.integer],
    source: Path | None = None,
    dark: bool = False,
    weight: NDArray[np.floating] | None = None,
) -> None:
    """Write a cryoSPARC particle file of format 1, with poses.

    Where the particles come from a .cs file, all its columns are kept (its uids, so that the poses join in its
    project), and alignments3D is added or replaced.

    Args:
        path: the file to write.
        table: N particles, as read from `source` or from a STAR that was written of them.
        rotation_vectors: (N, 3), axis times angle in radians, slice frame to volume frame.
        shifts: (N, 2) x, y in A, the sign of _rlnOriginXAngst.
        half: (N,) 1 or 2.
        source: the particle file that was given; if it is no .cs file, the uids are the numbers of the rows.
        dark: whether protein is dark in the images, where no .cs file says it.
        weight: (N,), probability that each shows the map.

    Raises:
        InputError: `source` does not hold the particles.
    """
    columns = _source_columns(table, source) if source is not None and source.suffix.lower() == ".cs" else None
    if columns is None:
        columns = _new_columns(table, dark)
    sizes = table.file_pixel_sizes
    # What another refinement says of its poses does not hold for these.
    columns = {name: values for name, values in columns.items() if not name.startswith("alignments3D/")}
    columns |= {
        "alignments3D/split": (half - 1).astype(np.uint32),
        "alignments3D/psize_A": sizes.astype(np.float32),
        "alignments3D/pose": rotation_vectors.astype(np.float32),
        "alignments3D/shift": (shifts / sizes[:, None]).astype(np.float32),
    }
    if weight is not None:
        columns["alignments3D/class_posterior"] = weight.astype(np.float32)
    with replacing(path) as temporary:
        write(temporary, columns)


def _source_columns(table: ParticleTable, source: Path) -> dict[str, NDArray[Any]] | None:
    """Return the source's columns of these particles, or None if one of the two has no uids."""
    records = load(source)
    if "uid" not in (records.dtype.names or ()) or table.uids is None:
        return None
    columns = join(source, records, [name for name, _ in CTF_FIELDS.values()] + [MICROGRAPH]).columns
    uids = columns["uid"].astype(np.uint64)
    order = np.argsort(uids, kind="stable")
    rows = order[np.minimum(np.searchsorted(uids, table.uids, sorter=order), len(uids) - 1)]
    if (uids[rows] != table.uids).any():
        lost = table.uids[uids[rows] != table.uids][0]
        raise InputError(f"{source}: has no particle of uid {lost}. Bring back the file that the run was given.")
    return {name: values[rows] for name, values in columns.items()}


def _new_columns(table: ParticleTable, dark: bool) -> dict[str, NDArray[Any]]:
    count, names = len(table), [str(stack.resolve()).encode() for stack in table.stacks]
    boxes = table.file_boxes.astype(np.uint32)
    columns: dict[str, NDArray[Any]] = {
        "uid": (table.source_row + 1).astype(np.uint64) if table.uids is None else table.uids,
        "blob/path": np.array(names)[table.stack_index],
        "blob/idx": table.image_index.astype(np.uint32),
        "blob/shape": np.stack([boxes, boxes], axis=1),
        "blob/psize_A": table.file_pixel_sizes.astype(np.float32),
        "blob/sign": np.full(count, -1 if dark else 1, dtype=np.float32),
        MICROGRAPH: table.micrographs.astype(np.bytes_),
    }
    for key, (name, factor) in CTF_FIELDS.items():
        columns[name] = (table.ctf[key] / factor).astype(np.float32)
    return columns
