"""What a micrograph's name tells of the place where it was taken."""

import re

_SQUARE = re.compile(r"GridSquare[_-]?(\d+)", re.IGNORECASE)
_HOLE = re.compile(r"FoilHole[_-]?(\d+)", re.IGNORECASE)


def grid_square(micrograph: str) -> str | None:
    """Return the grid square in a micrograph's name or folders as EPU gives it; failing that its hole; or None.

    Args:
        micrograph: such as Images-Disc1/GridSquare_7145/Data/FoilHole_9012_Data_3_20260102_1130_fractions.mrc.
    """
    for name, pattern in (("GridSquare", _SQUARE), ("FoilHole", _HOLE)):
        if (found := pattern.search(micrograph)) is not None:
            return f"{name}_{found[1]}"
    return None
