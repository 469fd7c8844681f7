"""The plane fitted to the background: what it takes away, what it leaves, and what noise alone makes of it."""

import numpy as np
import pytest

from cryogan.particles.background import PlaneFit, outside_circle

BOX, RADIUS = 32, 12.0


def plane(box: int, a: float, b: float, c: float) -> np.ndarray:
    """a + b x + c y, x and y in half boxes from pixel box // 2."""
    y, x = (np.indices((box, box)) - box // 2) / (box / 2)
    return (a + b * x + c * y).astype(np.float32)


def noise(count: int, box: int = BOX, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, box, box)).astype(np.float32)


@pytest.fixture
def fit() -> PlaneFit:
    return PlaneFit(BOX, outside_circle(BOX, RADIUS))


@pytest.mark.parametrize("box", [32, 33])
def test_a_plane_is_found_and_taken_away(box: int) -> None:
    fit = PlaneFit(box, outside_circle(box, RADIUS))
    image = plane(box, 3.0, -0.7, 0.2)[None]
    np.testing.assert_allclose(fit.coefficients(image), [[3.0, -0.7, 0.2]], atol=1e-6)
    np.testing.assert_allclose(fit.subtract(image), 0, atol=1e-6)
    images = noise(3, box)
    np.testing.assert_allclose(fit.subtract(images + image), fit.subtract(images), atol=1e-6)


def test_nothing_of_a_plane_is_left_in_the_background(fit: PlaneFit) -> None:
    flat = fit.subtract(noise(5) + plane(BOX, 100.0, 5.0, -9.0))
    np.testing.assert_allclose(fit.coefficients(flat), 0, atol=1e-5)


def test_the_particle_does_not_enter_the_fit(fit: PlaneFit) -> None:
    images = noise(1)
    y, x = np.indices((BOX, BOX)) - BOX // 2
    particle = np.where(np.hypot(x, y) <= RADIUS, 50 + 10 * x - 3 * y, 0).astype(np.float32)
    np.testing.assert_array_equal(fit.coefficients(images + particle), fit.coefficients(images))
    np.testing.assert_allclose(fit.subtract(images + particle) - fit.subtract(images), particle[None], atol=1e-4)


def test_slopes_in_noise_have_the_least_squares_variance(fit: PlaneFit) -> None:
    row, column = np.divmod(fit.pixels, BOX)
    x, y = (column - BOX // 2) / (BOX / 2), (row - BOX // 2) / (BOX / 2)
    design = np.stack([np.ones(len(x)), x, y])
    expected = np.diag(np.linalg.inv(design @ design.T))
    assert fit.noise_variance == pytest.approx(expected[1:].mean())
    slopes = fit.coefficients(2.5 * noise(4000))
    np.testing.assert_allclose(slopes.var(axis=0), 2.5**2 * expected, rtol=0.1)  # 4.5 s.d. of a variance of 4000


def test_no_result_depends_on_the_batch(fit: PlaneFit) -> None:
    images = noise(7)
    np.testing.assert_array_equal(fit.subtract(images)[4:5], fit.subtract(images[4:5]))
    assert fit.subtract(images[:0]).shape == (0, BOX, BOX)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_median_ramp_is_the_amplitude_beyond_that_of_noise(fit: PlaneFit, scale: float) -> None:
    images = noise(2000)
    found = np.hypot(*fit.coefficients(images)[:, 1:].T)
    assert np.median(found) == pytest.approx(np.sqrt(2 * np.log(2) * fit.noise_variance), rel=0.05)
    assert fit.median_ramp(scale * images) < 0.3 * np.median(found)
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, len(images))
    ramps = np.stack([plane(BOX, 7.0, 0.6 * np.cos(angle), 0.6 * np.sin(angle)) for angle in angles])
    assert fit.median_ramp(scale * (images + ramps)) == pytest.approx(0.6, abs=0.01)
