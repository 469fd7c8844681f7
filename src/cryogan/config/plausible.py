"""Whether the lengths among the settings are possible for the images at hand."""

from cryogan.config.renamed import as_flag
from cryogan.config.settings import Settings
from cryogan.errors import InputError

SMALLEST_SHARE = 1 / 8  # of the box: a particle's diameter, or a mask's


def require_plausible(settings: Settings, width_A: float, pixel_size_A: float) -> None:
    """Refuse lengths that cannot be in a box of this width.

    Args:
        settings: those of the run.
        width_A: the images' box, A.
        pixel_size_A: at the working box, A.

    Raises:
        InputError: with the range that is possible.
    """
    smallest = max(SMALLEST_SHARE * width_A, 4 * pixel_size_A)
    limits = {
        "particle_diameter": (smallest, width_A),
        "mask_diameter": (smallest, width_A),
        "max_shift": (0.0, width_A / 2),
        "smoothing": (0.0, SMALLEST_SHARE * width_A),
    }
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high * (1 + 1e-6):
            raise InputError(
                f"{as_flag(name)} {value:g} A is not possible in a box of {width_A:.0f} A: give {low:.0f} to "
                f"{high:.0f} A."
            )
