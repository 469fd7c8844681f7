"""A protein-like phantom that needs no file, and two conformations of it.

Volumes have axes (z, y, x), the rotation centre at voxel D//2, protein bright, and a largest value of 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.grids import centred_axis
from cryogan.models.scale import require_positive, unit_maximum

# RELION's D2 setting: identity and the half turns about z, y and x, as signs of (x, y, z).
_D2_SIGNS = np.array([(1, 1, 1), (-1, -1, 1), (-1, 1, -1), (1, -1, -1)], dtype=float)

_CA_STEP_A = 3.8  # between consecutive C-alpha atoms
_RESIDUE_A3 = 135.0  # volume of an average residue in a protein's interior
_SEGMENT_TRIES = 60


def phantom(box: int, pixel_size_A: float, seed: int) -> NDArray[np.float32]:
    """A protein-like D2 assembly of four identical chains, for tests and demonstrations without a file.

    Each chain is a compact walk of helices and strands with C-alpha steps of about 3.8 A through a few
    unequal globular domains, avoiding itself and its symmetry mates. Every residue is a Gaussian of standard
    deviation max(2 A, 0.45 pixel), evaluated analytically at the voxels. The 2-fold axes are z, y and x
    through voxel D//2 (RELION's setting); the outermost residue lies at 0.325 of the box's side from the
    centre, so the assembly spans 65 % of the box.

    The number of residues follows from the volume to be filled, up to 1,000 a chain. A box too large for that
    holds a magnified molecule, with Gaussians half as wide as the magnified step to keep chains connected.

    Args:
        box: side D of the volume in voxels, at least 16.
        pixel_size_A: voxel size, angstrom.
        seed: the same seed gives the same volume; another seed another molecule.

    Returns:
        (D, D, D) array in z, y, x order, non-negative, scaled to a maximum of 1.

    Raises:
        InputError: the box is smaller than 16 voxels or the pixel size is not positive.
    """
    require_positive(box=box, pixel_size_A=pixel_size_A)
    if box < 16:
        raise InputError(f"A phantom in a box of {box} px would show no structure. Use at least 16 px.")
    rng = np.random.default_rng(seed)
    radius_A = 0.325 * box * pixel_size_A
    centres, radii = _domains(rng)  # in units of the assembly's radius
    filled = 4 / 3 * math.pi * float((radii**3).sum())
    residues = int(np.clip(filled * radius_A**3 / _RESIDUE_A3, 12, 1000))
    unit_A = (residues * _RESIDUE_A3 / filled) ** (1 / 3)
    chain = _fold_chain(rng, residues, centres * unit_A, radii * unit_A)

    magnification = radius_A / float(np.linalg.norm(chain, axis=1).max())
    assembly = (_D2_SIGNS[:, None] * chain * magnification).reshape(-1, 3)
    sigma_A = max(2.0, 0.45 * pixel_size_A, 0.5 * _CA_STEP_A * magnification)
    volume = _sum_of_gaussians(assembly / pixel_size_A, sigma_A / pixel_size_A, box)
    if box % 2 == 0:  # the first planes have no partner on the other side of voxel D//2
        volume[0] = volume[:, 0] = volume[:, :, 0] = 0
    return unit_maximum(volume)


def conformations(box: int, pixel_size_A: float, seed: int, move_A: float = 24.0) -> NDArray[np.float32]:
    """Two conformations of a molecule without symmetry, (2, D, D, D): a fifth of its mass moves by `move_A`.

    The phantom's halves are made unequal, which breaks its symmetry; the moving part lies within a sphere of a sixth
    of the box and moves along y.

    Args:
        box: side D of the volumes in voxels, at least 16.
        pixel_size_A: voxel size, angstrom.
        seed: seed of the phantom.
        move_A: displacement of the moving part, angstrom; rounded to whole voxels.

    Returns:
        (2, D, D, D) array in z, y, x order.

    Raises:
        InputError: the box is smaller than 16 voxels or the pixel size is not positive.
    """
    whole = phantom(box, pixel_size_A, seed)
    whole[:, : box // 2] *= 0.3
    whole[:, :, : box // 2] *= 0.5
    centre = box // 2 + box / 32 * np.array([6, 4, 3])
    axis = np.arange(box)
    z, y, x = np.meshgrid(*(axis - c for c in centre), indexing="ij")
    part = whole * np.clip(5.5 * box / 32 - np.sqrt(z**2 + y**2 + x**2), 0, 1).astype(np.float32)
    moved = np.roll(part, -round(move_A / pixel_size_A), axis=1)
    return np.stack([whole, whole - part + moved])


def _domains(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw centres (6, 3) in x, y, z and radii (6,) of one chain's domains; the assembly has radius 1.

    They touch like beads on a string that starts beside the 2-fold axes, which leaves tunnels along them, and
    stay close to the centre in a metric that makes the assembly thinnest along x and longest along z.
    """
    radii = rng.uniform(0.55, 1.1, 6)
    # A little nearer to the planes x = 0 and y = 0 than its radius, so that the four chains hold together.
    centres = radii[0] * np.array([[rng.uniform(0.7, 0.9), rng.uniform(0.8, 1.0), rng.uniform(0.3, 0.7)]])
    for index in range(1, len(radii)):
        attached = int(rng.integers(max(0, index - 2), index))
        tries = centres[attached] + 0.9 * (radii[attached] + radii[index]) * _directions(rng, 300)
        placed = (_D2_SIGNS[:, None] * centres).reshape(-1, 3)
        gaps = np.linalg.norm(tries[:, None] - placed, axis=2) - np.tile(radii[:index], 4)
        mates = np.linalg.norm(tries[:, None] * (1 - _D2_SIGNS[1:]), axis=2).min(axis=1) / 2
        overlap = np.maximum(0.8 * radii[index] - np.minimum(gaps.min(axis=1), mates), 0)
        score = 5 * overlap + np.linalg.norm(tries * rng.uniform([1.2, 0.9, 0.6], [1.8, 1.2, 0.8]), axis=1)
        centres = np.concatenate([centres, tries[[score.argmin()]]])
    reach = float((np.linalg.norm(centres, axis=1) + radii).max())
    return centres / reach, radii / reach


def _fold_chain(
    rng: np.random.Generator, residues: int, centres: NDArray[np.float64], radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fold a chain segment by segment, each the best of many random tries.

    Returns:
        C-alpha positions (residues, 3) in angstrom, relative to the assembly's centre.
    """
    domain_of = np.searchsorted(np.cumsum(radii**3) / (radii**3).sum(), np.arange(residues) / residues)
    chain: NDArray[np.float64] = centres[:1]
    while len(chain) < residues:
        segment = _segment(rng)[: residues - len(chain)]
        frames = _frames(rng, _SEGMENT_TRIES)
        starts = chain[-1] + _CA_STEP_A * _directions(rng, _SEGMENT_TRIES)
        tries = starts[:, None] + segment @ frames  # (tries, segment, 3)
        domain = domain_of[len(chain) + len(segment) - 1]
        outside = np.linalg.norm(tries - centres[domain], axis=2) - radii[domain]
        others = (_D2_SIGNS[:, None] * chain).reshape(-1, 3)
        others = others[np.linalg.norm(others - chain[-1], axis=1) < 40]  # all that a try can come near to
        distance = np.linalg.norm(tries[:, :, None] - others, axis=3)
        mates = np.linalg.norm(tries[:, :, None] - tries[:, :, None] * _D2_SIGNS[1:], axis=3)
        clashes = np.maximum(6 - distance, 0).sum(axis=(1, 2)) + np.maximum(6 - mates, 0).sum(axis=(1, 2))
        cost = clashes + np.maximum(outside, 0).sum(axis=1)
        chain = np.concatenate([chain, tries[cost.argmin()]])
    return chain


def _segment(rng: np.random.Generator) -> NDArray[np.float64]:
    """C-alpha positions (length, 3) in angstrom of a helix or a strand along z, starting at the origin."""
    n = np.arange(rng.integers(6, 18))
    points: NDArray[np.float64]
    if rng.random() < 0.65:
        turn = np.deg2rad(100) * n
        points = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * n], axis=1)
    else:
        points = np.stack([0.95 * (-1.0) ** n, 0.0 * n, 3.3 * n], axis=1)[:8]
    points -= points[0].copy()
    return points


def _directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Random unit vectors (count, 3), uniform on the sphere."""
    vectors: NDArray[np.float64] = rng.standard_normal((count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _frames(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Random right-handed orthonormal frames (count, 3, 3); a mirrored one would make a left-handed helix."""
    z = _directions(rng, count)
    x = np.cross(z, _directions(rng, count))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    frames: NDArray[np.float64] = np.stack([x, np.cross(z, x), z], axis=1)
    return frames


def _sum_of_gaussians(points: NDArray[np.float64], sigma: float, box: int) -> NDArray[np.float64]:
    """Sum unit-height Gaussians at points (n, 3), in x, y, z pixels from voxel D//2, into a (D, D, D) volume.

    A Gaussian is the product of its three profiles, so the sum over points is a matrix product.
    """
    grid = centred_axis(box)
    volume = np.zeros((box * box, box))
    for part in np.array_split(points, math.ceil(len(points) / 256)):
        x, y, z = np.exp(-0.5 * ((grid - part.T[:, :, None]) / sigma) ** 2)
        volume += (z[:, :, None] * y[:, None, :]).reshape(len(part), -1).T @ x
    return volume.reshape(box, box, box)
