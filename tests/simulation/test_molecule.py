"""Radius and detergent belt in closed form."""

import numpy as np
import pytest

from cryogan.simulation.disturbances import Disturbances
from cryogan.simulation.molecule import detergent_belt, molecule_radius

AXIS = np.arange(64) - 32


def test_radius_of_a_ball() -> None:
    distance = np.sqrt(AXIS[:, None, None] ** 2 + AXIS[:, None] ** 2 + AXIS**2)
    inside = (distance <= 20).astype(np.float32)
    assert molecule_radius(inside - 0.01, 3.0) == pytest.approx(60 * 0.99 ** (1 / 3), abs=1.0)


def test_belt_around_a_pipe() -> None:
    """An annulus of 25 A around the outline, 35 A thick, and nothing inside the pipe."""
    pixel, radius = 3.0, 9.0
    across = np.hypot(AXIS[:, None], AXIS)
    pipe = np.where((across <= radius) & (across >= 4), 2.0, 0.0)[None] * (np.abs(AXIS) <= 25)[:, None, None]
    belt = detergent_belt(pipe.astype(np.float32), pixel, Disturbances(belt=0.5, belt_position=15.0))
    volume = np.pi * ((radius * pixel + 25) ** 2 - (radius * pixel) ** 2) * 35 / pixel**3
    assert belt.sum() == pytest.approx(0.5 * 2.0 * volume, rel=0.1)
    assert (belt * AXIS[:, None, None]).sum() / belt.sum() * pixel == pytest.approx(15, abs=0.5)
    assert belt[32 + 5][across < 4].max() < 0.02
    assert belt[32 + 5][(across > 12) & (across < 14)].min() > 0.8
    assert belt[:, across > 22].max() < 0.1
