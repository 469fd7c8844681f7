"""The density of an atomic model, as an electron sees it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.grids import fit_spectrum, frequency_axis
from cryogan.models.scale import require_positive, unit_maximum


@dataclass(frozen=True, eq=False)
class AtomicModel:
    """The atoms of a molecule.

    Attributes:
        path: the file that they were read from.
        model: gemmi's model; the positions in it are the file's.
        coordinates_A: (N, 3) x, y, z of each atom from the volume's centre voxel.
    """

    path: Path
    model: gemmi.Model
    coordinates_A: NDArray[np.float64]

    @classmethod
    def read(cls, path: str | Path, chains: Collection[str] = (), without_chains: Collection[str] = ()) -> AtomicModel:
        """Read the first model of a file: all chains and ligands, without waters, centred on its centre of mass.

        No biological assembly is generated.

        Args:
            path: mmCIF or PDB file, plain or `.gz`.
            chains: names of the chains to keep; none: all.
            without_chains: names of chains to leave out.

        Raises:
            InputError: the file cannot be read as an atomic model, holds no atoms, or has no chain of a given name.
        """
        path = Path(path)
        model = _read_model(path)
        _choose_chains(path, model, chains, without_chains)
        coordinates = np.array([site.atom.pos.tolist() for site in model.all()])
        mass = _masses(model)
        if not mass.sum() > 0:
            raise InputError(f"{path}: all atoms have occupancy 0 and so no density. Restore the occupancies.")
        coordinates -= mass @ coordinates / mass.sum()
        return cls(path, model, coordinates)

    def on_principal_axes(self) -> AtomicModel:
        """Turn the model so that its shortest extent is along x and its longest along z.

        For a D2 assembly these are its 2-fold axes, which is RELION's setting of D2; for other groups they need not be
        symmetry axes.
        """
        return replace(
            self, coordinates_A=self.coordinates_A @ _principal_axes(self.coordinates_A, _masses(self.model))
        )

    def moved(self, rotation: NDArray[np.float64], shift_A: NDArray[np.float64]) -> AtomicModel:
        """Turn the model by `rotation` (3, 3), acting on columns x, y, z, and then shift it by `shift_A` (3,)."""
        return replace(self, coordinates_A=self.coordinates_A @ rotation.T + shift_A)

    def density(self, resolution_A: float, box: int, pixel_size_A: float) -> NDArray[np.float32]:
        """Compute the density at a given resolution, as an electron sees it.

        Every atom is its electron form factor (gemmi's `DensityCalculatorE`) blurred by a Gaussian of standard
        deviation 0.225 `resolution_A` (B = 8 pi^2 sigma^2); the file's own B factors are not used. Frequencies
        at and beyond the box's Nyquist are cut off sharply, so a map finer than two pixels has negative ripples.

        Args:
            resolution_A: nominal resolution of the map, angstrom.
            box: side D of the volume in voxels.
            pixel_size_A: voxel size, angstrom.

        Returns:
            (D, D, D) array in z, y, x order, scaled to a maximum of 1.

        Raises:
            InputError: the model with a margin of `resolution_A` does not fit in the box in every orientation, or a
                size is not positive.
        """
        require_positive(box=box, pixel_size_A=pixel_size_A, resolution_A=resolution_A)
        self._require_room(resolution_A, box, pixel_size_A)
        # On a grid of half the pixel an atom narrower than the grid step would alias. Such atoms are drawn with
        # the step as their width; the excess blur is undone exactly on the frequencies that are kept.
        sigma_A = 0.225 * resolution_A
        drawn_sigma_A = max(sigma_A, pixel_size_A / 2)
        model = self.model.clone()
        for site, position in zip(model.all(), self.coordinates_A + box // 2 * pixel_size_A, strict=True):
            site.atom.pos = gemmi.Position(*position)
            site.atom.b_iso = 8 * math.pi**2 * drawn_sigma_A**2
            site.atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)  # an anisotropic B would take precedence over b_iso
        calculator = gemmi.DensityCalculatorE()
        calculator.cutoff = 1e-7
        side_A = box * pixel_size_A
        calculator.grid.set_unit_cell(gemmi.UnitCell(side_A, side_A, side_A, 90, 90, 90))
        calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
        calculator.grid.set_size(2 * box, 2 * box, 2 * box)
        calculator.add_model_density_to_grid(model)
        fine = np.asarray(calculator.grid.array, dtype=np.float64).transpose(2, 1, 0)  # gemmi's order is x, y, z
        return unit_maximum(_crop_and_sharpen(fine, box, (drawn_sigma_A**2 - sigma_A**2) / pixel_size_A**2))

    def _require_room(self, margin_A: float, box: int, pixel_size_A: float) -> None:
        # A projection may look along any direction: the sphere around the centre has to fit, not just a box.
        radius_A = float(np.linalg.norm(self.coordinates_A, axis=1).max()) + margin_A
        if radius_A > (box - 1) // 2 * pixel_size_A:
            smallest = 2 * math.ceil(radius_A / pixel_size_A) + 2
            raise InputError(
                f"{self.path}: the model needs {2 * radius_A:.0f} A but a box of {box} px at {pixel_size_A:g} A/px "
                f"holds {box * pixel_size_A:.0f} A. Use a box of at least {smallest} px or a larger pixel size."
            )


def _read_model(path: Path) -> gemmi.Model:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Give the path of an mmCIF or PDB model.")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        reason = " ".join(str(error).split())
        problem = f"{path}: not readable as mmCIF or PDB ({reason}). Download the model again."
        raise InputError(problem) from error
    structure.setup_entities()
    structure.remove_waters()
    structure.remove_empty_chains()
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path}: the file holds no atoms besides water. Give an mmCIF or PDB model.")
    return structure[0]


def _choose_chains(path: Path, model: gemmi.Model, kept: Collection[str], left_out: Collection[str]) -> None:
    """Remove chains from a model."""
    names = list(dict.fromkeys(chain.name for chain in model))
    for name in (*kept, *left_out):
        if name not in names:
            raise InputError(f"{path}: there is no chain {name}; its chains are {', '.join(names)}.")
    for name in names:
        if name in left_out or (kept and name not in kept):
            model.remove_chain(name)
    if len(model) == 0:
        raise InputError(f"{path}: no chain is left. Keep one.")


def _masses(model: gemmi.Model) -> NDArray[np.float64]:
    """Occupancy times atomic weight (N,) of each atom."""
    return np.array([site.atom.occ * site.atom.element.weight for site in model.all()])


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
