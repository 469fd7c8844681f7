"""Grid squares in the names of micrographs."""

import pytest

from cryogan.live.names import grid_square


@pytest.mark.parametrize(
    ("micrograph", "square"),
    [
        ("Images-Disc1/GridSquare_7145/Data/FoilHole_9012_Data_3_20260102_1130_fractions.mrc", "GridSquare_7145"),
        ("MotionCorr/job002/FoilHole_9012_Data_3_20260102_1130.mrc", "FoilHole_9012"),
        ("movies/stack_0001.mrc", None),
        ("", None),
    ],
)
def test_what_a_name_tells(micrograph: str, square: str | None) -> None:
    assert grid_square(micrograph) == square
