"""Particle STAR files of RELION 3.0 (one table) and 3.1 and later (an optics table and a particle table)."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles.star import StarTable, read_star, write_star
from cryogan.particles.table import (
    CTF_REQUIRED,
    PIXEL_SIZE_TOLERANCE,
    ParticleTable,
    assemble,
)

_OPTICS_COLUMNS = {
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
_PARTICLE_COLUMNS = {
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "defocus_angle": "rlnDefocusAngle",
    "phase_shift": "rlnPhaseShift",
    "b_factor": "rlnCtfBfactor",
    "scale": "rlnCtfScalefactor",
}
_COLUMNS = _OPTICS_COLUMNS | _PARTICLE_COLUMNS
_MOST_DIGITS = 18  # of an image's number, held in 64 bits


def read_star_particles(path: Path, data_dir: Path | None, need_ctf: bool) -> ParticleTable:
    """Read a RELION particle STAR file. Raises InputError as `read_particles` says."""
    blocks = read_star(path)
    particles = _particle_block(path, blocks)
    optics = blocks.get("optics")
    if not len(particles):
        raise InputError(f"{path}: holds no particles; give a STAR file with at least one row.")
    group_rows = None if optics is None else _group_rows(particles, optics)

    def column(name: str) -> NDArray[np.float64] | None:
        if optics is not None and group_rows is not None and name in optics:
            return optics.floats(name)[group_rows]
        return particles.floats(name) if name in particles else None

    if need_ctf:
        _check_ctf_columns(path, particles, optics)
        premultiplied = column("rlnCtfDataAreCtfPremultiplied")
        if premultiplied is not None and premultiplied.any():
            raise InputError(
                f"{path}: the images are multiplied by their CTF (_rlnCtfDataAreCtfPremultiplied); "
                "extract them again without that."
            )
    if optics is not None and group_rows is not None:
        _check_groups_agree(optics, np.unique(group_rows))
    pixel_sizes = column("rlnImagePixelSize")
    if pixel_sizes is None:
        detector, magnification = column("rlnDetectorPixelSize"), column("rlnMagnification")
        if detector is not None and magnification is not None:
            with np.errstate(all="ignore"):
                pixel_sizes = detector * 1e4 / magnification
        elif need_ctf:
            raise InputError(
                f"{path}: no pixel size; add _rlnImagePixelSize (A) to data_optics, or to the particles "
                "where there is no data_optics (or _rlnDetectorPixelSize and _rlnMagnification)."
            )
    image_sizes = column("rlnImageSize")
    image_index, stack_names = _image_names(particles)
    ctf = {key: values for key, name in _COLUMNS.items() if (values := column(name)) is not None}
    micrographs = particles.columns.get("rlnMicrographName", [""] * len(particles))
    return assemble(
        source=path,
        stack_names=stack_names,
        image_index=image_index,
        pixel_sizes=pixel_sizes,
        box=None if image_sizes is None else float(image_sizes[0]),
        ctf=ctf,
        need_ctf=need_ctf,
        micrographs=np.array(micrographs, dtype=np.str_),
        where=particles.where,
        data_dir=data_dir,
        star=blocks,
    )


_ORIGINS_3_0 = ("rlnOriginX", "rlnOriginY")  # pixels; beside the angstroms of 3.1 they would be read first


def write_particles(
    path: Path | str,
    table: ParticleTable,
    random_subset: NDArray[np.integer] | None = None,
    columns: Mapping[str, NDArray[np.number]] | None = None,
) -> None:
    """Write a RELION 3.1 particle STAR: all columns of the source, image names relative to the new file.

    random_subset (N,) of 1 and 2 becomes _rlnRandomSubset; columns are more of (N,) by RELION's name, or in
    the place of the source's. Where the source has no optics table (RELION 3.0,
    a .cs file) one is made, a group for each voltage, spherical aberration and amplitude contrast. Raises
    ValueError for a random_subset of another length or other values.
    """
    path = Path(path)
    count = len(table)
    particles: dict[str, list[object]] = {}
    optics: dict[str, list[object]] | None = None
    if table.star is not None:
        source = _particle_block(table.source, table.star)
        particles = {name: [values[row] for row in table.source_row] for name, values in source.columns.items()}
        if "optics" in table.star:
            optics = {name: list(values) for name, values in table.star["optics"].columns.items()}
    else:
        if (table.micrographs != "").any():
            particles["rlnMicrographName"] = table.micrographs.tolist()
        for key, name in _PARTICLE_COLUMNS.items():
            if np.isfinite(table.ctf[key]).all():
                particles[name] = table.ctf[key].tolist()

    names = [_name_from(path.parent, stack) for stack in table.stacks]
    particles["rlnImageName"] = [
        f"{image + 1:06d}@{names[stack]}" for image, stack in zip(table.image_index, table.stack_index, strict=True)
    ]
    if optics is None:
        optics, particles["rlnOpticsGroup"] = _make_optics(table)
    if random_subset is not None:
        if len(random_subset) != count or not np.isin(random_subset, (1, 2)).all():
            raise ValueError(f"random_subset must hold {count} values of 1 or 2")
        particles["rlnRandomSubset"] = [int(half) for half in random_subset]
    if columns is not None and "rlnOriginXAngst" in columns:
        for name in _ORIGINS_3_0:
            particles.pop(name, None)
    particles |= {name: values.tolist() for name, values in (columns or {}).items()}
    write_star(path, {"optics": optics, "particles": particles})


def _particle_block(path: Path, blocks: dict[str, StarTable]) -> StarTable:
    named = [block for block in blocks.values() if "rlnImageName" in block]
    if not named:
        raise InputError(f"{path}: no block has a column _rlnImageName; give a particle STAR file.")
    if len(named) > 1 and "rlnImageName" not in blocks.get("particles", ()):
        found = ", ".join(f"data_{block.name}" for block in named)
        raise InputError(f"{path}: {found} all name images; keep one, or call it data_particles.")
    return next((block for block in named if block.name == "particles"), named[0])


def _group_rows(particles: StarTable, optics: StarTable) -> NDArray[np.int64]:
    """The row in the optics table for each particle."""
    rows = {group: row for row, group in enumerate(optics.texts("rlnOpticsGroup"))}
    groups = particles.texts("rlnOpticsGroup")
    for row, group in enumerate(groups):
        if group not in rows:
            raise InputError(
                f"{particles.where(row)}: optics group {group[:50]} is not in data_optics (which has "
                f"{', '.join(rows)[:200] or 'none'}); add it there or correct the row."
            )
    return np.array([rows[group] for group in groups], dtype=np.int64)


def _check_groups_agree(optics: StarTable, used: NDArray[np.int64]) -> None:
    """Box and pixel size must be one over the groups that particles refer to."""
    for name, what, tolerance in (
        ("rlnImageSize", "boxes", 0.0),
        ("rlnImagePixelSize", "pixel sizes", PIXEL_SIZE_TOLERANCE),
    ):
        if name not in optics:
            continue
        values = optics.floats(name)[used]
        with np.errstate(all="ignore"):
            differ = np.any(np.abs(values - values[0]) > tolerance * abs(values[0]))
        if differ:
            groups = optics.texts("rlnOpticsGroup")
            listed = ", ".join(f"group {groups[row]}: {value:g}" for row, value in zip(used, values, strict=True))
            raise InputError(
                f"{optics.path}: the optics groups differ in their {what} ({listed}); split the particles by "
                "group, or rescale with relion_image_handler --rescale_angpix (and --new_box) and "
                "relion_stack_create."
            )


def _check_ctf_columns(path: Path, particles: StarTable, optics: StarTable | None) -> None:
    missing = [
        f"_{_COLUMNS[key]}"
        for key in CTF_REQUIRED
        if _COLUMNS[key] not in particles and (optics is None or _COLUMNS[key] not in optics)
    ]
    if missing:
        raise InputError(
            f"{path}: no CTF: {', '.join(missing)} missing; estimate the CTF (e.g. relion_run_ctffind) and "
            "extract again, or join these columns from the micrographs' STAR file."
        )


def _image_names(particles: StarTable) -> tuple[NDArray[np.int64], list[str]]:
    """Index from 0 and stack of "000001@stack.mrcs"; a name without @ is a file of one image."""
    indices, stacks = [], []
    shared: dict[str, str] = {}  # of the stacks' names
    for row, name in enumerate(particles.texts("rlnImageName")):
        number, at, stack = name.partition("@")
        if not at:
            number, stack = "1", name
        if not number.isascii() or not number.isdigit() or len(number) > _MOST_DIGITS or not stack:
            raise InputError(f'{particles.where(row)}: _rlnImageName is "{name[:50]}"; write it as 000001@stack.mrcs.')
        indices.append(int(number) - 1)
        stacks.append(shared.setdefault(stack, stack))
    return np.array(indices, dtype=np.int64), stacks


def _name_from(folder: Path, stack: Path) -> str:
    # Resolved, because ".." leads out of a linked folder to another place than its name suggests.
    try:
        return os.path.relpath(stack.resolve(), folder.resolve())
    except ValueError:  # another drive, on Windows
        return str(stack.resolve())


def _make_optics(table: ParticleTable) -> tuple[dict[str, list[object]], list[object]]:
    constants = np.stack([table.ctf[key] for key in _OPTICS_COLUMNS], axis=1)
    groups, members = np.unique(constants, axis=0, return_inverse=True)
    numbers = range(1, len(groups) + 1)
    assigned: list[object] = [int(member) + 1 for member in members.reshape(-1)]
    optics: dict[str, list[object]] = {
        "rlnOpticsGroup": list(numbers),
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers],
        "rlnImagePixelSize": [table.pixel_size] * len(groups),
        "rlnImageSize": [table.box] * len(groups),
        "rlnImageDimensionality": [2] * len(groups),
    }
    for column, name in enumerate(_OPTICS_COLUMNS.values()):
        if np.isfinite(groups[:, column]).all():
            optics[name] = groups[:, column].tolist()
    return optics, assigned
