"""Images of several grids on one: the object keeps its size in A, its level and its centre."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares

from cryogan.particles import ParticleImages, ParticleTable, crop, open_stack, read_particles, write_stack
from cryogan.particles.resample import Resampler

Make = Callable[..., Path]

SIGMA, RADIUS = (8.0, 5.5), 28.0  # A, in x and y
GRIDS = [(32, 2.0), (20, 3.3), (48, 1.27), (27, 2.2)]  # 64, 66, 60.96 and 57.2 A wide


def blob(box: int, pixel_size: float, sigma: tuple[float, float] = SIGMA, centre: float = 3.0) -> np.ndarray:
    """An ellipse of Gaussian profile, off the centre in x by 3 A."""
    y, x = (np.indices((box, box)) - box // 2) * pixel_size
    return np.exp(-((x - centre) ** 2) / (2 * sigma[0] ** 2) - y**2 / (2 * sigma[1] ** 2)).astype(np.float32)


def fitted(image: np.ndarray, pixel_size: float) -> np.ndarray:
    """s.d. in x and y, and centre in x, A, of the ellipse that fits an image best."""

    def residual(p: np.ndarray) -> np.ndarray:
        model = p[0] + p[1] * blob(len(image), pixel_size, (p[2], p[3]), p[4])
        return (model - image).ravel().astype(np.float64)

    found: np.ndarray = least_squares(residual, [0.0, float(image.max()), 7.0, 6.0, 0.0], diff_step=1e-4).x[2:]
    return found


@pytest.mark.parametrize(("box", "pixel_size"), GRIDS)
def test_a_smooth_image_is_sampled_anew(box: int, pixel_size: float) -> None:
    even = box - box % 2
    resample = Resampler(even, pixel_size, 20, 3.4, margin=3)
    given = 5 + blob(box, pixel_size)[None, :even, :even]
    inside = np.s_[3:-3, 3:-3]  # where all of the images have pixels
    np.testing.assert_allclose(resample(given)[0][inside], 5 + blob(20, 3.4)[inside], atol=3e-3)
    np.testing.assert_allclose(resample(np.full_like(given, 7)), 7, rtol=1e-5)


def test_a_narrower_image_is_continued_with_its_margin() -> None:
    noise = np.random.default_rng(0).standard_normal((200, 16, 16)).astype(np.float32) + 3
    wide = Resampler(16, 2.0, 24, 2.0, margin=4)(noise)
    assert wide.shape == (200, 24, 24)
    beyond = np.concatenate([wide[:, :3].ravel(), wide[:, -3:].ravel()])
    inside = wide[:, 6:-6, 6:-6]
    assert beyond.mean() == pytest.approx(3, abs=0.05)
    assert beyond.std() == pytest.approx(inside.std(), rel=0.05)  # noise, no frame


@pytest.fixture
def mixed(make_star: Make, tmp_path: Path) -> ParticleTable:
    """Three noisy images on each of the grids."""
    rng, names = np.random.default_rng(1), []
    for number, (box, pixel_size) in enumerate(GRIDS):
        images = 200 + 40 * blob(box, pixel_size) + 0.1 * rng.standard_normal((3, box, box))
        write_stack(tmp_path / f"{number}.mrcs", images.astype(np.float32), pixel_size)
        names += [f"{image}@{number}.mrcs" for image in (1, 2, 3)]
    groups, columns = len(GRIDS), len(GRIDS) * 3
    optics: dict[str, Any] = {
        "rlnOpticsGroup": list(range(1, groups + 1)),
        "rlnOpticsGroupName": [f"g{number}" for number in range(groups)],
        "rlnImagePixelSize": [pixel_size for _, pixel_size in GRIDS],
        "rlnImageSize": [box for box, _ in GRIDS],
        "rlnImageDimensionality": [2] * groups,
        "rlnVoltage": [300.0] * groups,
        "rlnSphericalAberration": [2.7] * groups,
        "rlnAmplitudeContrast": [0.1] * groups,
    }
    particles: dict[str, Any] = {
        "rlnImageName": names,
        "rlnMicrographName": ["m.mrc"] * columns,
        "rlnDefocusU": [1e4] * columns,
        "rlnDefocusV": [1e4] * columns,
        "rlnDefocusAngle": [0.0] * columns,
        "rlnUnknownColumn": None,
        "rlnOpticsGroup": np.repeat(range(1, groups + 1), 3).tolist(),
    }
    return read_particles(make_star(optics, particles))


def test_planes_are_subtracted_on_each_grid(mixed: ParticleTable) -> None:
    rows = np.arange(12)
    without = ParticleImages(mixed, 18, RADIUS).batch(rows)
    for number, (box, pixel_size) in enumerate(GRIDS):
        path = next(path for path in mixed.stacks if path.name == f"{number}.mrcs")
        y, x = np.indices((box, box)) / box
        write_stack(path, np.array(open_stack(path)) + (0.3 * x - 0.5 * y).astype(np.float32), pixel_size)
    tilted = read_particles(mixed.source)
    np.testing.assert_allclose(ParticleImages(tilted, 18, RADIUS).batch(rows), without, rtol=2e-5, atol=2e-3)
    assert np.abs(ParticleImages(tilted, 18, RADIUS, keep_gradient=True).batch(rows) - without).max() > 0.5


@pytest.mark.parametrize("cached", [False, True])
def test_groups_of_several_grids_show_one_scale(mixed: ParticleTable, tmp_path: Path, cached: bool) -> None:
    assert (mixed.box, mixed.pixel_size) == (20, 3.3)  # as wide as the widest, as coarse as the coarsest
    stack = crop(mixed, 18, RADIUS, False, tmp_path / "cache") if cached else None
    images = ParticleImages(mixed, 18, RADIUS, cropped=stack)
    assert images.pixel_size == pytest.approx(66 / 18)
    assert not images.cropped_odd
    seen = images.batch(np.arange(12))
    for image in seen:
        x, y, centre = fitted(image, images.pixel_size)
        assert centre == pytest.approx(3.0, abs=0.03)
        assert (x, y) == pytest.approx(SIGMA, rel=0.002)
    order = np.array([7, 0, 11, 3])
    np.testing.assert_array_equal(images.batch(order), seen[order])
