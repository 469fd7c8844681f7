"""Point groups in RELION's setting, imposed on a volume by averaging."""

import re
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import grid_sample

from cryogan.errors import InputError
from cryogan.grids import centred_axis
from cryogan.rotations import rotation_grid

_PHI = (1 + 5**0.5) / 2
_Axis = tuple[int, tuple[float, float, float]]
_FIXED: dict[str, list[_Axis]] = {
    "T": [(3, (0, 0, 1)), (2, (0, 2**0.5, 1))],
    "O": [(4, (0, 0, 1)), (3, (1, 1, 1))],
    "I": [(2, (0, 0, 1)), (5, (1, 0, _PHI)), (3, (1, 1, 1))],
    "I1": [(2, (0, 0, 1)), (5, (0, 1, _PHI)), (3, (1, 1, 1))],
    "I2": [(2, (0, 0, 1)), (5, (1, 0, _PHI)), (3, (1, 1, 1))],
    "I3": [(5, (0, 0, 1)), (2, (-1, 0, _PHI))],
    "I4": [(5, (0, 0, 1)), (2, (1, 0, _PHI))],
}


def group_generators(name: str) -> list[NDArray[np.float64]]:
    """Rotations that generate a point group.

    Args:
        name: C1, Cn, Dn, T, O, I (= I2), I1, I2, I3 or I4; axes as RELION sets them.

    Returns:
        Each (3, 3), acting on (x, y, z); for C1 only the identity.

    Raises:
        InputError: unknown name.
    """
    text = name.strip().upper()
    cyclic = re.fullmatch(r"([CD])([1-9]\d?)", text)
    if cyclic:
        generators: list[_Axis] = [(int(cyclic[2]), (0, 0, 1))]
        if cyclic[1] == "D":
            generators.append((2, (1, 0, 0)))
    elif text in _FIXED:
        generators = _FIXED[text]
    else:
        raise InputError(f"Unknown symmetry {name!r}. Give C1, Cn, Dn, T, O, I, I1, I2, I3 or I4.")
    return [_rotation(order, axis) for order, axis in generators]


def point_group(name: str) -> NDArray[np.float64]:
    """All rotations (n, 3, 3) of a point group, identity first, from the name that `group_generators` takes."""
    return _elements(name).copy()


@cache
def _elements(name: str) -> NDArray[np.float64]:
    return _closure(group_generators(name))


def least_turn(rotation: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Return the smallest rotation that brings a map's axes into RELION's setting of a point group.

    There are several where a rotation n turns the axes into each other: n G n^-1 = G, n in the group's normaliser.

    Args:
        rotation: (3, 3), one of them.
        name: name of the point group, as for `group_generators`.

    Returns:
        n @ rotation with the smallest angle, (3, 3).
    """
    axes = _axes(name)
    if not len(axes):
        return np.eye(3)
    if np.abs(axes @ axes[0]).min() > 1 - 1e-6:  # one axis: n is any turn about it, or turns it round
        axis = rotation.T @ axes[0]
        return _shortest_turn(axis if axis @ axes[0] > 0 else -axis, axes[0])
    return max(_normaliser(name) @ rotation, key=np.trace)


def _axes(name: str) -> NDArray[np.float64]:
    """Return the axes of a group's rotations, each in both directions, as unit vectors (n, 3)."""
    vectors = Rotation.from_matrix(point_group(name)).as_rotvec()[1:]
    both = np.concatenate([vectors, -vectors]) / np.tile(np.linalg.norm(vectors, axis=1, keepdims=True), (2, 1))
    _, once = np.unique(both.round(6) + 0.0, axis=0, return_index=True)  # an axis has several turns
    return np.asarray(both[np.sort(once)])


@cache
def _normaliser(name: str) -> NDArray[np.float64]:
    """Return the rotations n with n G n^-1 = G of a group with several axes, (m, 3, 3)."""
    group, axes = point_group(name), _axes(name)
    cosines = axes @ axes[0]
    second = int(np.abs(cosines).argmin())
    frame = _frame(axes[0], axes[second])
    # Each n turns two axes into two others as far apart; most such pairs give none.
    pairs = np.argwhere(np.isclose(axes @ axes.T, cosines[second]))
    turns = [_frame(axes[a], axes[b]) @ frame.T for a, b in pairs]
    return np.stack([n for n in turns if _are_of(n @ group @ n.T, group)])


def _shortest_turn(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest rotation (3, 3) of one unit vector onto another that is not its opposite."""
    across = np.cross(start, end)
    angle = np.arctan2(np.linalg.norm(across), start @ end)
    return np.asarray(Rotation.from_rotvec(angle * across / max(float(np.linalg.norm(across)), 1e-12)).as_matrix())


def _frame(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the frame (3, 3), in columns, of a direction, one beside it towards another, and one across both."""
    across = np.cross(first, second) / np.linalg.norm(np.cross(first, second))
    return np.stack([first, np.cross(across, first), across], axis=1)


def _are_of(rotations: NDArray[np.float64], group: NDArray[np.float64]) -> bool:
    """Whether all of some rotations (m, 3, 3) are elements of a group (n, 3, 3)."""
    return bool((np.einsum("aij,bij->ab", rotations, group).max(axis=1) > 3 - 1e-6).all())


def _rotation(order: int, axis: tuple[float, float, float]) -> NDArray[np.float64]:
    unit = np.asarray(axis) / np.linalg.norm(axis)
    return np.asarray(Rotation.from_rotvec(2 * np.pi / order * unit).as_matrix())


def _closure(generators: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    group = [np.eye(3)]
    for element in group:  # grows while it is walked
        for generator in generators:
            product = generator @ element
            if not any(np.allclose(product, known, atol=1e-6) for known in group):
                group.append(product)
    return np.stack(group)


class Symmetriser:
    """Average of a volume over a point group, linear and differentiable.

    Rotations that map the grid onto itself (all of C1, C2, C4, D1, D2, D4 and O) are permutations of voxels,
    hence exact; the others interpolate trilinearly. The edge planes of an even box map onto each other
    modulo the box, which the spherical mask makes irrelevant.

    Args:
        name: name of the point group, as for `group_generators`.
        box: D.
        device: device of the volumes.
        dtype: data type of the volumes.

    Attributes:
        rotations: (n, 3, 3), the group.
    """

    def __init__(self, name: str, box: int, *, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.rotations = point_group(name)
        self._permutations: list[Tensor] = []
        self._grids: list[Tensor] = []
        c = torch.from_numpy(centred_axis(box))
        for rotation in self.rotations[1:]:
            exact = np.rint(rotation)
            if np.allclose(rotation, exact, atol=1e-6):
                z, y, x = torch.meshgrid(c, c, c, indexing="ij")
                r = exact.astype(int)
                to = [(r[i, 0] * x + r[i, 1] * y + r[i, 2] * z + box // 2) % box for i in range(3)]
                self._permutations.append(((to[2] * box + to[1]) * box + to[0]).flatten().to(device))
            else:
                grid = rotation_grid(torch.from_numpy(rotation), box)
                self._grids.append(grid.to(device=device, dtype=dtype))

    def __call__(self, volume: Tensor) -> Tensor:
        """Average a volume (D, D, D) in z, y, x over the group."""
        total = volume
        flat = volume.flatten()
        for permutation in self._permutations:
            total = total + flat[permutation].view_as(volume)
        for grid in self._grids:
            total = total + grid_sample(volume[None, None], grid, align_corners=False)[0, 0]
        return total / len(self.rotations)
