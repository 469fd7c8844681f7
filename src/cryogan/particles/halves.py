"""The two half sets of a run: how particles are divided between them, and which half each particle is in.

A run divides its particles once, and records the halves as `_rlnRandomSubset` in its `particles.star`; from then on
that column alone decides.

Two half maps are independent only if nothing that was measured is in both sets. So what shares pixels or noise stays in
one half: copies of an image (symmetry expansion, joined files), the segments of a helical tube, and, where there are
enough micrographs, the particles of a micrograph. The half of such a unit follows from the seed and its name alone, not
from its row or from what else is in the file: a set that grows keeps its halves.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles.relion import SUBSET
from cryogan.particles.table import ParticleTable

ENOUGH_UNITS = 40  # from here on, halves that chance alone divides differ little in size


@dataclass(frozen=True)
class Halves:
    """The halves of N particles, and how they came about.

    Attributes:
        subset: (N,), 1 or 2.
        source: "input": the halves that the particle file has; "micrograph" or "particle": what was divided.
        copies: number of rows that show an image once more.
        tubes: number of helical tubes that were kept whole.
        moved: number of particles whose half in the particle file separated them from a copy.
        replaced: whether the particle file has halves that are not used.
    """

    subset: NDArray[np.int64]
    source: Literal["input", "micrograph", "particle"]
    copies: int = 0
    tubes: int = 0
    moved: int = 0
    replaced: bool = False


def divide(table: ParticleTable, seed: int, *, overlap: bool = False, anew: bool = False) -> Halves:
    """Divide particles into two halves, or keep the halves that their file has.

    Args:
        table: N particles.
        seed: decides a new division, together with the names.
        overlap: images overlap, so that the halves must share no micrograph, however few there are.
        anew: divide although the file has halves.
    """
    image = _image_identity(table)
    copies = len(table) - len(np.unique(image))
    if table.subset is not None and not overlap and not anew:
        subset = _with_copies(table.subset, image)
        return Halves(subset, "input", copies, moved=int((subset != table.subset).sum()))
    replaced = table.subset is not None
    if overlap or len(np.unique(table.micrographs)) >= ENOUGH_UNITS:
        subset = _halves_of_units(_with_copies(table.micrographs, image), seed)
        return Halves(subset, "micrograph", copies, replaced=replaced)
    if table.tubes is not None:
        subset = _halves_of_units(_with_copies(table.tubes, image), seed)
        return Halves(subset, "particle", copies, tubes=len(np.unique(table.tubes)), replaced=replaced)
    names = np.array(table.image_names())
    return Halves(_halves_of_units(names, seed), "particle", copies, replaced=replaced)


def halves_of_portion(
    units: NDArray[np.str_], halves: dict[str, int], counts: list[int], seed: int
) -> NDArray[np.int64]:
    """Return the half (N,) of each particle of a portion of a set that grows, and record the halves of new units.

    A unit keeps the half that it has. New ones go, in the order of their names' hashes, to the half that has fewer
    particles: so few units, as there are at first, are divided evenly, too.

    Args:
        units: name of each particle's unit, (N,): its micrograph.
        halves: half, 1 or 2, of each unit so far; new ones are added.
        counts: numbers of particles of both halves so far; they are counted on.
        seed: decides the order of new units.
    """
    new, index, sizes = np.unique(units, return_inverse=True, return_counts=True)
    for unit in sorted(range(len(new)), key=lambda unit: _hash(str(new[unit]), seed)):
        half = halves.setdefault(str(new[unit]), 1 + int(counts[1] < counts[0]))
        counts[half - 1] += int(sizes[unit])
    return np.array([halves[str(unit)] for unit in new], dtype=np.int64)[index]


def recorded_halves(table: ParticleTable) -> NDArray[np.int64]:
    """Return the half of each particle, 1 or 2, (N,), as the particle file of a run records it.

    Raises:
        InputError: the file has no column `_rlnRandomSubset`.
    """
    if table.subset is None:
        raise InputError(f"{table.source}: no column _{SUBSET}. Give the particles.star of a run's folder.")
    return table.subset


def patches_of_half(table: ParticleTable, shared: NDArray[np.str_], half: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of the background patches that one half may use.

    Where both halves have particles of a micrograph, its patches are dealt out to the halves in turns; a single patch
    is lent to both.

    Args:
        table: the patches, with the names of their micrographs.
        shared: names of the micrographs of which both halves have particles.
        half: 1 or 2.
        seed: decides who gets which.
    """
    keep = np.ones(len(table), dtype=bool)
    names = table.image_names()
    candidates = np.flatnonzero(np.isin(table.micrographs, shared))
    candidates = candidates[np.argsort(table.micrographs[candidates], kind="stable")]
    ends = np.flatnonzero(table.micrographs[candidates[1:]] != table.micrographs[candidates[:-1]]) + 1
    for rows in np.split(candidates, ends):
        if len(rows) > 1:
            order = np.argsort([_hash(names[row], seed) for row in rows])
            keep[rows[order[half - 1 :: 2]]] = False
    return np.flatnonzero(keep)


def _image_identity(table: ParticleTable) -> NDArray[np.int64]:
    """Return a number (N,) that rows have in common if they show the same image."""
    place = table.stack_index * (table.image_index.max() + 1) + table.image_index
    identity: NDArray[np.int64] = np.unique(place, return_inverse=True)[1]
    return identity


def _with_copies(values: NDArray[Any], image: NDArray[np.int64]) -> NDArray[Any]:
    """Give all rows that show one image the least of their values (N,)."""
    order = np.lexsort((values, image))
    first = np.flatnonzero(np.diff(image[order], prepend=-1))
    return values[order[first]][image]


def _halves_of_units(names: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    """Return the half (N,) of each particle from the name (N,) of its unit, by the name's hash.

    If there are few units they take turns in the order of their hashes, so that neither half is left without.
    """
    units, index = np.unique(names, return_inverse=True)
    hashes = np.array([_hash(unit, seed) for unit in units.tolist()], dtype=np.uint64)
    halves = 1 + (hashes % np.uint64(2)).astype(np.int64)
    if len(units) < ENOUGH_UNITS:
        halves[np.argsort(hashes)] = 1 + np.arange(len(units)) % 2
    return halves[index]


def _hash(name: str, seed: int) -> int:
    """Return a number of 64 bits that is the same on every machine, unlike Python's `hash`."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "little")
