"""The density of an atomic model, as an electron sees it."""

from __future__ import annotations

import math
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.grids import fit_spectrum, frequency_axis
from cryogan.models.scale import require_positive, unit_maximum


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
    require_positive(box=box, pixel_size_A=pixel_size_A, resolution_A=resolution_A)
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
    return unit_maximum(volume)


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
    """Right-handed principal axes (3, 3) as columns, from least to greatest extent; their signs are reproducible."""
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
