"""Each figure is written, is not blank, and shows what it says."""

import numpy as np
import pytest
from matplotlib.image import imread

from cryogan.errors import InputError
from cryogan.report.figures import (
    plot_directions,
    plot_fsc,
    plot_fsc_over_time,
    plot_gallery,
    plot_local_resolution,
    plot_power_spectra,
    plot_progress,
    plot_projections_over_time,
    plot_reslog,
    plot_view_averages,
    plot_volume_over_time,
)
from cryogan.report.figures.maps import shaded_surface

BOX = 24
PIXEL_SIZE_A = 4.0
FREQUENCY = np.arange(BOX // 2 + 1) / (BOX * PIXEL_SIZE_A)
CURVE = 1 / (1 + np.exp((FREQUENCY - 0.07) / 0.01))


def blob(*centre: float, sigma: float = 3.0) -> np.ndarray:
    """Gaussian at centre (z, y, x) in voxels from voxel D//2."""
    offset = np.indices((BOX,) * 3) - BOX // 2 - np.reshape(centre, (3, 1, 1, 1))
    return np.exp(-0.5 * (offset**2).sum(axis=0) / sigma**2).astype(np.float32)


def images(seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, BOX, BOX)).astype(np.float32)


RISING = np.linspace(8.0, 20.0, BOX**3).reshape((BOX,) * 3)
AXES = np.eye(3)
FIGURES = {
    "local_resolution": lambda path: plot_local_resolution(path, blob(0, 0, 0), RISING, blob(0, 0, 0) > 0.1),
    "local_resolution_of_one_value": lambda path: plot_local_resolution(
        path, blob(0, 0, 0), np.full_like(RISING, 8.0), blob(0, 0, 0) > 0.1
    ),
    "directions": lambda path: plot_directions(
        path, AXES, np.array([8.0, 9.0, 14.0]), FREQUENCY, np.stack([CURVE, CURVE, CURVE**3]), PIXEL_SIZE_A
    ),
    "reslog": lambda path: plot_reslog(
        path, 100.0 * np.array([1, 2, 4]), np.array([12.0, 10.0, 9.0]), np.array([True, True, False]), (0.01, 0.02)
    ),
    "reslog_without_a_line": lambda path: plot_reslog(
        path, 100.0 * np.array([1, 2]), np.array([12.0, 10.0]), np.array([True, True]), None
    ),
    "fsc": lambda path: plot_fsc(path, FREQUENCY, {"half-maps": CURVE, "truth": CURVE**2}, PIXEL_SIZE_A),
    "fsc_many": lambda path: plot_fsc(path, FREQUENCY, {f"{i}": CURVE * i / 9 for i in range(9)}, 4.0),
    "fsc_over_time": lambda path: plot_fsc_over_time(path, FREQUENCY, [("1 min", CURVE**4), ("9 min", CURVE)]),
    "volume_over_time": lambda path: plot_volume_over_time(
        path, [("start", 0 * blob(0, 0, 0)), ("1 min", blob(0, 0, 0)), ("9 min", blob(4, 0, 0) + blob(-4, 1, 0))]
    ),
    "projections_over_time": lambda path: plot_projections_over_time(
        path, [("start", 0 * images(0)), ("1 min", images(1))]
    ),
    "view_averages": lambda path: plot_view_averages(
        path, [("map", images(0)), ("kept", images(1)), ("rejected", images(2))], [None, [5, 4, 3, 2], [1, 0, 1, 0]]
    ),
    "gallery": lambda path: plot_gallery(path, images(0), images(1), images(2), images(3, count=7)),
    "power_spectra": lambda path: plot_power_spectra(path, FREQUENCY, 3 * CURVE, 2 * CURVE),
    "progress": lambda path: plot_progress(
        path,
        [
            {"minutes": 0.0, "critic_gap": 3.0, "signal_scale": 1.0},
            {"minutes": 1.0, "critic_gap": 1.0, "signal_scale": 1.1, "map_change": 0.4, "step": 100.0},
            {"minutes": 2.0, "critic_gap": 0.5, "signal_scale": 1.2, "map_change": 0.2, "step": 200.0},
        ],
    ),
    "progress_of_one_quantity": lambda path: plot_progress(path, [{"minutes": 0.0, "map_change": 1.0}]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_written_and_not_blank(tmp_path, name):
    path = tmp_path / f"{name}.png"
    FIGURES[name](path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no partial file stays
    picture = imread(path)
    assert min(picture.shape[:2]) > 200
    assert picture[..., :3].std() > 0.02


def test_figure_replaces_an_older_one(tmp_path):
    path = tmp_path / "fsc.png"
    path.write_text("old")
    plot_fsc(path, FREQUENCY, {"half-maps": CURVE}, PIXEL_SIZE_A)
    assert imread(path).ndim == 3


def test_surface_keeps_the_hand():
    """A picture with x to the right and y up must look from +z, x and z from -y, y and z from +x."""
    for axis, near, right in [(0, 5, 2), (1, -5, 2), (2, 5, 1)]:
        on_the_right, on_the_left = [0, 0, 0], [0, 0, 0]
        on_the_right[axis], on_the_right[right] = near, 6
        on_the_left[axis], on_the_left[right] = -near, -6
        picture = shaded_surface(blob(*on_the_right) + blob(*on_the_left), axis)
        left, right_half = np.split(picture, 2, axis=1)
        # The nearer ball is the brighter one.
        assert right_half[right_half < 1].mean() > 1.2 * left[left < 1].mean(), axis


def test_surface_has_its_upper_part_up():
    picture = shaded_surface(blob(0, 6, 0), 0)  # y > 0: rows above the middle, drawn with the origin below
    rows = np.nonzero((picture < 1).any(axis=1))[0]
    assert rows.mean() > picture.shape[0] / 2 + 10


@pytest.mark.parametrize(
    "plot",
    [
        lambda path: plot_fsc(path, FREQUENCY, {}, PIXEL_SIZE_A),
        lambda path: plot_fsc(path, FREQUENCY, {"short": CURVE[1:]}, PIXEL_SIZE_A),
        lambda path: plot_fsc_over_time(path, FREQUENCY, []),
        lambda path: plot_volume_over_time(path, []),
        lambda path: plot_local_resolution(path, blob(0, 0, 0), RISING, blob(0, 0, 0) > 2),
        lambda path: plot_directions(path, AXES, RISING[0, 0, :3], FREQUENCY, np.ones((3, 2)), PIXEL_SIZE_A),
        lambda path: plot_projections_over_time(path, []),
        lambda path: plot_view_averages(path, [], []),
        lambda path: plot_gallery(path, images(0), images(0), images(0), images(0, count=0)),
        lambda path: plot_power_spectra(path, FREQUENCY, CURVE[1:], CURVE),
        lambda path: plot_progress(path, [{"minutes": 1.0}]),
    ],
)
def test_nothing_to_plot_is_refused(tmp_path, plot):
    with pytest.raises(InputError):
        plot(tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())
