"""Particle .cs files of cryoSPARC, in the format that NumPy reads (format 1)."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles.table import CTF_REQUIRED, ParticleTable, assemble

_NUMPY_MAGIC = b"\x93NUMPY"
_FORMAT_2_MAGIC = b"\x94CSDAT"
# key -> field, factor to the table's unit
_CTF_FIELDS = {
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
_MICROGRAPH = "location/micrograph_path"
_BLOB_FIELDS = ("blob/path", "blob/idx", "blob/psize_A")
_PASSTHROUGH = (
    'cryoSPARC keeps them in the job\'s passthrough .cs file: put it beside this file, with "passthrough" in its '
    "name, or export the particle output of the job, which joins the two."
)


def read_cs_particles(path: Path, data_dir: Path | None, need_ctf: bool) -> ParticleTable:
    """Read a cryoSPARC particle file. Raises InputError as `read_particles` says."""
    required = [*_BLOB_FIELDS, *(_CTF_FIELDS[key][0] for key in CTF_REQUIRED if need_ctf)]
    # The micrograph is not required, but pairs noise patches with particles.
    records, joined = _join(path, _load(path), [*required, _MICROGRAPH])
    missing = [name for name in _BLOB_FIELDS if name not in records]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)}; {_PASSTHROUGH}")
    if need_ctf:
        missing = [name for name in required if name not in records]
        if missing:
            raise InputError(f"{path}: no CTF: {', '.join(missing)} missing; {_PASSTHROUGH}")

    def where(row: int) -> str:
        return f"{path}, row {row + 1}"

    def column(name: str, kinds: str) -> NDArray[Any]:
        values = records[name]
        if values.ndim != 1 or values.dtype.kind not in kinds:
            raise InputError(f"{path}: {name} holds {values.dtype}, not what cryoSPARC writes; export it again.")
        return values

    def numbers(name: str) -> NDArray[np.float64]:
        with np.errstate(all="ignore"):  # what is not finite is found later, with its row
            return column(name, "fiu").astype(np.float64)

    if "blob/sign" in records:
        # One sign is left to --invert and the contrast check, which look at the images; two cannot be.
        signs = numbers("blob/sign")
        other = np.flatnonzero(signs != signs[:1])
        if other.size:
            raise InputError(
                f"{where(int(other[0]))}: blob/sign differs from the first particle's, so some images are "
                "dark and some bright; split the particles by blob/sign and invert one half."
            )
    count, box = len(records["blob/path"]), None
    if "blob/shape" in records and records["blob/shape"].size:
        box = float(records["blob/shape"].reshape(count, -1)[0, -1])
    return assemble(
        source=path,
        stack_names=_paths(column("blob/path", "SU")),
        image_index=column("blob/idx", "iu").astype(np.int64),
        pixel_sizes=numbers("blob/psize_A"),
        box=box,
        ctf={key: numbers(name) * factor for key, (name, factor) in _CTF_FIELDS.items() if name in records},
        need_ctf=need_ctf,
        micrographs=np.array(
            _paths(column(_MICROGRAPH, "SU")) if _MICROGRAPH in records else [""] * count,
            dtype=np.str_,
        ),
        where=where,
        data_dir=data_dir,
        star=None,
        joined=joined,
    )


def write_cs_particles(
    path: Path,
    table: ParticleTable,
    rotation_vectors: NDArray[np.floating],
    shifts: NDArray[np.floating],
    half: NDArray[np.integer],
) -> None:
    """Write a cryoSPARC particle file of format 1, with poses.

    Args:
        path: to write.
        table: N particles.
        rotation_vectors: (N, 3), axis times angle in radians, slice frame to volume frame.
        shifts: (N, 2) x, y in A, the sign of _rlnOriginXAngst.
        half: (N,) 1 or 2.
    """
    count, names = len(table), [str(stack.resolve()).encode() for stack in table.stacks]
    columns: dict[str, NDArray[Any]] = {
        "uid": np.arange(1, count + 1, dtype=np.uint64),
        "blob/path": np.array(names)[table.stack_index],
        "blob/idx": table.image_index.astype(np.uint32),
        "blob/shape": np.full((count, 2), table.box, dtype=np.uint32),
        "blob/psize_A": np.full(count, table.pixel_size, dtype=np.float32),
        "blob/sign": np.ones(count, dtype=np.float32),
        "alignments3D/split": (half - 1).astype(np.uint32),
        "alignments3D/psize_A": np.full(count, table.pixel_size, dtype=np.float32),
        "alignments3D/pose": rotation_vectors.astype(np.float32),
        "alignments3D/shift": (shifts / table.pixel_size).astype(np.float32),
        _MICROGRAPH: table.micrographs.astype(np.bytes_),
    }
    for key, (name, factor) in _CTF_FIELDS.items():
        columns[name] = (table.ctf[key] / factor).astype(np.float32)
    dtype = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    records = np.empty(count, dtype=dtype)
    for name, values in columns.items():
        records[name] = values
    with path.open("wb") as file:  # np.save would add .npy to the name
        np.save(file, records)


def _load(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            start, size = file.read(12), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path.") from None
    magic = start[: len(_NUMPY_MAGIC)]
    if magic == _FORMAT_2_MAGIC:
        raise InputError(
            f"{path}: is a .cs file of format 2, which only cryosparc-tools reads; convert it with "
            f'cryosparc.dataset.Dataset.load("{path.name}").save("format1.cs", format=1), or export '
            "the particles from cryoSPARC."
        )
    if magic != _NUMPY_MAGIC:
        raise InputError(f"{path}: is not a cryoSPARC .cs file; export the particles from cryoSPARC again.")
    # Two bytes of version, then the length of the header, in two bytes or, later, in four.
    if int.from_bytes(start[8:10] if start[6:7] == b"\1" else start[8:12], "little") > size:
        raise InputError(f"{path}: is cut off within its header; copy or export it again.")
    try:
        # Mapped first: np.load makes room for all that a header claims.
        records: NDArray[Any] = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # the parser of the header lets through whatever Python's own does
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise InputError(f"{path}: cannot be read as a .cs file ({reason}); copy or export it again.") from None
    if records.dtype.names is None or records.ndim != 1 or not records.dtype.itemsize:
        raise InputError(f"{path}: is a NumPy array but no table; give the particle .cs file of a job.")
    return records


def _join(path: Path, records: NDArray[Any], wanted: list[str]) -> tuple[dict[str, NDArray[Any]], tuple[Path, ...]]:
    """The columns of a file and, where wanted ones are missing, those of the passthrough files beside it.

    Rows belong together by their uid. A file that lacks a particle (that of the excluded ones, for example) has
    no part. Returns the columns, and the files from which some came.
    """
    columns: dict[str, NDArray[Any]] = {name: records[name] for name in records.dtype.names or ()}
    joined: list[Path] = []
    beside = sorted(file for file in path.parent.glob("*.cs") if "passthrough" in file.name.lower() and file != path)
    for file in beside:
        if "uid" not in columns or all(name in columns for name in wanted):
            break
        other = _load(file)
        names = other.dtype.names or ()
        if "uid" not in names or not np.isin(columns["uid"], other["uid"]).all():
            continue
        order = np.argsort(other["uid"])
        rows = order[np.searchsorted(other["uid"], columns["uid"], sorter=order)]
        new = {name: other[name][rows] for name in names if name not in columns}
        columns |= new
        joined += [file] if new else []
    return columns, tuple(joined)


def _paths(column: NDArray[Any]) -> list[str]:
    """Text of a column of bytes or str; cryoSPARC marks a path inside the project with ">"."""
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in column.tolist()]
    return [text.removeprefix(">") for text in texts]
