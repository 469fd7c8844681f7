"""What is measured of half maps by place and direction, written and said."""

from pathlib import Path

import numpy as np
import pytest

from cryogan.config import resolve
from cryogan.grids import centred_radius
from cryogan.models.phantom import phantom
from cryogan.particles import read_volume, write_star
from cryogan.run.folder import MapFolder, RunFolder
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan
from cryogan.run.resolution import MapResolution, local_resolution_path, measure_resolution, pictures, plot_resolution
from cryogan.validation import fsc_curves, low_pass, soft_mask

BOX, PIXEL = 32, 4.0


@pytest.fixture
def plan(particles: Path) -> Plan:
    made, *_ = read_inputs(particles / "particles.star", None, None, resolve("default", None, {"symmetry": "D2"}))
    return made


def noise(seed: int) -> np.ndarray:
    inside = centred_radius(BOX, axes=3) < 15
    return inside * np.random.default_rng(seed).standard_normal((BOX,) * 3)


def half_maps(strength: float) -> tuple[np.ndarray, np.ndarray]:
    truth = phantom(BOX, PIXEL, 1)
    return truth + strength * truth.std() * noise(1), truth + strength * truth.std() * noise(2)


def measured(folder: MapFolder, plan: Plan, halves: tuple[np.ndarray, np.ndarray]) -> MapResolution:
    mask = soft_mask((halves[0] + halves[1]) / 2, PIXEL)
    curves = fsc_curves(*halves, PIXEL, mask)
    found = measure_resolution(folder, plan, halves, mask, curves)
    plot_resolution(folder, plan, found, (halves[0] + halves[1]) / 2, curves)
    return found


def test_good_half_maps_have_a_map_figures_and_numbers(plan: Plan, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    found = measured(folder, plan, half_maps(0.3))
    assert found.local is not None
    volume, pixel_size = read_volume(local_resolution_path(folder))
    np.testing.assert_array_equal(volume, found.local.volume)
    assert pixel_size == PIXEL
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures(folder).values())
    assert found.directions is not None
    assert found.values["directions"] == {
        "cfar": found.directions.area_ratio,
        "resolution_A": found.range_of_directions,
        "half_angle": 20.0,
    }
    assert found.values["scf"] is None
    assert "median 8.0 A" in found.facts["Local resolution"]
    assert "8.0 to 8.0 A in nine tenths of the directions" in found.facts["Resolution by direction"]
    assert found.findings == []


def test_where_too_little_agrees_there_is_no_number_and_no_file_of_before(plan: Plan, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    measured(folder, plan, half_maps(0.3))
    truth = low_pass(phantom(BOX, PIXEL, 1), PIXEL, 40.0)
    found = measured(folder, plan, (truth + truth.std() * noise(1), truth + truth.std() * noise(2)))
    assert found.local is None
    assert found.directions is None
    assert not local_resolution_path(folder).exists()
    assert not any(path.exists() for path in pictures(folder).values())
    assert all(fact.startswith("not measured: ") for fact in found.facts.values())
    assert found.values == {"local_resolution_A": None, "directions": None, "scf": None}


def test_maps_that_lack_a_direction_are_warned_of(plan: Plan, tmp_path: Path) -> None:
    axis = np.fft.fftfreq(BOX)
    z, y, x = np.meshgrid(axis, axis, np.abs(axis[: BOX // 2 + 1]), indexing="ij")
    lacking = np.abs(z) > np.cos(np.radians(35)) * np.sqrt(x**2 + y**2 + z**2)

    def noise_there(seed: int) -> np.ndarray:
        return np.fft.irfftn(np.where(lacking, np.fft.rfftn(noise(seed)), 0), s=(BOX,) * 3, axes=(0, 1, 2))

    first, second = half_maps(0.3)
    strength = 5 * first.std()
    found = measured(RunFolder(tmp_path), plan, (first + strength * noise_there(3), second + strength * noise_there(4)))
    (finding,) = found.findings
    assert finding.code == "anisotropic"
    assert found.directions is not None
    assert np.abs(found.directions.directions[found.directions.resolution.argmax(), 2]) > 0.8


def test_the_views_of_the_poses_are_judged_where_there_are_any(plan: Plan, tmp_path: Path) -> None:
    folder, generator = RunFolder(tmp_path), np.random.default_rng(0)
    folder.poses.path.mkdir()
    uniform = np.degrees(np.arccos(generator.uniform(-1, 1, 2000)))
    angles = {"rlnAngleRot": generator.uniform(-180, 180, 2000), "rlnAnglePsi": np.zeros(2000)}
    for tilt, factor in ((uniform, 0.98), (np.full(2000, 90.0), 0.81)):
        columns = {name: values.tolist() for name, values in (angles | {"rlnAngleTilt": tilt}).items()}
        write_star(folder.poses.particles, {"particles": columns})
        found = measured(folder, plan, half_maps(0.3))
        assert found.scf == pytest.approx(factor, abs=0.02)
        assert found.facts["Views of the poses"].startswith(f"SCF {found.scf:.2f} ")
