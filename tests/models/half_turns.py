"""Half turns and centres of mass of volumes, about voxel D//2."""

import numpy as np
from numpy.typing import NDArray

HALF_TURNS = [(1, 2), (0, 2), (0, 1)]  # the volume axes (z, y, x) that the half turns about z, y, x reverse


def half_turn(volume: NDArray[np.float32], axes: tuple[int, int]) -> NDArray[np.float32]:
    """Half turn about voxel D//2: index i goes to 2 (D//2) - i, modulo D."""
    shift = 1 - volume.shape[0] % 2
    return np.roll(np.flip(volume, axes), (shift, shift), axes)


def centre_of_mass(volume: NDArray[np.float32]) -> NDArray[np.float64]:
    """z, y, x in voxels from voxel D//2."""
    offset = np.indices(volume.shape) - volume.shape[0] // 2
    return (offset * volume).sum(axis=(1, 2, 3)) / volume.sum(dtype=float)
