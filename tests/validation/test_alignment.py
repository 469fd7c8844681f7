import math

import numpy as np
import pytest
from scipy import ndimage, signal
from scipy.spatial.transform import Rotation

from cryogan.errors import InputError
from cryogan.validation import align, fsc, resample

PIXEL = 3.0
MIRROR = np.diag([-1.0, 1.0, 1.0])
D2 = [np.diag(signs) for signs in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])]


def grid(box):
    """(D, D, D, 3) position x, y, z of each voxel from the centre voxel, in voxels."""
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x, y, z], -1).astype(float)


def phantom(box, rotation=None, shift=(0, 0, 0), mirrored=False):
    """Gaussians without symmetry; any pose of them is exact: reference(r) = moving(M R^T (r - shift))."""
    generator = np.random.default_rng(7)
    centres = generator.uniform(-0.24, 0.24, (25, 3)) * box
    heights = generator.uniform(0.5, 1.5, 25)
    if mirrored:
        centres = centres @ MIRROR
    if rotation is not None:
        centres = centres @ rotation.T
    centres = centres + np.asarray(shift)
    points = grid(box)
    volume = np.zeros((box, box, box))
    for centre, height in zip(centres, heights, strict=True):
        volume += height * np.exp(-((points - centre) ** 2).sum(-1) / (2 * 1.5**2))
    return volume


def splined(volume, rotation, shift):
    """A turned and shifted map by another way than the package's: fifth-order spline on a grid twice as fine."""
    box = volume.shape[0]
    fine = np.fft.ifftshift(volume)
    for axis in range(3):
        fine = signal.resample(fine, 2 * box, axis=axis)
    points = 2 * ((grid(box) - shift) @ rotation)[..., ::-1] + box
    return ndimage.map_coordinates(np.fft.fftshift(fine), np.moveaxis(points, -1, 0), order=5, mode="grid-constant")


def within_nyquist(volume):
    """The map without the corners of its transform, which alias when it turns."""
    box = volume.shape[0]
    axis = np.fft.fftfreq(box)
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    return np.fft.ifftn(np.fft.fftn(volume) * (squared <= 0.25)).real


def degrees_between(first, second):
    return math.degrees(Rotation.from_matrix(first.T @ second).magnitude())


def random_pose(seed, reach):
    generator = np.random.default_rng(seed)
    rotation = Rotation.from_quat(generator.standard_normal(4)).as_matrix()
    return rotation, generator.uniform(-reach, reach, 3)


@pytest.mark.parametrize(("seed", "box", "mirrored"), [(0, 32, False), (1, 33, True), (2, 64, True), (3, 64, False)])
def test_recovers_rotation_shift_and_hand(seed, box, mirrored):
    rotation, shift = random_pose(seed, 2.5)
    moving, reference = phantom(box), phantom(box, rotation, shift, mirrored)
    found = align(moving, reference, PIXEL)
    assert found.mirrored is mirrored
    assert degrees_between(found.rotation, rotation) < 1
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    np.testing.assert_allclose(found.shift_A / PIXEL, shift, atol=0.1)
    assert found.correlation > 0.99
    assert found.correlation_other_hand < 0.95
    moved = found.apply(moving, PIXEL)
    assert moved.dtype == np.float32
    assert np.abs(moved - reference).max() < 0.05 * reference.max()


def test_stands_noise_with_a_limited_band():
    rotation, shift = random_pose(4, 2.5)
    generator = np.random.default_rng(0)
    moving, reference = phantom(48), phantom(48, rotation, shift, True)
    noisy = [volume + 2 * volume.std() * generator.standard_normal(volume.shape) for volume in (moving, reference)]
    found = align(noisy[0], noisy[1], PIXEL, resolution_A=15.0)
    assert found.mirrored
    assert degrees_between(found.rotation, rotation) < 2
    np.testing.assert_allclose(found.shift_A / PIXEL, shift, atol=0.2)


def test_one_hand_only():
    moving = phantom(24)
    found = align(moving, phantom(24, mirrored=True), PIXEL, hands=(1,))
    assert not found.mirrored
    assert math.isnan(found.correlation_other_hand)
    assert found.correlation < 0.95
    assert align(moving, phantom(24, mirrored=True), PIXEL, hands=(-1,)).mirrored


def test_the_seed_fixes_the_answer():
    moving, reference = phantom(24), phantom(24, *random_pose(5, 1.0))
    first, again = (align(moving, reference, PIXEL, hands=(1,), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.rotation, again.rotation)
    np.testing.assert_array_equal(first.shift_A, again.shift_A)


def test_background_does_not_hold_the_map_in_place():
    rotation, shift = random_pose(6, 2.5)
    found = align(phantom(32) + 5, phantom(32, rotation, shift) - 2, PIXEL, hands=(1,))
    assert degrees_between(found.rotation, rotation) < 1
    np.testing.assert_allclose(found.shift_A / PIXEL, shift, atol=0.1)


def test_a_turned_molecule_comes_back_with_its_high_frequencies(truth):
    density, pixel_size = truth("bgal_paper")
    rotation, shift = random_pose(8, 3.0)
    turned = splined(within_nyquist(density), rotation, shift)
    found = align(turned, density, pixel_size)
    assert not found.mirrored
    # Any of the four equivalent answers is right for D2: density(r) = density(G r).
    assert min(degrees_between(found.rotation, group @ rotation.T) for group in D2) < 0.1
    curve = fsc(found.apply(turned, pixel_size), density)
    assert curve[: int(0.8 * 32) + 1].min() > 0.99  # measured 0.9998


def test_apply_takes_the_same_molecule_on_another_grid():
    rotation, shift = random_pose(9, 2.0)
    found = align(phantom(32), phantom(32, rotation, shift), PIXEL, hands=(1,))
    finer = resample(phantom(32), PIXEL, 48, PIXEL * 32 / 48)
    expected = resample(phantom(32, rotation, shift), PIXEL, 48, PIXEL * 32 / 48)
    assert np.abs(found.apply(finer, PIXEL * 32 / 48) - expected).max() < 0.05 * expected.max()


def test_unusable_input_is_refused():
    volume = phantom(16)
    with pytest.raises(InputError, match="constant"):
        align(np.zeros((16, 16, 16)), volume, PIXEL)
    with pytest.raises(InputError, match="constant"):
        align(volume, np.ones((16, 16, 16)), PIXEL)
    with pytest.raises(InputError, match="Resample"):
        align(volume, phantom(18), PIXEL)
    with pytest.raises(InputError, match="hands"):
        align(volume, volume, PIXEL, hands=())
    with pytest.raises(InputError, match="hands"):
        align(volume, volume, PIXEL, hands=(1, 2))
    with pytest.raises(InputError, match="resolution"):
        align(volume, volume, PIXEL, resolution_A=40.0)
