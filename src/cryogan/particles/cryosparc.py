"""Particle .cs files of cryoSPARC."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles.aberrations import Aberrations, from_cryosparc, used_columns
from cryogan.particles.cryosparc_tables import Joined, join, load
from cryogan.particles.stacks import Where
from cryogan.particles.table import CTF_REQUIRED, Metadata, ParticleTable, assemble

# key -> field, factor to the table's unit
CTF_FIELDS = {
    "defocus_u": ("ctf/df1_A", 1.0),
    "defocus_v": ("ctf/df2_A", 1.0),
    "defocus_angle": ("ctf/df_angle_rad", 180 / np.pi),
    "voltage": ("ctf/accel_kv", 1.0),
    "spherical_aberration": ("ctf/cs_mm", 1.0),
    "amplitude_contrast": ("ctf/amp_contrast", 1.0),
    "phase_shift": ("ctf/phase_shift_rad", 180 / np.pi),
    "b_factor": ("ctf/bfactor", 1.0),
    "scale": ("ctf/scale", 1.0),
}
MICROGRAPH = "location/micrograph_path"
SPLIT = "alignments3D/split"
_BLOB_FIELDS = ("blob/path", "blob/idx", "blob/psize_A")
_ABERRATION_FIELDS = {"ctf/tilt_A": 2, "ctf/trefoil_A": 2, "ctf/tetra_A": 4, "ctf/anisomag": 4}


class _Fields:
    """The columns of a particle file, each checked for its type."""

    def __init__(self, path: Path, columns: dict[str, NDArray[Any]]) -> None:
        self.path, self.columns = path, columns

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def get(self, name: str, kinds: str, width: int | None = None) -> NDArray[Any]:
        """Return a column of one of these kinds of NumPy, of `width` numbers a row.

        Raises:
            InputError: it holds something else.
        """
        values = self.columns[name]
        if values.dtype.kind not in kinds or values.shape[1:] != (() if width is None else (width,)):
            raise InputError(f"{self.path}: {name} holds {values.dtype}, not what cryoSPARC writes. Export it again.")
        return values

    def numbers(self, name: str, width: int | None = None) -> NDArray[np.float64]:
        with np.errstate(all="ignore"):  # what is not finite is found later, with its row
            return self.get(name, "fiu", width).astype(np.float64)


def read_cs_particles(path: Path, data_dir: Path | None, need_ctf: bool, found: Sequence[Path] = ()) -> ParticleTable:
    """Read a cryoSPARC particle file; arguments and errors are those of `read_particles`."""
    required = [*_BLOB_FIELDS, *(CTF_FIELDS[key][0] for key in CTF_REQUIRED if need_ctf)]
    # The micrograph is not required, but pairs noise patches with particles.
    joined = join(path, load(path), [*required, MICROGRAPH])
    fields = _Fields(path, joined.columns)
    for names, problem in ((_BLOB_FIELDS, "no {}"), (required, "no CTF: {} missing")):
        missing = [name for name in names if name not in fields]
        if missing:
            raise InputError(f"{path}: {problem.format(', '.join(missing))}. {_where_to_find(joined)}")

    def where(row: int) -> str:
        return f"{path}, row {row + 1}"

    count = len(joined.columns["blob/path"])
    ctf = {key: fields.numbers(name) * factor for key, (name, factor) in CTF_FIELDS.items() if name in fields}
    tubes = fields.get("filament/filament_uid", "iu") if "filament/filament_uid" in fields else None
    return assemble(
        Metadata(
            source=path,
            stack_names=_paths(fields.get("blob/path", "SU")),
            image_index=fields.get("blob/idx", "iu").astype(np.int64),
            pixel_sizes=fields.numbers("blob/psize_A"),
            boxes=_boxes(joined.columns, count),
            ctf=ctf,
            micrographs=np.array(
                _paths(fields.get(MICROGRAPH, "SU")) if MICROGRAPH in fields else [""] * count, dtype=np.str_
            ),
            where=where,
            names={key: name for key, (name, _) in CTF_FIELDS.items()},
            aberrations=_add_aberrations(fields, ctf),
            joined=joined.files,
            uids=fields.get("uid", "iu").astype(np.uint64) if "uid" in fields else None,
            tubes=None if tubes is None or not tubes.any() else tubes.astype(np.str_),
            subset=_subset(fields),
            blob_sign=_sign(fields, where),
        ),
        need_ctf,
        data_dir,
        found,
    )


def _subset(fields: _Fields) -> NDArray[np.int64] | None:
    """Return the half, 1 or 2, of each particle, or None where all are in one."""
    if SPLIT not in fields:
        return None
    split = fields.get(SPLIT, "iu").astype(np.int64)
    return 1 + split if set(np.unique(split)) == {0, 1} else None


def _where_to_find(joined: Joined) -> str:
    """Say what is known of the passthrough files beside the particles."""
    if joined.missing:
        name, lacking = next(iter(joined.missing.items()))
        files = [file for file, lent in joined.lent.items() if name in lent]
        held = ", ".join(f"{file.name} has it of {joined.looked_at[file]}" for file in files)
        return (
            f"The passthrough files beside it lack {name} of {lacking} particles ({held}). Put the other parts beside "
            "it, or export the particle output of the job, which joins them."
        )
    text = (
        'cryoSPARC keeps them in the job\'s passthrough .cs file: put it beside this file, with "passthrough" in its '
        "name, or export the particle output of the job, which joins the two."
    )
    if joined.other_jobs:
        text += f" ({joined.other_jobs[0].name} is of another job.)"
    elif joined.looked_at:
        text += f" ({next(iter(joined.looked_at)).name} holds none of its particles' columns.)"
    return text


def _sign(fields: _Fields, where: Where) -> int | None:
    """Return blob/sign: 1 for protein bright in the images, -1 for dark."""
    if "blob/sign" not in fields:
        return None
    signs = fields.numbers("blob/sign")
    other = np.flatnonzero(signs != signs[:1])
    if other.size:
        raise InputError(
            f"{where(int(other[0]))}: blob/sign differs from the first particle's, so some images are "
            "dark and some bright. Split the particles by blob/sign and invert one half."
        )
    return int(signs[0]) if signs.size and signs[0] in (1, -1) else None


def _boxes(columns: dict[str, NDArray[Any]], count: int) -> NDArray[np.float64] | None:
    shapes = columns.get("blob/shape")
    if shapes is None or not shapes.size or shapes.dtype.kind not in "fiu":
        return None
    boxes: NDArray[np.float64] = shapes.reshape(count, -1)[:, -1].astype(np.float64)
    return boxes


def _add_aberrations(fields: _Fields, ctf: dict[str, NDArray[np.float64]]) -> tuple[Aberrations, ...]:
    """Add to the CTF's columns what CTF refinement found, and return what cannot be modelled."""
    given = {name: fields.numbers(name, width) for name, width in _ABERRATION_FIELDS.items() if name in fields}
    if not given or "voltage" not in ctf or "spherical_aberration" not in ctf:
        return ()
    with np.errstate(all="ignore"):  # a bad voltage is refused later, with its row
        columns, left = from_cryosparc(given, ctf["voltage"], ctf["spherical_aberration"])
    ctf |= used_columns(columns)
    return left


def _paths(column: NDArray[Any]) -> list[str]:
    """Return the text of a column of bytes or str; cryoSPARC marks a path inside the project with ">"."""
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in column.tolist()]
    return [text.removeprefix(">") for text in texts]
