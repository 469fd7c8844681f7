import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.validation import check_mask, fsc_curves, low_pass, soft_mask, spherical_mask


def noise(seed, box=64):
    return np.random.default_rng(seed).standard_normal((box, box, box))


def inside(mask, density):
    """Part of the energy of the positive density where the mask is above a half."""
    energy = np.maximum(density, 0) ** 2
    return energy[mask > 0.5].sum() / energy.sum()


def test_spherical_mask_profile():
    mask = spherical_mask(21, 2.0, 8.0, 4.0)
    assert mask.dtype == np.float32
    # Voxels of 2 A along x from the centre voxel 10: 0, 2, 4, 6, 8, 10, 12 A.
    np.testing.assert_allclose(mask[10, 10, 10:17], [1, 1, 1, 1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_array_equal(mask, mask.transpose(2, 0, 1))
    hard = spherical_mask(20, 2.0, 8.0, 0.0)
    assert set(np.unique(hard)) == {0, 1}
    assert hard[10, 10, 14] == 1
    assert hard[10, 10, 15] == 0


@pytest.mark.parametrize("box", [24, 25])
def test_low_pass_keeps_below_and_cuts_above(box):
    z = np.arange(box) / box
    slow, half, fast = (np.cos(2 * np.pi * shell * z)[:, None, None] for shell in (3, 6, 9))
    ones = np.ones((box, box, box))
    # The cut-off of box/6 A at 1 A/px is shell 6.
    np.testing.assert_allclose(low_pass(slow * ones, 1.0, box / 6), slow * ones, atol=1e-12)
    np.testing.assert_allclose(low_pass(half * ones, 1.0, box / 6), 0.5 * half * ones, atol=1e-12)
    np.testing.assert_allclose(low_pass(fast * ones, 1.0, box / 6), 0, atol=1e-12)


@pytest.mark.parametrize("name", ["bgal_paper", "bgal_hard", "ribo_c1"])
@pytest.mark.parametrize("level", [0.0, 0.1, 0.3])  # of the density's maximum, a voxel
def test_soft_mask_never_cuts_the_molecule(truth, name, level):
    density, pixel_size = truth(name)
    box = density.shape[0]
    mask = soft_mask(density + level * noise(1), pixel_size)
    assert mask.dtype == np.float32
    assert mask.min() == 0
    assert mask.max() == 1
    assert inside(mask, density) > 0.99
    if name != "ribo_c1":  # which fills its box
        assert np.mean(mask > 0.5) < 0.5 * np.mean(spherical_mask(box, 1.0, box / 2, 0.0))


def test_soft_mask_of_a_map_that_is_noisy_within_a_ball_only(truth):
    density, pixel_size = truth("bgal_paper")
    ball = spherical_mask(64, 1.0, 28.0, 3.0)
    mask = soft_mask((density + 0.3 * noise(1)) * ball, pixel_size)
    assert inside(mask, density) > 0.99
    assert np.mean(mask > 0.5) < 0.5 * np.mean(spherical_mask(64, 1.0, 32.0, 0.0))


def test_soft_mask_follows_a_shape_and_falls_smoothly():
    block = np.zeros((64, 64, 64))
    block[20:40, 22:30, 30:44] = 1
    mask = soft_mask(block, 4.0, extend_voxels=2.0, edge_voxels=4.0)
    assert np.all(mask[block > 0] == 1)
    assert mask[:8].max() == 0
    assert mask[52:].max() == 0
    assert np.abs(np.diff(mask, axis=0)).max() < 0.5


def test_soft_mask_keeps_both_parts_and_the_cavity_of_a_molecule():
    volume = spherical_mask(64, 1.0, 14.0, 1.0) - spherical_mask(64, 1.0, 6.0, 1.0)
    volume[6:12, 28:36, 28:36] = 1
    mask = soft_mask(volume, 3.0, lowpass_A=8.0, extend_voxels=0.0)
    assert mask[32, 32, 32] == 1
    assert mask[9, 32, 32] == 1
    assert mask[32, 32, 60] == 0


@pytest.mark.parametrize("seed", range(3))
def test_no_molecule_gives_the_ball(seed):
    ball = spherical_mask(64, 3.8, (32 - 6.4) * 3.8, 6.4 * 3.8)
    within = noise(seed) * spherical_mask(64, 1.0, 28.0, 3.0)
    for volume in (np.zeros((64, 64, 64)), noise(seed), within):
        np.testing.assert_allclose(soft_mask(volume, 3.8), ball, atol=1e-6)


def test_unusable_input_is_refused():
    with pytest.raises(InputError, match="radius"):
        spherical_mask(16, 1.0, 0.0, 1.0)
    with pytest.raises(InputError, match="edge"):
        spherical_mask(16, 1.0, 4.0, -1.0)
    with pytest.raises(InputError, match="edge"):
        soft_mask(noise(0, 16), 1.0, edge_voxels=-1.0)
    with pytest.raises(InputError, match="low-pass"):
        low_pass(noise(0, 16), 1.0, 0.0)
    with pytest.raises(InputError, match="cubic"):
        soft_mask(noise(0, 16)[:8], 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask[:14, :14, :14], "has 14 voxels a side, the map 16"),
        (lambda mask: mask * 0, "is empty"),
        (lambda mask: np.where(mask > 0, np.nan, 0), "not finite"),
        (lambda mask: 1 - mask, "is inverted"),
        (lambda mask: 2 * mask - 1, "values go from -1 to 1"),
        (lambda mask: 255 * mask, "values go from 0 to 255"),
        (lambda mask: -mask, "values go from -1 to 0"),  # a byte of 255, read as signed
    ],
)
def test_what_is_no_mask_is_refused(change, message):
    mask = spherical_mask(16, 2.0, 8.0, 4.0)
    with pytest.raises(InputError, match=message):
        check_mask(change(mask), 16)
    with pytest.raises(InputError):
        fsc_curves(mask, mask, 2.0, change(mask))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.float16, bool])
def test_masks_of_any_number_type(kind):
    mask = spherical_mask(16, 2.0, 8.0, 0.0)
    np.testing.assert_array_equal(check_mask(mask.astype(kind), 16), mask)
    np.testing.assert_array_equal(check_mask(np.ones((16, 16, 16), kind), 16), 1)
