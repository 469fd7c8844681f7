"""Where the image stacks of a particle file are, and whether they hold what the file says."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import Finding, InputError
from cryogan.particles import findings
from cryogan.particles.mrc import MrcHeader

_LONGEST_NAME = 4096  # characters; no system has longer paths
_HEADER_TOLERANCE = 0.01  # by which the pixel size of a stack's header may differ from the metadata's

Where = Callable[[int], str]  # place of a row, for messages


def require_names(rows: Iterable[tuple[int, str]], where: Where) -> None:
    """Refuse text that no file can be called.

    Raises:
        InputError: a name is too long, or holds a character that cannot be printed.
    """
    for row, name in rows:
        if len(name) > _LONGEST_NAME or not name.isprintable():
            shown = "".join(letter if letter.isprintable() else "?" for letter in name[:50])
            raise InputError(f'{where(row)}: "{shown}" is no name of a file. Correct that row.')


@dataclass(frozen=True)
class FoundStacks:
    """The image stacks of a particle file.

    Attributes:
        paths: one for each name.
        folders: where they were found, in the order of the search; `find_stacks` finds the stacks again in these, from
            wherever it is called.
    """

    paths: tuple[Path, ...]
    folders: tuple[Path, ...]


def find_stacks(
    first_rows: Mapping[str, int], source: Path, data_dir: Path | None, found: Sequence[Path], where: Where
) -> FoundStacks:
    """Find the image stacks that a particle file names.

    They are looked for in the folders of `found`, beside the file, in each folder above it (a project's folder), in the
    current folder (as RELION does) and in `data_dir`; then, without their folders, in `found` and `data_dir`.

    Args:
        first_rows: the first row of each name.
        source: the particle file.
        data_dir: another folder, which the user gave.
        found: folders where they were found before, in the order of that search.
        where: place of a row, for messages.

    Raises:
        InputError: a stack is missing, or one file would have to serve two names.
    """
    given = [*found, *([] if data_dir is None else [data_dir])]
    folders = [*found, *source.absolute().parents, Path.cwd(), *given[len(found) :]]
    paths: dict[str, Path] = {}
    used: set[Path] = set()
    served: dict[Path, str] = {}  # names by the file that was found without their folders
    for name, row in first_rows.items():
        short = Path(name).name
        folder = _folder_of(name, folders)
        path = None if folder is None else folder / name
        if folder is None and (folder := _folder_of(short, given)) is not None:
            path = folder / short
            other = served.setdefault(path, name)
            if os.path.normpath(other) != os.path.normpath(name):
                raise InputError(
                    f"{where(row)}: {path} would have to serve for two stacks, {other} and {name}. Give a folder that "
                    "has both in their folders as --data-dir."
                )
        if folder is not None and path is not None:
            paths[name] = path
            used.add(folder)
    missing = [name for name in first_rows if name not in paths]
    if missing:
        raise InputError(
            f"{where(first_rows[missing[0]])}: the image stack {missing[0]} was not found ({len(missing)} of "
            f"{len(first_rows)} stacks are missing). Name the folder that holds them with --data-dir."
        )
    return FoundStacks(
        tuple(paths.values()), tuple(dict.fromkeys(folder.absolute() for folder in folders if folder in used))
    )


def _folder_of(name: str, folders: Iterable[Path]) -> Path | None:
    """Return the first folder that has a file of that name, or None."""
    for folder in folders:
        with suppress(OSError):  # too long a name, a folder that may not be read
            if (folder / name).is_file():
                return folder
    return None


def find_file(name: str, folders: Iterable[Path]) -> Path | None:
    """Return the first file of that name in the folders, or None; an absolute name stays as it is."""
    folder = _folder_of(name, folders)
    return None if folder is None else folder / name


def square_boxes(
    stacks: Sequence[Path], headers: Sequence[MrcHeader], rows: Sequence[int], where: Where
) -> NDArray[np.int64]:
    """Return the box of each stack, pixels.

    Raises:
        InputError: images are not square.
    """
    for stack, header, row in zip(stacks, headers, rows, strict=True):
        _, height, width = header.shape
        if height != width:
            raise InputError(
                f"{where(row)}: the images of {stack} are {width} x {height} pixels. Extract square boxes."
            )
    return np.array([header.shape[2] for header in headers], dtype=np.int64)


def require_images(
    stacks: Sequence[Path],
    headers: Sequence[MrcHeader],
    stack_index: NDArray[np.int64],
    image_index: NDArray[np.int64],
    where: Where,
) -> None:
    """Check that each stack holds the images that rows name.

    Args:
        stacks: the files.
        headers: theirs.
        stack_index: (N,) which of them.
        image_index: (N,) the image in it, from 0; -1 where the name has no number.
        where: place of a row, for messages.

    Raises:
        InputError: a number lies beyond the stack, or there is none and the file holds more than one image.
    """
    counts = np.array([header.shape[0] for header in headers])[stack_index]
    unnumbered = np.flatnonzero((image_index < 0) & (counts > 1))
    if unnumbered.size:
        row = int(unnumbered[0])
        stack, (count, side, _) = stacks[stack_index[row]], headers[stack_index[row]].shape
        if count == side:
            raise InputError(
                f"{where(row)}: {stack} is a volume ({side} voxels a side), not an image. Subtomograms are not "
                "supported. Give 2-D particles."
            )
        raise InputError(
            f"{where(row)}: the image has no number, and {stack} holds {count} images. Write it as "
            f"000001@{stack.name}. (A stack for each particle, as RELION 5 writes of tilt series, is not supported.)"
        )
    outside = np.flatnonzero(image_index >= counts)
    if outside.size:
        row = int(outside[0])
        raise InputError(
            f"{where(row)}: there is no image {image_index[row] + 1} in {stacks[stack_index[row]]}, which "
            f"holds {counts[row]} images. Give the stack that belongs to this file, or remove the row."
        )


def header_finding(
    source: Path,
    stacks: Sequence[Path],
    headers: Sequence[MrcHeader],
    stack_index: NDArray[np.int64],
    pixel_sizes: NDArray[np.float64],
) -> list[Finding]:
    """Doubt a pixel size that the headers of the stacks contradict.

    A header of 0 or 1 A is taken for one that was never set.

    Args:
        source: the particle file.
        stacks: the image files.
        headers: theirs.
        stack_index: (N,) which of them.
        pixel_sizes: (N,), A, of the particle file.

    Returns:
        A warning, or nothing.
    """
    _, first = np.unique(stack_index, return_index=True)
    differ = [
        int(row)
        for row in first
        if headers[stack_index[row]].pixel_size not in (0.0, 1.0)
        and abs(headers[stack_index[row]].pixel_size / pixel_sizes[row] - 1) > _HEADER_TOLERANCE
    ]
    if not differ:
        return []
    stack = stack_index[differ[0]]
    return [
        findings.PIXEL_SIZE_DIFFERS(
            file=str(source),
            stack=str(stacks[stack]),
            metadata_A=float(pixel_sizes[differ[0]]),
            header_A=headers[stack].pixel_size,
            stacks=len(differ),
            of=len(first),
        )
    ]
