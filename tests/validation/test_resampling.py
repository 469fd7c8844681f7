import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.grids import centred_axis
from cryogan.validation import flip_hand, resample


def blob(box, pixel_size, width=8.0):
    """A Gaussian of this s.d. (A) off the centre, on any grid."""
    axis = centred_axis(box) * pixel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.exp(-((x - 7) ** 2 + (y + 11) ** 2 + (z - 3) ** 2) / (2 * width**2))


@pytest.mark.parametrize(("box", "new_box"), [(32, 48), (32, 33), (33, 32), (33, 45)])
def test_resample_by_fourier_is_exact_for_smooth_maps(box, new_box):
    pixel_size = 4.0 * box / new_box
    np.testing.assert_allclose(resample(blob(box, 4.0), 4.0, new_box, pixel_size), blob(new_box, pixel_size), atol=1e-4)


def test_resample_crops_and_pads_in_space():
    volume = blob(32, 3.0)
    for box in (24, 25, 40, 41):
        other = resample(volume, 3.0, box, 3.0)
        assert other.shape == (box, box, box)
        half = 10
        near, far = (slice(size // 2 - half, size // 2 + half) for size in (box, 32))
        np.testing.assert_allclose(other[near, near, near], volume[far, far, far], atol=1e-12)


@pytest.mark.parametrize(("box", "pixel_size"), [(32, 4.0), (33, 4.0)])
@pytest.mark.parametrize(("new_box", "new_pixel_size"), [(48, 2.77), (47, 2.77), (25, 5.31), (24, 5.31), (40, 4.05)])
def test_grids_that_do_not_divide_each_other(box, pixel_size, new_box, new_pixel_size):
    """Every voxel of the new grid that lies in the old box has the density of its place, whichever grid is finer."""
    found = resample(blob(box, pixel_size), pixel_size, new_box, new_pixel_size)
    expected = blob(new_box, new_pixel_size)
    place = np.abs(centred_axis(new_box) * new_pixel_size) < (box // 2 - 1) * pixel_size
    inside = np.ix_(place, place, place)
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-4)
    outside = np.abs(centred_axis(new_box) * new_pixel_size) > (box // 2) * pixel_size
    assert not found[outside].any()


def test_frequencies_that_the_new_grid_cannot_hold_are_left_out():
    """A wave finer than the new Nyquist frequency would alias; a coarser one stays as it is."""
    box, new_box, ratio = 48, 27, 1.6
    for cycles, kept in ((6, 1.0), (20, 0.0)):  # Nyquist of the new grid: 15 cycles per old box
        wave = np.cos(2 * np.pi * cycles * centred_axis(box) / box) * np.ones((box, box, 1))
        new = np.cos(2 * np.pi * cycles * centred_axis(new_box) * ratio / box)
        found = resample(wave, 1.0, new_box, ratio)
        np.testing.assert_allclose(found[new_box // 2, new_box // 2], kept * new, atol=1e-9)


def test_nearly_whole_grids_agree_with_whole_ones():
    """The two ways meet: of a grid a hundredth of a voxel from a whole number of voxels, and of one just beyond."""
    volume = blob(32, 4.0)
    whole, beyond = (resample(volume, 4.0, 48, 4.0 * (32 + step) / 48) for step in (0.0, 0.011))
    np.testing.assert_allclose(whole, beyond, atol=2e-3)


def test_unusable_grids_are_refused():
    with pytest.raises(InputError, match="Choose a box of 4 or more voxels"):
        resample(blob(32, 4.0), 4.0, 2, 4.0)
    with pytest.raises(InputError, match=r"\(it is 1.60\)"):
        resample(blob(32, 4.0), 4.0, 64, 0.1)
    with pytest.raises(InputError, match="pixel size"):
        resample(blob(32, 4.0), 4.0, 32, 0.0)


@pytest.mark.parametrize("box", [8, 9])
def test_the_other_hand(box):
    volume = np.random.default_rng(0).standard_normal((box, box, box))
    flipped = flip_hand(volume)
    x = centred_axis(box)
    inside = np.abs(x) < (box + 1) // 2  # -D/2 of an even box has no mirror image
    np.testing.assert_array_equal(flipped[..., inside], volume[..., (-x[inside]) + box // 2])
    np.testing.assert_array_equal(flip_hand(flipped), volume)
