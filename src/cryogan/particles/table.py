"""The particle table: where each image is, how it was taken, and nothing of its pose."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles.mrc import MrcHeader, read_header, require_unchanged
from cryogan.particles.star import StarTable

CTF_REQUIRED = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "voltage",
    "spherical_aberration",
    "amplitude_contrast",
)
CTF_DEFAULTS = {"phase_shift": 0.0, "b_factor": 0.0, "scale": 1.0}

# Beyond this two pixel sizes are two: a quarter of a pixel at the edge of a box of 512.
PIXEL_SIZE_TOLERANCE = 1e-3
_PIXEL_SIZES = (1e-3, 1e3)  # A; a number beyond is in another unit, or damaged
_LONGEST_NAME = 4096  # characters; no system has longer paths


@dataclass(frozen=True, eq=False)
class ParticleTable:
    """N particles.

    stacks: the image files, checked to exist and to hold the images; headers: theirs; stack_index (N,): which of them;
    image_index (N,): the image in it, from 0. pixel_size: A. box: pixels, as in the files.
    ctf: float64 (N,) each of defocus_u, defocus_v (A, positive = underfocus), defocus_angle (degrees, of
    defocus_u, from x towards y), voltage (kV), spherical_aberration (mm), amplitude_contrast, phase_shift
    (degrees), b_factor (A^2), scale; what a file read with need_ctf=False does not say is NaN.
    micrographs: str (N,), "" where unknown. source: the file that was read; source_row (N,): the row in it,
    from 0; star: its blocks, None for a .cs file; joined: the files that lent it columns (.cs only).
    """

    stacks: tuple[Path, ...]
    headers: tuple[MrcHeader, ...]
    stack_index: NDArray[np.int64]
    image_index: NDArray[np.int64]
    pixel_size: float
    box: int
    ctf: dict[str, NDArray[np.float64]]
    micrographs: NDArray[np.str_]
    source: Path
    source_row: NDArray[np.int64]
    star: dict[str, StarTable] | None = field(default=None, repr=False)
    joined: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.stack_index)

    def require_unchanged(self) -> None:
        """Raise InputError if a stack has changed, or is gone, since the table was read."""
        for stack, header in zip(self.stacks, self.headers, strict=True):
            require_unchanged(stack, header)

    def select(self, rows: NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]) -> "ParticleTable":
        """The table of these rows (indices or mask), in their order."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        return replace(
            self,
            stack_index=self.stack_index[chosen],
            image_index=self.image_index[chosen],
            ctf={key: values[chosen] for key, values in self.ctf.items()},
            micrographs=self.micrographs[chosen],
            source_row=self.source_row[chosen],
        )


def assemble(
    *,
    source: Path,
    stack_names: Sequence[str],
    image_index: NDArray[np.int64],
    pixel_sizes: NDArray[np.float64] | None,
    box: float | None,
    ctf: Mapping[str, NDArray[np.float64]],
    need_ctf: bool,
    micrographs: NDArray[np.str_],
    where: Callable[[int], str],
    data_dir: Path | None,
    star: dict[str, StarTable] | None,
    joined: tuple[Path, ...] = (),
) -> ParticleTable:
    """Check what a metadata file said against the image files, and make the table.

    stack_names, image_index, pixel_sizes (A), micrographs and the values of ctf have one entry for each row.
    Without pixel_sizes the stacks' headers give them. box is what the metadata says, None where it does not.
    Raises InputError for the first thing that is wrong, with its row.
    """
    if not stack_names:
        raise InputError(f"{source}: holds no particles; give a file with at least one row.")
    first_rows: dict[str, int] = {}
    for row, name in enumerate(stack_names):
        first_rows.setdefault(name, row)
    for row, name in chain(((row, name) for name, row in first_rows.items()), enumerate(micrographs)):
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise InputError(f"{where(row)}: {name[:50]!r} is no name of a file; correct that row.")
    stacks = _find_stacks(first_rows, source, data_dir, where)
    headers = tuple(read_header(stack) for stack in stacks)
    found_box = _common_box(stacks, headers, list(first_rows.values()), where)
    if box is not None and box != found_box:
        raise InputError(
            f"{source}: says the images have {box:g} pixels a side but {stacks[0]} has {found_box}; "
            "correct the metadata or give the stacks that belong to it."
        )
    positions = {name: position for position, name in enumerate(first_rows)}
    stack_index = np.array([positions[name] for name in stack_names], dtype=np.int64)
    _check_image_numbers(stacks, headers, stack_index, image_index, where)
    if pixel_sizes is None:
        pixel_sizes = np.array([header.pixel_size for header in headers])[stack_index]
    if need_ctf:
        _check_ctf(ctf, where)
    rows = len(stack_names)
    return ParticleTable(
        stacks=stacks,
        headers=headers,
        stack_index=stack_index,
        image_index=image_index,
        pixel_size=common_pixel_size(pixel_sizes, where),
        box=found_box,
        ctf={
            **{key: ctf.get(key, np.full(rows, np.nan)) for key in CTF_REQUIRED},
            **{key: ctf.get(key, np.full(rows, default)) for key, default in CTF_DEFAULTS.items()},
        },
        micrographs=micrographs,
        source=source,
        source_row=np.arange(rows, dtype=np.int64),
        star=star,
        joined=joined,
    )


def find_file(name: str, folders: Iterable[Path]) -> Path | None:
    """The first file of that name in the folders; an absolute name stays as it is."""
    for folder in folders:
        with suppress(OSError):  # too long a name, a folder that may not be read
            if (folder / name).is_file():
                return folder / name
    return None


def _find_stacks(
    first_rows: Mapping[str, int], source: Path, data_dir: Path | None, where: Callable[[int], str]
) -> tuple[Path, ...]:
    """Look beside the metadata file, then in each folder above it (a project's folder), then in data_dir."""
    folders = list(source.absolute().parents)
    found: dict[str, Path] = {}
    for name in first_rows:
        path = find_file(name, folders)
        if path is None and data_dir is not None:
            path = find_file(name, [data_dir]) or find_file(Path(name).name, [data_dir])
        if path is not None:
            found[name] = path
    missing = [name for name in first_rows if name not in found]
    if missing:
        raise InputError(
            f"{where(first_rows[missing[0]])}: the image stack {missing[0]} was not found ({len(missing)} of "
            f"{len(first_rows)} stacks are missing); name the folder that holds them with --data-dir."
        )
    return tuple(found.values())


def _common_box(
    stacks: Sequence[Path], headers: Sequence[MrcHeader], rows: Sequence[int], where: Callable[[int], str]
) -> int:
    box = headers[0].shape[2]
    for stack, header, row in zip(stacks, headers, rows, strict=True):
        _, height, width = header.shape
        if height != width:
            raise InputError(
                f"{where(row)}: the images of {stack} are {width} x {height} pixels; extract square boxes."
            )
        if width != box:
            raise InputError(
                f"{where(row)}: the images of {stack} have {width} pixels a side but those of {stacks[0]} "
                f"have {box}; extract all with one box, or split the particles by box."
            )
    return box


def _check_image_numbers(
    stacks: Sequence[Path],
    headers: Sequence[MrcHeader],
    stack_index: NDArray[np.int64],
    image_index: NDArray[np.int64],
    where: Callable[[int], str],
) -> None:
    counts = np.array([header.shape[0] for header in headers])[stack_index]
    outside = np.flatnonzero((image_index < 0) | (image_index >= counts))
    if outside.size:
        row = int(outside[0])
        raise InputError(
            f"{where(row)}: there is no image {image_index[row] + 1} in {stacks[stack_index[row]]}, which "
            f"holds {counts[row]} images; give the stack that belongs to this file, or remove the row."
        )


def common_pixel_size(pixel_sizes: NDArray[np.float64], where: Callable[[int], str]) -> float:
    """The pixel size, A, that all rows share. Raises InputError for the first that is no such size, or another."""
    first = float(pixel_sizes[0])
    smallest, largest = _PIXEL_SIZES
    wrong = np.flatnonzero(~((pixel_sizes >= smallest) & (pixel_sizes <= largest)))
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"{where(row)}: the pixel size is {pixel_sizes[row]:g} A; set it in the metadata, "
            "in RELION with _rlnImagePixelSize."
        )
    other = np.flatnonzero(np.abs(pixel_sizes / first - 1) > PIXEL_SIZE_TOLERANCE)
    if other.size:
        row = int(other[0])
        raise InputError(
            f"{where(row)}: the pixel size is {pixel_sizes[row]:g} A but the first particle's is {first:g} "
            "A; split the particles by pixel size, or rescale with relion_image_handler --rescale_angpix."
        )
    return first


def _check_ctf(ctf: Mapping[str, NDArray[np.float64]], where: Callable[[int], str]) -> None:
    for key, values in ctf.items():
        bad = ~np.isfinite(values)
        if key == "voltage":
            bad |= values <= 0
        if key == "amplitude_contrast":
            bad |= (values < 0) | (values > 1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(f"{where(row)}: {key.replace('_', ' ')} is {values[row]:g}; correct or remove that row.")
