"""Where views are missing: closed forms."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan.live.coverage import coverage_with, missing_cap
from cryogan.live.folder import LiveFolder, write_json
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.symmetry import point_group
from cryogan.rotations import uniform_rotations


def test_a_cap_is_found_with_its_half_angle() -> None:
    directions = PoseDistribution(torch.device("cpu")).directions
    axis = torch.tensor([0.6, 0.0, 0.8])
    far = (directions @ axis).abs().acos()
    coverage = torch.where(torch.rad2deg(far) < 30, 0.01 + 0.1 * far, 1.0)
    worst, within = missing_cap(directions, coverage)
    assert abs(float(worst @ axis)) > np.cos(np.radians(6))
    assert within == pytest.approx(30, abs=4)
    assert missing_cap(directions, torch.ones_like(coverage))[1] == 0.0


def test_views_near_an_axis_leave_the_axis_uncovered_until_others_come(tmp_path: Path) -> None:
    folder = LiveFolder(tmp_path)
    folder.make()
    generator = torch.Generator().manual_seed(0)
    every = uniform_rotations(40000, generator)
    near = every[every[:, 2, 2].abs() > np.cos(np.radians(25))][:2000]
    group = torch.from_numpy(point_group("C1")).float()
    write_json(folder.map_record(1), {"particles": 2000, "last_portion": 0})
    record = {"map": 1, "particles": 500, "share": 1.0}
    found = coverage_with(folder, 1, record, near[:500], near, group)
    assert found["missing"] > 0.1
    assert abs(found["missing_about"][2]) > 0.95
    assert 35 < found["missing_within"] < 75
    folder.portion_star(1).touch()
    write_json(folder.portion_record(1), record | found)
    folder.portion_star(2).touch()
    mended = coverage_with(folder, 2, record | {"particles": 3000}, every[:3000], near, group)
    assert mended["missing"] == 0.0
