"""Particles downsampled once to the working box: a stack that is later read in the place of the originals."""

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.files import locked, replacing
from cryogan.particles.correction import CORRECTED
from cryogan.particles.mrc import read_header
from cryogan.particles.preprocess import ImageReader
from cryogan.particles.table import ParticleTable

CHUNK = 2048  # images between two notes of the progress
FORMAT = 2
Chunk = dict[str, Any]  # the note on `CHUNK` images: their checksum, and the rows that are unusable


def crop(
    table: ParticleTable,
    box: int,
    radius_A: float | None,
    invert: bool,
    folder: Path,
    progress: Callable[[float], None] = lambda _: None,
    *,
    keep_gradient: bool = False,
) -> Path:
    """Downsample a table's images once, as `ImageReader` does, to a stack (.mrcs, float16) in `folder`.

    The stack's name holds a digest of the images' places, of their files' sizes and times, and of box, radius, sign and
    `keep_gradient`: where one of them changes, another stack is made. A stack that is there already is used, and one
    that was left half-made is continued; the checksum of each `CHUNK` of images says how much of it is whole. Images
    that cannot be used are zero. Beside the stack, `.npz` says which image is where, and `.json` the progress and which
    images cannot be used.

    Args:
        table: N particles.
        box: working box, pixels.
        radius_A: radius of the circle, A, outside which there is background; None: patches with particles anywhere.
        invert: whether protein is dark.
        folder: made if it is absent; several runs may share it.
        progress: called with the share of the images that is done.
        keep_gradient: whether the plane fitted to each image's background is not subtracted.

    Returns:
        The stack.

    Raises:
        InputError: as `ImageReader` does.
    """
    reader = ImageReader(table, box, radius_A, invert, keep_gradient)
    files = _states(table)
    stack = folder / f"{table.source.stem}_{box}px_{_digest(table, files, box, radius_A, invert, keep_gradient)}.mrcs"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(stack.with_suffix(".lock"), wait=True):
        notes = stack.with_suffix(".json")
        if not notes.exists():
            with mrcfile.new_mmap(stack, (len(table), box, box), mrc_mode=12, overwrite=True) as out:
                out.set_image_stack()
                out.voxel_size = reader.pixel_size
            with replacing(_index(stack)) as temporary, temporary.open("wb") as file:
                np.savez(file, files=json.dumps(files), stack=table.stack_index, image=table.image_index)
        done = _whole_chunks(stack, json.loads(notes.read_text())) if notes.exists() else []
        for start in range(CHUNK * len(done), len(table), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(table)))
            images, good = reader.read(rows)
            content = images.astype("<f2").tobytes()
            with stack.open("r+b") as file:  # not mapped: a full disk would end the process
                file.seek(HEADER_DTYPE.itemsize + 2 * box**2 * start)
                file.write(content)
            done.append({"checksum": zlib.crc32(content), "unusable": rows[~good].tolist()})
            with replacing(notes) as temporary:
                temporary.write_text(json.dumps(done))
            progress((start + len(rows)) / len(table))
    return stack


def in_stack(table: ParticleTable, stack: Path) -> tuple[ParticleTable, NDArray[np.bool_]]:
    """Let a table's images be read from a stack that `crop` made of it, or of one that holds it.

    Returns:
        The table, and (N,) which images are usable.

    Raises:
        InputError: it does not hold them, or their files have changed since.
    """
    header = read_header(stack)
    usable = np.ones(header.shape[0], dtype=np.bool_)
    try:
        for chunk in json.loads(stack.with_suffix(".json").read_text()):
            usable[chunk["unusable"]] = False
        with np.load(_index(stack)) as index:
            files, stacks, images = json.loads(str(index["files"])), index["stack"], index["image"]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{_index(stack)}: cannot be read ({error}). Delete {stack} and run again.") from None
    position = {path: number for number, (path, _, _) in enumerate(files)}
    for state in _states(table):
        if state[0] not in position:
            raise InputError(f"{stack}: holds no images of {state[0]}. Start a new run.")
        if files[position[state[0]]] != state:
            raise InputError(f"{state[0]}: has changed since it was cropped to {stack}. Start a new run.")
    wanted = _keys(
        np.array([position[str(path.resolve())] for path in table.stacks])[table.stack_index], table.image_index
    )
    held = _keys(stacks, images)
    order = np.argsort(held, kind="stable")
    rows = order[np.minimum(np.searchsorted(held, wanted, sorter=order), len(held) - 1)]
    if (held[rows] != wanted).any():
        raise InputError(f"{stack}: does not hold all images of {table.source}. Start a new run.")
    even = table.box - table.box % 2
    box = header.shape[1]
    placed = replace(
        table,
        stacks=(stack,),
        headers=(header,),
        stack_index=np.zeros(len(table), dtype=np.int64),
        image_index=rows,
        box=box,
        pixel_size=table.pixel_size * even / box,
        pixel_sizes=None,
        ctf={name: values for name, values in table.ctf.items() if name not in CORRECTED},
    )
    return placed, usable[rows]


def _digest(
    table: ParticleTable,
    files: list[list[str | int]],
    box: int,
    radius_A: float | None,
    invert: bool,
    keep_gradient: bool,
) -> str:
    """Return 16 digits that change with all that the cropped images depend on."""
    digest = hashlib.sha256(json.dumps([FORMAT, files, box, radius_A, invert, keep_gradient]).encode())
    digest.update(table.stack_index.tobytes() + table.image_index.tobytes())
    for name in sorted(CORRECTED & table.ctf.keys()):
        digest.update(name.encode() + table.ctf[name].tobytes())
    if table.pixel_sizes is not None:
        digest.update(table.pixel_sizes.tobytes())
    return digest.hexdigest()[:16]


def _index(stack: Path) -> Path:
    return stack.with_suffix(".npz")


def _keys(stacks: NDArray[np.int64], images: NDArray[np.int64]) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = (stacks << 32) + images
    return keys


def _states(table: ParticleTable) -> list[list[str | int]]:
    """Return path, bytes and time of each stack."""
    return [[str(path.resolve()), *header.written] for path, header in zip(table.stacks, table.headers, strict=True)]


def _whole_chunks(stack: Path, chunks: list[Chunk]) -> list[Chunk]:
    """Return the notes up to the first whose checksum its images do not have."""
    header = read_header(stack)
    with stack.open("rb") as file:  # not mapped: what was looked at would count as this process's memory
        file.seek(header.offset)
        for number, chunk in enumerate(chunks):
            if zlib.crc32(file.read(2 * CHUNK * header.shape[1] ** 2)) != chunk["checksum"]:
                return chunks[:number]
    return chunks
