"""Particles kept for choosing between runs, and those by which the chosen run is then judged: none is both.

A number by which the best of several runs was chosen is no longer held out. Which part a particle is in follows from
the name of its image alone, so it is the same in all runs, whatever their seed and their halves are; copies of an image
are in one part.
"""

import hashlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryogan.particles.table import ParticleTable

Part = Literal["choose", "report"]
CHOOSING_SHARE = 0.25  # of the particles
CHOOSING_COUNT = 2000  # particles of both halves from which on a smaller share is kept, about


def rows_of_part(table: ParticleTable, part: Part, particle_count: int) -> NDArray[np.int64]:
    """Return the rows of the particles for choosing, or of all others.

    Args:
        table: particles of one half or both.
        part: which.
        particle_count: number of particles of the run, of both halves.
    """
    share = min(CHOOSING_SHARE, CHOOSING_COUNT / particle_count)
    chooses = np.array([_uniform(name) < share for name in table.image_names()], dtype=np.bool_)
    return np.flatnonzero(chooses if part == "choose" else ~chooses)


def _uniform(name: str) -> float:
    """Return a number in [0, 1) that follows from a name, and not from what divides the halves."""
    digest = hashlib.blake2b(f"choosing {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
