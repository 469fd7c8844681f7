"""Local resolution of half maps whose resolution is known in each place."""

import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.grids import frequency_radius
from cryogan.validation import local_resolution, spherical_mask

BOX, PIXEL = 48, 4.0
FINE_A, COARSE_A = 10.0, 20.0
EVERYWHERE = np.ones((BOX,) * 3)


def half_maps() -> tuple[np.ndarray, np.ndarray]:
    """Half maps of white signal, and noise of power (resolution x frequency)^4: FSC 1 / (1 + that), 0.5 by design.

    The resolution is 20 A where x is below the middle, and 10 A elsewhere.
    """
    generator = np.random.default_rng(0)
    signal = generator.standard_normal((BOX,) * 3)
    frequency = frequency_radius(BOX, 3, PIXEL)

    def noisy() -> np.ndarray:
        white = np.fft.rfftn(generator.standard_normal(signal.shape))
        coarse, fine = (
            np.fft.irfftn(white * (resolution * frequency) ** 2, s=signal.shape, axes=(0, 1, 2))
            for resolution in (COARSE_A, FINE_A)
        )
        coarse[:, :, BOX // 2 :] = fine[:, :, BOX // 2 :]
        return signal + coarse

    return noisy(), noisy()


def test_each_region_has_its_own_resolution() -> None:
    measured = local_resolution(*half_maps(), PIXEL, EVERYWHERE, 12.0)
    assert measured is not None
    assert measured.width_A == 60
    far = round(0.75 * measured.width_A / PIXEL)  # half of all of the window
    inner, middle = slice(far, -far), BOX // 2
    coarse, fine = measured.volume[inner, inner, far : middle - far + 2], measured.volume[inner, inner, middle + far :]
    for region, resolution in ((coarse, COARSE_A), (fine, FINE_A)):
        np.testing.assert_allclose(np.median(region), resolution, rtol=0.1)
        low, high = np.percentile(region, (5, 95))  # few coefficients are in a window
        assert low > 0.85 * resolution
        assert high < 1.25 * resolution


def test_a_scale_does_not_matter_and_order_does_not() -> None:
    first, second = half_maps()
    one = local_resolution(first, second, PIXEL, EVERYWHERE, 8.0)
    other = local_resolution(3e-4 * second, 2e4 * first, PIXEL, EVERYWHERE, 8.0)
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.volume, other.volume, rtol=1e-3)


def test_outside_the_molecule_is_the_coarsest_value() -> None:
    mask = spherical_mask(BOX, PIXEL, 40.0, 12.0)
    measured = local_resolution(*half_maps(), PIXEL, mask, 8.0)
    assert measured is not None
    np.testing.assert_array_equal(measured.inside, mask > 0.9)
    assert set(measured.volume[~measured.inside]) == {measured.volume[measured.inside].max()}


def test_noise_alone_has_the_resolution_of_a_window() -> None:
    generator = np.random.default_rng(1)
    noise = (generator.standard_normal((BOX,) * 3) for _ in range(2))
    measured = local_resolution(*noise, PIXEL, EVERYWHERE, 8.0)
    assert measured is not None
    assert np.median(measured.volume) > 0.9 * measured.width_A


def test_nothing_is_said_where_windows_would_be_larger_than_half_of_the_box() -> None:
    first, second = half_maps()
    assert local_resolution(first, second, PIXEL, EVERYWHERE, 0.1 * BOX * PIXEL - 0.1) is not None
    assert local_resolution(first, second, PIXEL, EVERYWHERE, 0.1 * BOX * PIXEL + 0.1) is None


def test_maps_of_two_boxes_are_refused() -> None:
    with pytest.raises(InputError, match="Resample one"):
        local_resolution(np.ones((16,) * 3), np.ones((18,) * 3), PIXEL, np.ones((16,) * 3), 8.0)
