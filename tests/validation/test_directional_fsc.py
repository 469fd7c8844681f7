"""FSC in cones of isotropic maps and of maps that lack a direction; sampling of views in closed form."""

import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.physics.symmetry import point_group
from cryogan.validation import (
    FscCurves,
    conical_fsc,
    fsc_curves,
    half_sphere,
    sampling_compensation_factor,
    spherical_mask,
)

BOX, PIXEL = 48, 4.0
NO_SYMMETRY = point_group("C1")


def half_maps(lacking: np.ndarray | None = None, degrees: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """White signal and a tenth of noise; without any signal in a cone about the direction `lacking` (x, y, z)."""
    generator = np.random.default_rng(0)
    spectrum = np.fft.rfftn(generator.standard_normal((BOX,) * 3))
    if lacking is not None:
        axis = np.fft.fftfreq(BOX)
        z, y, x = np.meshgrid(axis, axis, np.abs(axis[: BOX // 2 + 1]), indexing="ij")
        along = np.abs(x * lacking[0] + y * lacking[1] + z * lacking[2])
        spectrum[along > np.cos(np.radians(degrees)) * np.sqrt(x**2 + y**2 + z**2)] = 0
    signal = np.fft.irfftn(spectrum, s=(BOX,) * 3, axes=(0, 1, 2))
    first, second = (signal + 0.3 * generator.standard_normal(signal.shape) for _ in range(2))
    return first, second


def curves_of(halves: tuple[np.ndarray, np.ndarray], mask: np.ndarray) -> FscCurves:
    return fsc_curves(*halves, PIXEL, mask)


def test_directions_are_spread_evenly_over_the_half_sphere() -> None:
    directions = half_sphere(256)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert directions[:, 2].min() > 0
    # The second moment of an even distribution is a third of the identity.
    np.testing.assert_allclose(directions.T @ directions / 256, np.eye(3) / 3, atol=0.01)


def test_isotropic_maps_agree_in_all_directions() -> None:
    halves, mask = half_maps(), np.ones((BOX,) * 3)
    found = conical_fsc(*halves, mask, curves_of(halves, mask))
    assert found.area_ratio > 0.94
    np.testing.assert_array_equal(found.resolution, 2 * PIXEL)
    np.testing.assert_allclose(found.curves[:, 12:].mean(axis=1), 1 / 1.09, atol=0.01)  # 1 / (1 + noise power)


def test_the_mean_over_cones_is_the_fsc_of_the_shell() -> None:
    halves, mask = half_maps(), spherical_mask(BOX, PIXEL, 60.0, 20.0)
    curves = curves_of(halves, mask)
    found = conical_fsc(*halves, mask, curves)
    np.testing.assert_allclose(found.curves[:, 6:].mean(axis=0), curves.corrected[6:], atol=0.02)


@pytest.mark.parametrize("lacking", [(0, 0, 1), (1, 0, 0), (0.6, 0, 0.8), (0.36, -0.48, 0.8)])
def test_a_missing_cone_is_found_where_it_is(lacking: tuple[float, float, float]) -> None:
    axis, mask = np.array(lacking), np.ones((BOX,) * 3)
    halves = half_maps(axis)
    found = conical_fsc(*halves, mask, curves_of(halves, mask))
    assert found.area_ratio < 0.2
    angle = np.degrees(np.arccos(np.clip(np.abs(found.directions @ axis), 0, 1)))
    assert angle[found.resolution.argmax()] < 20
    assert found.resolution[angle < 8].min() > 6 * PIXEL
    np.testing.assert_array_equal(found.resolution[angle > 52], 2 * PIXEL)


def test_curves_of_another_box_are_refused() -> None:
    halves, mask = half_maps(), np.ones((BOX,) * 3)
    curves = fsc_curves(*(half[:40, :40, :40] for half in halves), PIXEL)
    with pytest.raises(InputError, match="differ in box"):
        conical_fsc(*halves, mask, curves)


def whole_sphere(count: int) -> np.ndarray:
    half = half_sphere(count // 2)
    return np.concatenate([half, -half])


def side_views(count: int) -> np.ndarray:
    azimuth = 2 * np.pi * (np.arange(count) + 0.5) / count
    return np.stack([np.cos(azimuth), np.sin(azimuth), np.zeros(count)], axis=1)


def test_uniform_views_sample_evenly() -> None:
    assert sampling_compensation_factor(whole_sphere(20000), NO_SYMMETRY, 12) > 0.99


def test_side_views_have_the_factor_of_the_closed_form() -> None:
    """s is proportional to 1 / sin(theta): mean pi/2, and mean of 1/s pi/4."""
    assert sampling_compensation_factor(side_views(20000), NO_SYMMETRY, 24) == pytest.approx(8 / np.pi**2, abs=0.01)


def test_one_view_leaves_almost_all_unsampled() -> None:
    views = np.tile([0.0, 0.0, 1.0], (5000, 1))
    assert sampling_compensation_factor(views, NO_SYMMETRY, 12) < 0.02


def test_symmetry_multiplies_views() -> None:
    views = np.random.default_rng(0).normal([0.0, 0.0, 1.0], 0.2, (2000, 3))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    factors = [sampling_compensation_factor(views, point_group(name), 12) for name in ("C1", "D2", "T", "O")]
    assert factors[0] == pytest.approx(factors[1], abs=0.02)  # half-turns about axes leave a cap about z in place
    assert factors[0] < 0.3
    assert factors[2] > 2 * factors[0]
    assert factors[3] > 1.5 * factors[0]


def test_no_views_are_refused() -> None:
    with pytest.raises(InputError, match="no views"):
        sampling_compensation_factor(np.zeros((0, 3)), NO_SYMMETRY, 12)
