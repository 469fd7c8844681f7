"""The two half sets of a run: how particles are divided between them, and which half each particle is in.

A run divides its particles once, and records the halves as `_rlnRandomSubset` in its `particles.star`; from then on
that column alone decides.
"""

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles.table import ParticleTable

SUBSET = "rlnRandomSubset"


def half_rows(count: int, half: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of half 1 or 2, ascending, of `count` particles divided at random.

    Args:
        count: number of particles.
        half: 1 or 2; half 1 has one particle less where the number is odd.
        seed: decides the division alone.
    """
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2] if half == 1 else order[count // 2 :])


def divide(table: ParticleTable, seed: int, *, whole_micrographs: bool) -> NDArray[np.int64]:
    """Divide particles at random into two halves.

    Args:
        table: N particles.
        seed: decides the division alone.
        whole_micrographs: keep the particles of a micrograph together; patches that overlap need that.

    Returns:
        The half of each particle, 1 or 2, (N,).
    """
    subset = np.full(len(table), 2)
    if whole_micrographs:
        names, index = np.unique(table.micrographs, return_inverse=True)
        subset[np.isin(index, half_rows(len(names), 1, seed))] = 1
    else:
        subset[half_rows(len(table), 1, seed)] = 1
    return subset


def recorded_halves(table: ParticleTable) -> NDArray[np.int64]:
    """Return the half of each particle, 1 or 2, (N,), as the particle file of a run records it.

    Raises:
        InputError: the file has no column `_rlnRandomSubset`, or another value in it.
    """
    blocks = table.star or {}
    block = next((block for block in blocks.values() if SUBSET in block), None)
    if block is None:
        raise InputError(f"{table.source}: no column _{SUBSET}. Give the particles.star of a run's folder.")
    subset = block.floats(SUBSET)[table.source_row]
    wrong = np.flatnonzero(~np.isin(subset, (1, 2)))
    if wrong.size:
        row = int(table.source_row[wrong[0]])
        raise InputError(f"{block.where(row)}: _{SUBSET} is {subset[wrong[0]]:g}. Give 1 or 2.")
    return subset.astype(np.int64)
