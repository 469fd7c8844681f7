"""What simulation asks of a molecule's volume: its radius, and a detergent belt around it."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cryogan.grids import centred_axis, centred_radius
from cryogan.simulation.disturbances import Disturbances

BELT_THICKNESS_A = 35.0  # of the hydrophobic part of a bilayer, and of a micelle around it
BELT_WIDTH_A = 25.0  # beyond the molecule
BELT_BLUR_A = 4.0  # s.d.
SURFACE = 0.1  # of the largest density: where the molecule ends
MASS_WITHIN = 0.99  # of the density, by which the radius is defined


def molecule_radius(volume: NDArray[np.float32], pixel_size: float) -> float:
    """Radius in A of the sphere about the centre voxel that holds 99 % of a volume's (D, D, D) positive density."""
    radii = centred_radius(len(volume), 3).ravel()
    order = np.argsort(radii, kind="stable")
    mass = np.cumsum(np.clip(volume, 0, None).ravel()[order], dtype=np.float64)
    return float(radii[order][np.searchsorted(mass, MASS_WITHIN * mass[-1])] * pixel_size)


def detergent_belt(volume: NDArray[np.float32], pixel_size: float, disturbances: Disturbances) -> NDArray[np.float32]:
    """A belt around a molecule, as detergent forms around a membrane protein, about the z axis.

    In each section along z the belt fills the 25 A beyond the molecule's outline, but no hole inside; it is 35 A thick
    and falls softly at its surface.

    Args:
        volume: (D, D, D) in z, y, x, the molecule.
        pixel_size: A.
        disturbances: `belt` and `belt_position` say its density and place.

    Returns:
        (D, D, D), the belt alone.
    """
    molecule = volume > SURFACE * volume.max()
    z = centred_axis(len(volume)) * pixel_size - disturbances.belt_position
    inside = np.abs(z) <= BELT_THICKNESS_A / 2
    belt = np.zeros(volume.shape)
    for section in np.flatnonzero(inside):
        outline = ndimage.binary_fill_holes(molecule[section])
        if outline.any():
            away = ndimage.distance_transform_edt(~outline) * pixel_size
            belt[section] = (away > 0) & (away <= BELT_WIDTH_A)
    belt = ndimage.gaussian_filter(belt, BELT_BLUR_A / pixel_size)
    return np.asarray(disturbances.belt * volume[molecule].mean() * belt, dtype=np.float32)
