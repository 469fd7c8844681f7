"""Priors on the viewing direction."""

from pathlib import Path

import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.particles import read_pose_prior, write_star

ANGLES = {"rlnAngleRot": [0.0, 90.0, 10.0], "rlnAngleTilt": [0.0, 90.0, -180.0]}


def table(folder: Path, **columns: list[float]) -> Path:
    write_star(folder / "views.star", {"optics": {"rlnOpticsGroup": [1]}, "particles": ANGLES | columns})
    return folder / "views.star"


def test_a_row_is_a_direction_with_a_concentration_and_a_weight(tmp_path: Path) -> None:
    poses = read_pose_prior(table(tmp_path))
    np.testing.assert_allclose(poses.directions, [[0, 0, 1], [0, 1, 0], [0, 0, -1]], atol=1e-12)
    assert np.isnan(poses.concentrations).all()
    assert poses.weights.tolist() == [1, 1, 1]
    mixture = read_pose_prior(
        table(tmp_path, cryoganConcentration=[5.0, 0.5, 2000.0], cryoganViewDensity=[0.0, 1.0, 2.5])
    )
    assert mixture.concentrations.tolist() == [5, 0.5, 2000]
    assert mixture.weights.tolist() == [0, 1, 2.5]
    assert len(mixture) == 3


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (
            {"cryoganConcentration": [5.0, 0.0, 3.0]},
            "line 20: _cryoganConcentration is 0.000000. Give a number above 0",
        ),
        ({"cryoganConcentration": [5.0, 3.0, float("nan")]}, "line 21: _cryoganConcentration is nan. Give a finite"),
        ({"cryoganViewDensity": [-1.0, 0.0, 3.0]}, "line 19: _cryoganViewDensity is -1.000000. Give 0 or more"),
        ({"cryoganViewDensity": [0.0, 0.0, 0.0]}, "every _cryoganViewDensity is 0"),
        ({"rlnAngleTilt": [0.0, float("inf"), 0.0]}, "line 19: _rlnAngleTilt is inf. Give a finite number"),
        ({"rlnAngleTilt": [0.0, 0.0, 0.0]}, "all 3 rows of data_particles have one direction. Give poses that were"),
        ({"rlnAngleRot": [], "rlnAngleTilt": []}, "block data_particles has no rows. Give at least one"),
    ],
)
def test_what_is_no_density_is_refused(columns: dict[str, list[float]], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_pose_prior(table(tmp_path, **columns))
    assert complaint in str(refused.value)
    assert "views.star" in str(refused.value)


def test_a_file_without_angles_is_refused(tmp_path: Path) -> None:
    write_star(tmp_path / "particles.star", {"particles": {"rlnAngleRot": [1.0]}})
    with pytest.raises(InputError, match="no block has both _rlnAngleRot and _rlnAngleTilt"):
        read_pose_prior(tmp_path / "particles.star")
    with pytest.raises(InputError, match="cannot be read"):
        read_pose_prior(tmp_path / "none.star")
