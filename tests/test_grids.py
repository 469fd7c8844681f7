"""Grids: where the centre is, which frequencies a spectrum holds, and what a cropped one keeps."""

import numpy as np
import pytest

from cryogan.grids import (
    centred_axis,
    centred_radius,
    falling_cosine,
    fit_spectrum,
    frequency_axis,
    frequency_radius,
    interpolation_weights,
    squared_norm,
)

BOXES = [4, 7, 10, 49, 98]


@pytest.mark.parametrize("box", BOXES)
def test_the_centre_pixel_is_half_the_box_rounded_down(box: int) -> None:
    assert centred_axis(box)[box // 2] == 0
    assert np.argwhere(centred_radius(box, axes=3) == 0).tolist() == [[box // 2] * 3]
    assert centred_radius(box)[box // 2 + 1, box // 2] == 1


@pytest.mark.parametrize("box", BOXES)
def test_frequencies_are_laid_out_as_numpy_does_and_whole(box: int) -> None:
    np.testing.assert_allclose(frequency_axis(box), np.fft.fftfreq(box, 1 / box), rtol=1e-15)
    assert (frequency_axis(box) % 1 == 0).all()  # of `fftfreq`'s some are not, at 49 and 98
    np.testing.assert_array_equal(frequency_axis(box, 1.7), np.fft.fftfreq(box, 1.7))
    expected = np.hypot(np.fft.fftfreq(box, 1.7)[:, None], np.fft.rfftfreq(box, 1.7))
    np.testing.assert_allclose(frequency_radius(box, pixel_size=1.7), expected, rtol=1e-14)
    assert frequency_radius(box, axes=3).shape == np.fft.rfftn(np.zeros((box,) * 3)).shape


def test_squared_norm_combines_its_axes_in_order() -> None:
    np.testing.assert_array_equal(squared_norm(np.array([0, 3]), np.array([1, 2, 4])), [[1, 4, 16], [10, 13, 25]])


def test_falling_cosine_is_half_in_the_middle_of_its_edge() -> None:
    distance = np.array([0.0, 4.0, 5.0, 6.0, 9.0])
    np.testing.assert_allclose(falling_cosine(distance, 4, 2), [1, 1, 0.5, 0, 0], atol=1e-15)
    np.testing.assert_array_equal(falling_cosine(distance, 4, 0), [1, 1, 0, 0, 0])


@pytest.mark.parametrize(("side", "box"), [(16, 10), (10, 16), (12, 12)])
@pytest.mark.parametrize("axes", [2, 3])
def test_fitted_spectrum_is_that_of_the_same_waves_on_the_other_grid(side: int, box: int, axes: int) -> None:
    """A few waves below both Nyquist frequencies, sampled on either grid."""
    rng = np.random.default_rng(1)
    waves, phases = rng.integers(-4, 5, (5, axes)), rng.uniform(0, 2 * np.pi, 5)

    def sampled(size: int) -> np.ndarray:
        place = np.stack(np.meshgrid(*[np.arange(size) / size] * axes, indexing="ij"), axis=-1)
        return np.cos(2 * np.pi * place @ waves.T + phases).sum(-1)

    over = tuple(range(-axes, 0))
    spectrum = np.fft.rfftn(np.stack([sampled(side), -2 * sampled(side)]), axes=over)
    fitted = fit_spectrum(spectrum, box, axes) * (box / side) ** axes
    expected = np.fft.rfftn(np.stack([sampled(box), -2 * sampled(box)]), axes=over)
    np.testing.assert_allclose(fitted, expected, atol=1e-9)


@pytest.mark.parametrize(("box", "new_box", "step"), [(16, 16, 1.0), (16, 12, 1.25), (15, 22, 0.7), (16, 16, 1.07)])
def test_interpolation_is_exact_below_both_nyquist_frequencies(box: int, new_box: int, step: float) -> None:
    weights = interpolation_weights(box, new_box, step)
    for k in range(box // 2):
        old, new = (
            np.cos(2 * np.pi * k / box * place + 0.3) for place in (centred_axis(box), step * centred_axis(new_box))
        )
        held = k < box / 2 * min(1, 1 / step)
        np.testing.assert_allclose(weights @ old, new if held else 0 * new, atol=1e-12)
