"""The particle table: where each image is, how it was taken, and nothing of its pose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import Finding, InputError
from cryogan.particles import findings
from cryogan.particles.aberrations import Aberrations
from cryogan.particles.ctf_ranges import check_ctf
from cryogan.particles.mrc import MrcHeader, read_header, require_unchanged
from cryogan.particles.stacks import (
    Where,
    find_stacks,
    header_finding,
    require_images,
    require_names,
    square_boxes,
)
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


@dataclass(frozen=True, eq=False)
class ParticleTable:
    """N particles: where their images are, and the parameters of their CTFs.

    Attributes:
        stacks: the image files, checked to exist and to hold the images.
        stack_names: their names in the particle file.
        headers: their headers.
        stack_index: (N,) which of the stacks.
        image_index: (N,) the image in it, from 0.
        pixel_size: A, of the common grid: the images' own, unless `pixel_sizes` is given.
        box: pixels, of the common grid.
        pixel_sizes: (N,), A, of the images in the files, where boxes or pixel sizes differ; None where they do not.
        ctf: float64 (N,) each of defocus_u, defocus_v (A, positive = underfocus), defocus_angle (degrees, of
            defocus_u, from x towards y), voltage (kV), spherical_aberration (mm), amplitude_contrast, phase_shift
            (degrees), b_factor (A^2), scale, and the columns of `cryogan.particles.aberrations` where one of them is
            not what it usually is. What a file read with need_ctf=False does not say is NaN.
        aberrations: what CTF refinement found, by optics group.
        micrographs: str (N,), "" where unknown.
        source: the file that was read.
        source_row: (N,) the row in it, from 0.
        star: the blocks of a STAR file; None for a .cs file.
        joined: the passthrough files that lent columns (.cs only).
        uids: uint64 (N,), cryoSPARC's; None where unknown.
        tubes: str (N,), the helical tube of each segment; None where there are none.
        subset: (N,) the half, 1 or 2, that the file puts each particle in; None where it has no halves.
        blob_sign: 1 if the file says that protein is bright, -1 if dark, None if it says nothing (.cs only).
        findings: notes and warnings about the file.
        image_folders: where the stacks were found; given to `read_particles` as `found`, it finds them again for a
            file that was written elsewhere.
    """

    stacks: tuple[Path, ...]
    stack_names: tuple[str, ...]
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
    pixel_sizes: NDArray[np.float64] | None = None
    aberrations: tuple[Aberrations, ...] = ()
    uids: NDArray[np.uint64] | None = None
    tubes: NDArray[np.str_] | None = None
    subset: NDArray[np.int64] | None = None
    blob_sign: int | None = None
    findings: tuple[Finding, ...] = ()
    image_folders: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.stack_index)

    @property
    def file_boxes(self) -> NDArray[np.int64]:
        """Sides (N,) of the images in their files, pixels."""
        return np.array([header.shape[2] for header in self.headers], dtype=np.int64)[self.stack_index]

    @property
    def file_pixel_sizes(self) -> NDArray[np.float64]:
        """Pixel sizes (N,) of the images in their files, A."""
        return np.full(len(self), self.pixel_size) if self.pixel_sizes is None else self.pixel_sizes

    def image_names(self) -> list[str]:
        """Return the N names of the images, as RELION writes them: 000001@stack.mrcs."""
        stacks = (self.stack_names[index] for index in self.stack_index)
        return [f"{number + 1:06d}@{stack}" for number, stack in zip(self.image_index, stacks, strict=True)]

    def require_unchanged(self) -> None:
        """Check that the stacks are as they were when the table was read.

        Raises:
            InputError: one has changed, or is gone.
        """
        for stack, header in zip(self.stacks, self.headers, strict=True):
            require_unchanged(stack, header)

    def select(self, rows: NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]) -> "ParticleTable":
        """Return the table of these rows (indices or mask), in their order."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        return replace(
            self,
            stack_index=self.stack_index[chosen],
            image_index=self.image_index[chosen],
            ctf={key: values[chosen] for key, values in self.ctf.items()},
            micrographs=self.micrographs[chosen],
            source_row=self.source_row[chosen],
            pixel_sizes=None if self.pixel_sizes is None else self.pixel_sizes[chosen],
            uids=None if self.uids is None else self.uids[chosen],
            tubes=None if self.tubes is None else self.tubes[chosen],
            subset=None if self.subset is None else self.subset[chosen],
        )


@dataclass(frozen=True)
class Metadata:
    """What a particle file says of its N rows, before the image files are looked at.

    Attributes:
        source: the file.
        stack_names: N names.
        image_index: (N,) from 0; -1 where the name has no number.
        pixel_sizes: (N,), A; None where the stacks' headers have to say it.
        boxes: (N,), pixels; None where the file does not say.
        ctf: columns (N,) as in `ParticleTable`.
        micrographs: (N,).
        where: place of a row, for messages.
        names: what the file calls the columns of `ctf`, for messages.
        aberrations, star, joined, uids, tubes, subset, blob_sign, findings: as in `ParticleTable`.
    """

    source: Path
    stack_names: Sequence[str]
    image_index: NDArray[np.int64]
    pixel_sizes: NDArray[np.float64] | None
    boxes: NDArray[np.float64] | None
    ctf: Mapping[str, NDArray[np.float64]]
    micrographs: NDArray[np.str_]
    where: Where
    names: Mapping[str, str]
    aberrations: tuple[Aberrations, ...] = ()
    star: dict[str, StarTable] | None = None
    joined: tuple[Path, ...] = ()
    uids: NDArray[np.uint64] | None = None
    tubes: NDArray[np.str_] | None = None
    subset: NDArray[np.int64] | None = None
    blob_sign: int | None = None
    findings: tuple[Finding, ...] = ()


def assemble(given: Metadata, need_ctf: bool, data_dir: Path | None, found: Sequence[Path]) -> ParticleTable:
    """Check what a particle file says against the image files, and make the table.

    Args:
        given: what the file says.
        need_ctf: whether the CTF has to be known.
        data_dir: another folder to look for image stacks in.
        found: folders in which they were found before.

    Raises:
        InputError: the first thing that is wrong, with its row.
    """
    where = given.where
    if not given.stack_names:
        raise InputError(f"{given.source}: holds no particles. Give a file with at least one row.")
    first_rows: dict[str, int] = {}
    for row, name in enumerate(given.stack_names):
        first_rows.setdefault(name, row)
    require_names(chain(((row, name) for name, row in first_rows.items()), enumerate(given.micrographs)), where)
    located = find_stacks(first_rows, given.source, data_dir, found, where)
    stacks = located.paths
    headers = tuple(read_header(stack) for stack in stacks)
    positions = {name: position for position, name in enumerate(first_rows)}
    stack_index = np.array([positions[name] for name in given.stack_names], dtype=np.int64)
    require_images(stacks, headers, stack_index, given.image_index, where)
    boxes = square_boxes(stacks, headers, list(first_rows.values()), where)[stack_index]
    _check_boxes(given, stacks, stack_index, boxes)
    pixel_sizes = given.pixel_sizes
    if pixel_sizes is None:
        pixel_sizes = np.array([header.pixel_size for header in headers])[stack_index]
    require_pixel_sizes(pixel_sizes, where)
    box, pixel_size = _common_grid(boxes, pixel_sizes)
    alike = bool((boxes == boxes[0]).all()) and _alike(pixel_sizes)
    doubts = [*given.findings, *header_finding(given.source, stacks, headers, stack_index, pixel_sizes)]
    if need_ctf:
        doubts += check_ctf(given.ctf, given.names, given.source, where)
    count = len(given.stack_names)
    return ParticleTable(
        stacks=stacks,
        stack_names=tuple(first_rows),
        headers=headers,
        stack_index=stack_index,
        image_index=np.maximum(given.image_index, 0),
        pixel_size=pixel_size,
        box=box,
        pixel_sizes=None if alike else pixel_sizes,
        ctf=_all_ctf_columns(given.ctf, count),
        aberrations=given.aberrations,
        micrographs=given.micrographs,
        source=given.source,
        source_row=np.arange(count, dtype=np.int64),
        star=given.star,
        joined=given.joined,
        uids=given.uids,
        tubes=given.tubes,
        subset=given.subset,
        blob_sign=given.blob_sign,
        findings=(*doubts, *([] if alike else [_grid_finding(given.source, boxes, pixel_sizes, box, pixel_size)])),
        image_folders=located.folders,
    )


def _all_ctf_columns(ctf: Mapping[str, NDArray[np.float64]], count: int) -> dict[str, NDArray[np.float64]]:
    """Return the CTF's columns (N,), with NaN or the default for those that the file lacks."""
    defaults = dict.fromkeys(CTF_REQUIRED, np.nan) | CTF_DEFAULTS
    columns = {key: ctf.get(key, np.full(count, default)) for key, default in defaults.items()}
    return columns | {key: values for key, values in ctf.items() if key not in defaults}


def _check_boxes(
    given: Metadata, stacks: Sequence[Path], stack_index: NDArray[np.int64], boxes: NDArray[np.int64]
) -> None:
    if given.boxes is None:
        return
    differ = np.flatnonzero(given.boxes != boxes)
    if differ.size:
        row = int(differ[0])
        raise InputError(
            f"{given.where(row)}: says the images have {given.boxes[row]:g} pixels a side but "
            f"{stacks[stack_index[row]]} has {boxes[row]}. Correct the metadata or give the stacks that belong to it."
        )


def _alike(pixel_sizes: NDArray[np.float64]) -> bool:
    return bool((np.abs(pixel_sizes / pixel_sizes[0] - 1) <= PIXEL_SIZE_TOLERANCE).all())


def _common_grid(boxes: NDArray[np.int64], pixel_sizes: NDArray[np.float64]) -> tuple[int, float]:
    """Return box and pixel size (A) of the grid on which all images are looked at.

    Where they differ, the grid is as wide (A) as the widest box and has the coarsest pixel: a finer one would have
    frequencies that some images lack.
    """
    if _alike(pixel_sizes) and (boxes == boxes[0]).all():
        return int(boxes[0]), float(pixel_sizes[0])
    pixel_size = float(pixel_sizes.max())
    width = ((boxes - boxes % 2) * pixel_sizes).max()
    return 2 * int(np.ceil(width / pixel_size / 2 - PIXEL_SIZE_TOLERANCE)), pixel_size


def _grid_finding(
    source: Path, boxes: NDArray[np.int64], pixel_sizes: NDArray[np.float64], box: int, pixel_size: float
) -> Finding:
    kinds, counts = np.unique(np.stack([boxes, np.round(pixel_sizes, 4)]), axis=1, return_counts=True)
    listed = [f"{n} of {b:g} px of {p:g} A" for b, p, n in zip(*kinds, counts, strict=True)]
    kind = findings.GRIDS_FAR_APART if kinds[1].max() > 2 * kinds[1].min() else findings.GRIDS
    return kind(file=str(source), kinds=", ".join(listed[:5]), counts=counts.tolist(), box=box, pixel_size_A=pixel_size)


def require_pixel_sizes(pixel_sizes: NDArray[np.float64], where: Where) -> None:
    """Check that pixel sizes are possible.

    Raises:
        InputError: one is not.
    """
    smallest, largest = _PIXEL_SIZES
    wrong = np.flatnonzero(~((pixel_sizes >= smallest) & (pixel_sizes <= largest)))
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"{where(row)}: the pixel size is {pixel_sizes[row]:g} A. Set it in the metadata, "
            "in RELION with _rlnImagePixelSize."
        )


def common_pixel_size(pixel_sizes: NDArray[np.float64], where: Where) -> float:
    """Return the pixel size, A, that all rows share.

    Raises:
        InputError: one is no pixel size, or differs from the first.
    """
    require_pixel_sizes(pixel_sizes, where)
    first = float(pixel_sizes[0])
    other = np.flatnonzero(np.abs(pixel_sizes / first - 1) > PIXEL_SIZE_TOLERANCE)
    if other.size:
        row = int(other[0])
        raise InputError(
            f"{where(row)}: the pixel size is {pixel_sizes[row]:g} A but that of the first row is {first:g} A. "
            "Give files of one pixel size."
        )
    return first
