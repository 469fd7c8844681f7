"""Orientations: rotations from the frame of a projection to that of the volume, (x, y, z) as columns."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import affine_grid


def uniform_rotations(count: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw orientations (count, 3, 3) uniformly on SO(3), on the generator's device, as normalised quaternions."""
    q = torch.randn(count, 4, generator=generator, device=generator.device, dtype=dtype)
    w, x, y, z = torch.nn.functional.normalize(q, dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=1).view(count, 3, 3)


@lru_cache(maxsize=4)
def super_fibonacci(count: int) -> NDArray[np.float64]:
    """Rotations (count, 3, 3) spread evenly over SO(3) along a super-Fibonacci spiral (Alexa, CVPR 2022).

    With 4,608 of them the nearest to an orientation is 7 degrees away on average, 13 at most.
    """
    s = np.arange(count) + 0.5
    inner, outer = np.sqrt(s / count), np.sqrt(1 - s / count)
    a, b = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    quaternions = [inner * np.sin(a), inner * np.cos(a), outer * np.sin(b), outer * np.cos(b)]
    return np.asarray(Rotation.from_quat(np.stack(quaternions, axis=1)).as_matrix())


def spread_rotations(count: int, group: NDArray[np.float64], generator: torch.Generator) -> Tensor:
    """Spread about `count` orientations evenly over those that show a symmetric volume differently.

    `super_fibonacci` under a random rotation; of the orientations that the point group makes equal, the one with the
    smallest angle is kept.

    Args:
        count: number wanted, before rounding to the group.
        group: (n, 3, 3), from `point_group`.
        generator: source of the random rotation.

    Returns:
        Rotations (M, 3, 3), float32, on the generator's device.
    """
    turn = uniform_rotations(1, generator)[0].double().cpu().numpy()
    rotations = turn @ super_fibonacci(count * len(group))
    traces = np.einsum("gij,nji->ng", group, rotations)  # they fall with the angle
    kept = rotations[traces[:, 0] >= traces.max(axis=1) - 1e-9]
    return torch.from_numpy(kept).float().to(generator.device)


def small_rotations(vectors: Tensor) -> Tensor:
    """Rotations (B, 3, 3) by |v| radians about the axes v (B, 3), by Rodrigues' formula."""
    angle = vectors.norm(dim=1).clamp(min=1e-9)[:, None, None]
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3) / angle
    rotations: Tensor = torch.eye(3, device=vectors.device) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
    return rotations


def euler_to_rotations(rot: NDArray[np.float64], tilt: NDArray[np.float64], psi: NDArray[np.float64]) -> Tensor:
    """Convert RELION's Euler angles to rotations.

    The result maps a slice's (kx, ky, 0) to the volume's (kx, ky, kz), as columns (x, y, z): SciPy's intrinsic
    "ZYZ". Checked against RELION 3.1.3's `relion_project`.

    Args:
        rot: (N,) `_rlnAngleRot`, degrees.
        tilt: (N,) `_rlnAngleTilt`, degrees.
        psi: (N,) `_rlnAnglePsi`, degrees.

    Returns:
        (N, 3, 3) float64; the identity where all angles are 0.
    """
    angles = np.stack([rot, tilt, psi], axis=-1)
    return torch.from_numpy(Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix())


def rotations_to_euler(rotations: Tensor) -> NDArray[np.float64]:
    """Convert rotations to RELION's Euler angles (N, 3), rot, tilt, psi in degrees; inverts `euler_to_rotations`."""
    return np.asarray(Rotation.from_matrix(rotations.double().cpu().numpy()).as_euler("ZYZ", degrees=True))


def rotation_grid(rotation: Tensor, box: int) -> Tensor:
    """Grid (1, D, D, D, 3) with which `grid_sample` (align_corners=False) reads a volume at R r for each voxel r.

    `grid_sample`'s cube is centred on (D - 1) / 2, a volume on D // 2.
    """
    shift = (torch.eye(3, dtype=rotation.dtype, device=rotation.device) - rotation) @ rotation.new_full((3,), 1 / box)
    theta = torch.cat([rotation, shift[:, None]], dim=1)[None]
    return affine_grid(theta, [1, 1, box, box, box], align_corners=False)
