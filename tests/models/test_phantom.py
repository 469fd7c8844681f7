"""The phantom."""

import numpy as np
import pytest
from half_turns import HALF_TURNS, centre_of_mass, half_turn

from cryogan.errors import InputError
from cryogan.models.phantom import conformations, phantom


@pytest.mark.parametrize(("box", "pixel_size_A"), [(32, 1.0), (32, 8.0), (48, 3.0), (63, 4.0), (64, 3.822)])
def test_phantom_is_a_centred_d2_assembly_that_fills_two_thirds_of_the_box(box, pixel_size_A):
    volume = phantom(box, pixel_size_A, seed=1)
    assert volume.shape == (box, box, box)
    assert volume.dtype == np.float32
    assert volume.min() >= 0
    assert volume.max() == 1
    for axes in HALF_TURNS:
        np.testing.assert_allclose(half_turn(volume, axes), volume, atol=1e-5)
    assert np.abs(centre_of_mass(volume)).max() < 0.05
    offset = np.indices(volume.shape) - box // 2
    diameter = 2 * np.sqrt((offset**2).sum(axis=0)[volume > 0.1].max())
    blur = 4 * max(2 / pixel_size_A, 0.45)  # of the Gaussians, both sides
    assert 0.6 < diameter / box < 0.72 + blur / box


def test_phantom_is_no_ball():
    volume = phantom(64, 3.822, seed=0)
    offset = np.indices(volume.shape) - 32
    extent = np.sqrt((offset**2 * volume).sum(axis=(1, 2, 3)) / volume.sum())
    assert extent.max() / extent.min() > 1.3
    for axis in range(3):  # no symmetry beyond D2: a single mirror changes it
        mirrored = np.roll(np.flip(volume, axis), 1, axis)
        assert np.corrcoef(mirrored.ravel(), volume.ravel())[0, 1] < 0.9


def test_phantom_is_well_sampled():
    spectrum = np.abs(np.fft.fftshift(np.fft.fftn(phantom(64, 3.822, seed=0))))
    assert spectrum[0].max() < 0.02 * spectrum.max()  # little left at Nyquist


def test_phantom_follows_its_seed():
    np.testing.assert_array_equal(phantom(32, 4.0, seed=3), phantom(32, 4.0, seed=3))
    assert np.corrcoef(phantom(32, 4.0, seed=3).ravel(), phantom(32, 4.0, seed=4).ravel())[0, 1] < 0.9


def test_conformations_have_the_same_mass_and_differ_where_a_fifth_of_it_moves():
    first, second = conformations(32, 4.0, seed=0)
    assert second.sum() == pytest.approx(first.sum(), rel=1e-3)
    assert 0.1 < np.abs(second - first).sum() / 2 / first.sum() < 0.3
    assert np.abs(half_turn(first, HALF_TURNS[0]) - first).max() > 0.3  # no D2


def test_sizes_must_be_positive():
    with pytest.raises(InputError, match="pixel_size_A"):
        phantom(32, -1.0, seed=0)
    with pytest.raises(InputError, match="at least 16"):
        phantom(8, 3.0, seed=0)
