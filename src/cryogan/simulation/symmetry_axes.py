"""An atomic model in RELION's setting of its point group."""

from cryogan.errors import InputError
from cryogan.models.atomic_model import AtomicModel
from cryogan.validation import find_axes

COARSE_RESOLUTION_A = 10.0  # of the map in which the axes are looked for
SYMMETRIC = 0.95  # least correlation of that map with itself under the group; molecules of the group have 0.998


def on_symmetry_axes(model: AtomicModel, symmetry: str, box: int, pixel_size: float) -> AtomicModel:
    """Turn and shift a model so that its symmetry axes are those of a point group as RELION sets them.

    The axes are found in a map of the model (`find_axes`).

    Args:
        model: model in any frame.
        symmetry: point group, such as C4, D7 or O.
        box: D, pixels, in which the model fits.
        pixel_size: A.

    Raises:
        InputError: the point group is unknown, the model does not fit, or it does not have the symmetry.
    """
    resolution_A = max(COARSE_RESOLUTION_A, 2 * pixel_size)
    found = find_axes(model.density(resolution_A, box, pixel_size), pixel_size, symmetry)
    if found.correlation < SYMMETRIC:
        raise InputError(
            f"{model.path}: the model correlates with itself only to {found.correlation:.2f} under the point group "
            f"{symmetry}. Give the model's own point group, or its biological assembly."
        )
    return model.moved(found.rotation, found.shift_A)
