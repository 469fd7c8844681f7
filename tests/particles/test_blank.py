import numpy as np
import pytest

from cryogan.particles.blank import RUN, broken_pixels


def noise(levels: float) -> np.ndarray:
    """Counts (60, 80) of this s.d."""
    return np.random.default_rng(0).normal(0, levels, (60, 80)).round().astype(np.float32)


@pytest.mark.parametrize("levels", [1.0, 50.0])
def test_counts_are_not_broken(levels: float) -> None:
    assert not broken_pixels(noise(levels)).any()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("side", [slice(None, 9), slice(-9, None)])
@pytest.mark.parametrize("kind", ["zero", "nan", "repeated"])
def test_a_band_at_a_border_is_found_exactly(axis: int, side: slice, kind: str) -> None:
    image = noise(50.0)
    lines = np.moveaxis(image, axis, 0)
    lines[side] = {"zero": 0.0, "nan": np.nan, "repeated": lines[side][4].copy()}[kind]
    expected = np.zeros(image.shape, dtype=bool)
    np.moveaxis(expected, axis, 0)[side] = True
    np.testing.assert_array_equal(broken_pixels(image), expected)


def test_a_blank_corner_is_found_exactly() -> None:
    image, expected = noise(50.0), np.zeros((60, 80), dtype=bool)
    image[-RUN - 1 :, :30] = -3.0
    expected[-RUN - 1 :, :30] = True
    np.testing.assert_array_equal(broken_pixels(image), expected)


def test_a_constant_image_is_broken_throughout() -> None:
    assert broken_pixels(np.zeros((8, 8), dtype=np.float32)).all()
