"""Maps to simulate from: an atomic model's density, and a phantom that needs no file.

Both give a volume in (z, y, x) order with the rotation centre at voxel D//2, protein bright, largest value 1.
"""

from __future__ import annotations

import math
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.grids import centred_axis, fit_spectrum, frequency_axis

# RELION's D2 setting: identity and the half turns about z, y and x, as signs of (x, y, z).
_D2_SIGNS = np.array([(1, 1, 1), (-1, -1, 1), (-1, 1, -1), (1, -1, -1)], dtype=float)

_CA_STEP_A = 3.8  # between consecutive C-alpha atoms
_RESIDUE_A3 = 135.0  # volume of an average residue in a protein's interior
_SEGMENT_TRIES = 60


def density_from_model(
    path: str | Path, resolution_A: float, box: int, pixel_size_A: float, *, orient: bool = False
) -> NDArray[np.float32]:
    """Density of an atomic model at a given resolution, as an electron sees it.

    Every atom is its electron form factor (gemmi's `DensityCalculatorE`) blurred by a Gaussian of standard
    deviation 0.225 `resolution_A` (B = 8 pi^2 sigma^2); the file's own B factors are not used. Frequencies
    at and beyond the box's Nyquist are cut off sharply, so a map finer than two pixels has negative ripples.

    The first model of the file is taken as it is: all chains and ligands, without waters; no biological
    assembly is generated.

    Args:
        path: mmCIF or PDB file, plain or `.gz`.
        resolution_A: nominal resolution of the map, angstrom.
        box: side D of the volume in voxels.
        pixel_size_A: voxel size, angstrom.
        orient: False keeps the file's axes. True turns the model so that its principal axes lie on the
            volume's, the shortest extent along x and the longest along z. For a D2 assembly these are its
            2-fold axes, which is RELION's setting of D2; for other groups they need not be symmetry axes.

    Returns:
        (D, D, D) array in z, y, x order, the model's centre of mass at voxel D//2, scaled to a maximum of 1.

    Raises:
        InputError: the file cannot be read as an atomic model or holds no atoms, the model with a margin of
            `resolution_A` does not fit in the box in every orientation, or a size is not positive.
    """
    path = Path(path)
    _require_positive(box=box, pixel_size_A=pixel_size_A, resolution_A=resolution_A)
    model = _read_model(path)
    atoms = [site.atom for site in model.all()]
    coordinates = np.array([atom.pos.tolist() for atom in atoms])
    mass = np.array([atom.occ * atom.element.weight for atom in atoms])
    if not mass.sum() > 0:
        raise InputError(f"{path}: all atoms have occupancy 0 and so no density; restore the occupancies.")
    coordinates -= mass @ coordinates / mass.sum()
    if orient:
        coordinates @= _principal_axes(coordinates, mass)

    # A projection may look along any direction: the sphere around the centre has to fit, not just a box.
    radius_A = float(np.linalg.norm(coordinates, axis=1).max()) + resolution_A
    if radius_A > (box - 1) // 2 * pixel_size_A:
        smallest = 2 * math.ceil(radius_A / pixel_size_A) + 2
        raise InputError(
            f"{path}: the model needs {2 * radius_A:.0f} A but a box of {box} px at {pixel_size_A:g} A/px "
            f"holds {box * pixel_size_A:.0f} A; use a box of at least {smallest} px or a larger pixel size."
        )

    # On a grid of half the pixel an atom narrower than the grid step would alias. Such atoms are drawn with
    # the step as their width; the excess blur is undone exactly on the frequencies that are kept.
    sigma_A = 0.225 * resolution_A
    drawn_sigma_A = max(sigma_A, pixel_size_A / 2)
    for atom, position in zip(atoms, coordinates + box // 2 * pixel_size_A, strict=True):
        atom.pos = gemmi.Position(*position)
        atom.b_iso = 8 * math.pi**2 * drawn_sigma_A**2
        atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)  # an anisotropic B would take precedence over b_iso
    calculator = gemmi.DensityCalculatorE()
    calculator.cutoff = 1e-7
    side_A = box * pixel_size_A
    calculator.grid.set_unit_cell(gemmi.UnitCell(side_A, side_A, side_A, 90, 90, 90))
    calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
    calculator.grid.set_size(2 * box, 2 * box, 2 * box)
    calculator.add_model_density_to_grid(model)

    fine = np.asarray(calculator.grid.array, dtype=np.float64).transpose(2, 1, 0)  # gemmi's order is x, y, z
    volume = _crop_and_sharpen(fine, box, (drawn_sigma_A**2 - sigma_A**2) / pixel_size_A**2)
    return _unit_maximum(volume)


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
    _require_positive(box=box, pixel_size_A=pixel_size_A)
    if box < 16:
        raise InputError(f"A phantom in a box of {box} px would show no structure; use at least 16 px.")
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
    return _unit_maximum(volume)


def conformations(box: int, pixel_size_A: float, seed: int, move_A: float = 24.0) -> NDArray[np.float32]:
    """Two conformations of a molecule without symmetry, (2, D, D, D): a fifth of its mass moves by `move_A`.

    The phantom with its halves made unequal; the moving part lies within a sphere of a sixth of the box. Arguments and
    errors as of `phantom`.
    """
    whole = phantom(box, pixel_size_A, seed)
    whole[:, : box // 2] *= 0.3
    whole[:, :, : box // 2] *= 0.5
    centre = box // 2 + box / 32 * np.array([6, 4, 3])
    axis = np.arange(box)
    z, y, x = np.meshgrid(*(axis - each for each in centre), indexing="ij")
    part = whole * np.clip(5.5 * box / 32 - np.sqrt(z**2 + y**2 + x**2), 0, 1).astype(np.float32)
    moved = np.roll(part, -round(move_A / pixel_size_A), axis=1)
    return np.stack([whole, whole - part + moved])


def _unit_maximum(volume: NDArray[np.float64]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (volume / volume.max()).astype(np.float32)
    return scaled


def _require_positive(**sizes: float) -> None:
    for name, value in sizes.items():
        if not value > 0:
            raise InputError(f"{name} is {value}, but a size must be positive; give a value above 0.")


def _read_model(path: Path) -> gemmi.Model:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give the path of an mmCIF or PDB model.")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        reason = " ".join(str(error).split())
        problem = f"{path}: not readable as mmCIF or PDB ({reason}); download the model again."
        raise InputError(problem) from error
    structure.setup_entities()
    structure.remove_waters()
    structure.remove_empty_chains()
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path}: the file holds no atoms besides water; give an mmCIF or PDB model.")
    return structure[0]


def _principal_axes(coordinates: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns: the axes of least to greatest extent, right-handed, their signs the same on every machine."""
    axes: NDArray[np.float64] = np.linalg.eigh((coordinates * mass[:, None]).T @ coordinates).eigenvectors
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), range(3)])
    axes[:, 0] *= np.sign(np.linalg.det(axes))  # never a mirror image
    return axes


def _crop_and_sharpen(fine: NDArray[np.float64], box: int, excess_variance: float) -> NDArray[np.float64]:
    """Fourier crop (2D, 2D, 2D) to (D, D, D) and undo a Gaussian blur of the given variance (pixels squared).

    The Nyquist planes are left out: one of their two halves alone would break the map's symmetry.
    """
    spectrum = fit_spectrum(np.fft.rfftn(fine), box, axes=3)
    gain = np.exp(2 * math.pi**2 * excess_variance * frequency_axis(box, 1.0) ** 2)
    gain[np.abs(frequency_axis(box)) == box / 2] = 0
    spectrum *= gain[:, None, None] * gain[:, None] * gain[: box // 2 + 1]
    return np.fft.irfftn(spectrum, s=(box, box, box), axes=(0, 1, 2))


def _domains(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (6, 3) in x, y, z and radii (6,) of one chain's domains; the assembly has radius 1.

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
    """C-alpha positions (residues, 3) in angstrom: segment by segment, each the best of many random tries."""
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
    """A helix or a strand along z, (length, 3) in angstrom, starting at the origin, in steps of 3.8 A."""
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
    """Sum of unit-height Gaussians at points (n, 3) in x, y, z pixels from voxel D//2, as a (D, D, D) volume.

    A Gaussian is the product of its three profiles, so the sum over points is a matrix product.
    """
    grid = centred_axis(box)
    volume = np.zeros((box * box, box))
    for part in np.array_split(points, math.ceil(len(points) / 256)):
        x, y, z = np.exp(-0.5 * ((grid - part.T[:, :, None]) / sigma) ** 2)
        volume += (z[:, :, None] * y[:, None, :]).reshape(len(part), -1).T @ x
    return volume.reshape(box, box, box)
