"""The tables of .cs files: both formats, and the passthrough files that hold the rest of a job's columns."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError

_NUMPY_MAGIC = b"\x93NUMPY"
_FORMAT_2_MAGICS = (b"\x94CSDAT", b"\x95CSDAT")  # before and since version 5 of cryosparc-tools
_JOB = re.compile(r"(?:^|[^A-Za-z0-9])(J\d+)(?=[^A-Za-z0-9]|$)")

Table = NDArray[Any]


@dataclass
class Joined:
    """The columns of a .cs file and of its passthrough files.

    Attributes:
        columns: (N, ...) by name.
        files: the passthrough files that lent columns.
        missing: how many particles lack a wanted column that the passthrough files have for the others, by its name.
        looked_at: the passthrough files, each with the number of the particles that it holds.
        lent: the columns that each of them has.
        other_jobs: passthrough files of other jobs, which were not used.
    """

    columns: dict[str, Table]
    files: tuple[Path, ...] = ()
    missing: dict[str, int] = field(default_factory=dict)
    looked_at: dict[Path, int] = field(default_factory=dict)
    lent: dict[Path, set[str]] = field(default_factory=dict)
    other_jobs: tuple[Path, ...] = ()


def load(path: Path) -> Table:
    """Read a .cs file as a structured array.

    Format 2 is read by cryosparc-tools, if it is installed.

    Raises:
        InputError: the file cannot be read, or is no table.
    """
    try:
        with path.open("rb") as file:
            start, size = file.read(12), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path.") from None
    magic = start[: len(_NUMPY_MAGIC)]
    if magic in _FORMAT_2_MAGICS:
        return _load_format_2(path)
    if magic != _NUMPY_MAGIC:
        raise InputError(f"{path}: is not a cryoSPARC .cs file. Export the particles from cryoSPARC again.")
    # Two bytes of version, then the length of the header, in two bytes or, later, in four.
    if int.from_bytes(start[8:10] if start[6:7] == b"\1" else start[8:12], "little") > size:
        raise InputError(f"{path}: is cut off within its header. Copy or export it again.")
    try:
        # Mapped first: np.load makes room for all that a header claims.
        records: Table = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # the parser of the header lets through whatever Python's own does
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise InputError(f"{path}: cannot be read as a .cs file ({reason}). Copy or export it again.") from None
    if records.dtype.names is None or records.ndim != 1 or not records.dtype.itemsize:
        raise InputError(f"{path}: is a NumPy array but no table. Give the particle .cs file of a job.")
    return records


def _load_format_2(path: Path) -> Table:
    remedy = (
        f'Convert it with cryosparc.dataset.Dataset.load("{path.name}").save("format1.cs", format=1), or export the '
        "particles from cryoSPARC."
    )
    try:
        from cryosparc.dataset import Dataset
    except ImportError:
        raise InputError(
            f"{path}: is a .cs file of format 2, which only cryosparc-tools reads. Install it here (python "
            f"-m pip install 'cryogan[cryosparc]'). {remedy}"
        ) from None
    try:
        records: Table = np.asarray(Dataset.load(path).to_records(fixed=True))
    except Exception:
        raise InputError(
            f"{path}: is a .cs file of format 2, but the cryosparc-tools here cannot read it. Copy it again. {remedy}"
        ) from None
    return records


def require_unique(path: Path, records: Table) -> None:
    """Check that no uid stands in two rows that differ.

    Raises:
        InputError: one does; rows that are joined on it would take the values of either.
    """
    if "uid" not in (records.dtype.names or ()):
        return
    uids = records["uid"]
    order = np.argsort(uids, kind="stable")
    same = np.flatnonzero(uids[order][1:] == uids[order][:-1])
    for first, second in zip(order[same], order[same + 1], strict=True):
        if records[first].tobytes() != records[second].tobytes():
            raise InputError(
                f"{path}: uid {uids[first]} stands in rows {first + 1} and {second + 1} with different values "
                f"({len(same)} such rows). Remove the copies, or export the particles of one job."
            )


def join(path: Path, records: Table, wanted: list[str]) -> Joined:
    """Add the columns of the passthrough files beside a .cs file, where wanted ones are missing.

    Rows belong together by their uid. Passthrough files may hold a part of the particles each; where two hold the same
    particle they have to agree. Those of another job, by the number in their names, have no part.

    Args:
        path: the file.
        records: its rows.
        wanted: names of columns.

    Raises:
        InputError: a uid stands for different values.
    """
    names = records.dtype.names or ()
    require_unique(path, records)
    result = Joined({name: records[name] for name in names})
    if "uid" not in names or all(name in names for name in wanted):
        return result
    job = _job(path)
    beside = sorted(file for file in path.parent.glob("*.cs") if "passthrough" in file.name.lower() and file != path)
    result.other_jobs = tuple(file for file in beside if None not in (job, _job(file)) and job != _job(file))
    parts = _Parts(records["uid"], set(names))
    for file in beside:
        if file not in result.other_jobs and (held := parts.add(file, load(file))) is not None:
            result.looked_at[file] = held
    whole = {name: values for name, values in parts.columns.items() if parts.filled[name].all()}
    result.columns |= whole
    result.lent = parts.lent
    result.files = tuple(file for file, lent in parts.lent.items() if lent & whole.keys())
    result.missing = {
        name: int((~parts.filled[name]).sum()) for name in wanted if name in parts.filled and name not in whole
    }
    return result


def _job(path: Path) -> str | None:
    """Return the number of the job that wrote a file, such as J37, from the file's name or its folder's."""
    for name in (path.name, path.absolute().parent.name):
        if found := _JOB.findall(name.replace("_", " ")):
            return str(found[-1])
    return None


class _Parts:
    """Columns that are put together from several files."""

    def __init__(self, uids: Table, known: set[str]) -> None:
        self.uids, self.known = uids, known
        self.columns: dict[str, Table] = {}
        self.filled: dict[str, NDArray[np.bool_]] = {}
        self.lent: dict[Path, set[str]] = {}
        self._from: dict[str, Path] = {}

    def add(self, file: Path, other: Table) -> int | None:
        """Take the columns of a file; return how many of the particles it holds, or None without uids."""
        if "uid" not in (other.dtype.names or ()):
            return None
        rows = np.flatnonzero(np.isin(self.uids, other["uid"]))
        if not rows.size:
            return 0
        require_unique(file, other)
        order = np.argsort(other["uid"], kind="stable")
        source = order[np.searchsorted(other["uid"], self.uids[rows], sorter=order)]
        self.lent[file] = set()
        for name in other.dtype.names or ():
            if name not in self.known:
                self._fill(file, name, rows, other[name][source])
        return len(rows)

    def _fill(self, file: Path, name: str, rows: NDArray[np.int64], values: Table) -> None:
        if name not in self.columns:
            self.columns[name] = np.zeros((len(self.uids), *values.shape[1:]), dtype=values.dtype)
            self.filled[name] = np.zeros(len(self.uids), dtype=np.bool_)
        column, filled = self.columns[name], self.filled[name]
        if column.shape[1:] != values.shape[1:] or column.dtype.kind != values.dtype.kind:
            raise InputError(f"{file}: {name} has another form than in {self._from[name]}. Export the particles again.")
        before = filled[rows]
        differ = column[rows[before]] != values[before]
        differ = differ.any(axis=tuple(range(1, differ.ndim)))
        if differ.any():
            uid = self.uids[rows[before][differ.argmax()]]
            raise InputError(
                f"{file} and {self._from[name]}: uid {uid} has different values of {name} ({differ.sum()} such "
                "particles). Leave only the passthrough files of one job beside the particles."
            )
        column = column.astype(np.promote_types(column.dtype, values.dtype), copy=False)
        column[rows[~before]] = values[~before]
        filled[rows] = True
        self.columns[name] = column
        self._from[name] = file
        self.lent[file].add(name)


def write(path: Path, columns: Mapping[str, Table]) -> None:
    """Write a .cs file of format 1.

    Args:
        path: a temporary path: the file is written in place.
        columns: (N, ...) by name.
    """
    count = len(next(iter(columns.values())))
    records = np.empty(count, dtype=[(name, values.dtype, values.shape[1:]) for name, values in columns.items()])
    for name, values in columns.items():
        records[name] = values
    with path.open("wb") as file:  # np.save would add .npy to the name
        np.save(file, records)
