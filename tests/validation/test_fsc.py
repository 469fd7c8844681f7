import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy import ndimage

from cryogan.errors import InputError
from cryogan.validation import (
    fsc,
    fsc_curves,
    low_pass,
    randomise_phases,
    resolution_at,
    soft_mask,
    spherical_mask,
)


def shells(box):
    """round(|k|) of the whole transform (D, D, D), and the number of independent coefficients of each shell.

    A real map's coefficients come in conjugate pairs: half of a shell's voxels are independent.
    """
    axis = np.fft.fftfreq(box) * box
    shell = np.rint(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)).astype(int)
    return shell, np.bincount(shell.ravel())[: box // 2 + 1] / 2


def white(seed, box):
    return np.random.default_rng(seed).standard_normal((box, box, box))


@pytest.mark.parametrize("box", [16, 17])
def test_a_map_agrees_with_itself_and_with_its_scaled_copy(box):
    volume = white(0, box)
    np.testing.assert_allclose(fsc(volume, volume), np.ones(box // 2 + 1), atol=1e-12)
    np.testing.assert_allclose(fsc(volume, 1e-9 * volume + 3), np.ones(box // 2 + 1), atol=1e-5)
    np.testing.assert_allclose(fsc(volume, -2 * volume)[1:], -np.ones(box // 2), atol=1e-12)


def test_independent_noise_is_zero_within_its_spread():
    box = 48
    _, independent = shells(box)
    curve = fsc(white(1, box), white(2, box))
    # Each of N complex pairs has a real part of variance 1/2: s.d. 1/sqrt(2N), and 3/sqrt(N) is 4.2 of them.
    assert np.all(np.abs(curve[1:]) < 3 / np.sqrt(independent[1:]))
    assert np.std(curve[1:] * np.sqrt(2 * independent[1:])) == pytest.approx(1, abs=0.35)


def test_halves_of_known_signal_to_noise_ratio_give_the_analytic_curve():
    box = 48
    shell, independent = shells(box)
    ratio = 20 * np.exp(-shell / 6)
    signal = np.fft.ifftn(np.fft.fftn(white(3, box)) * np.sqrt(ratio)).real
    curve = fsc(signal + white(4, box), signal + white(5, box))
    expected = (20 * np.exp(-np.arange(box // 2 + 1) / 6)) / (20 * np.exp(-np.arange(box // 2 + 1) / 6) + 1)
    assert np.all(np.abs(curve - expected)[1:] < 3 / np.sqrt(independent[1:]))
    assert np.abs(curve - expected)[8:].max() < 0.05


def test_shells_without_power_are_zero_and_silent():
    volume = white(0, 16)
    curve = fsc(low_pass(volume, 1.0, 4.0), volume)  # nothing left from shell 16/4 * 1.2 = 4.8 on
    assert np.all(curve[1:5] > 0.5)
    assert np.all(curve[6:] < 0.2)
    assert np.array_equal(fsc(np.zeros((16, 16, 16)), volume), [1, 0, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("box", [24, 25])
def test_agrees_with_relion(box, tmp_path: Path):
    if shutil.which("relion_image_handler") is None:
        pytest.skip("relion_image_handler is not installed (Debian package relion)")
    signal = ndimage.gaussian_filter(white(0, box), 1.0) * spherical_mask(box, 1.0, box / 4, box / 8)
    maps = [(signal + 0.03 * white(seed, box)).astype(np.float32) for seed in (1, 2)]
    for number, volume in enumerate(maps):
        with mrcfile.new(tmp_path / f"{number}.mrc") as file:
            file.set_data(volume)
            file.voxel_size = 3.0
    command = ["relion_image_handler", "--i", "0.mrc", "--fsc", "1.mrc", "--angpix", "3"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = [line.split() for line in result.stdout.splitlines()]
    theirs = np.array([float(row[3]) for row in rows if len(row) == 4 and row[0].isdigit()])
    ours = fsc(*maps)
    assert ours[1] > 0.9
    assert ours[-1] < 0.3
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_phase_randomisation_keeps_amplitudes_and_what_is_below_the_shell():
    volume, start = white(0, 20), 5
    axis = np.fft.fftfreq(20) * 20
    frequency = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    random = randomise_phases(volume, start, np.random.default_rng(1))
    before, after = np.fft.fftn(volume), np.fft.fftn(random)
    np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(after[frequency < start], before[frequency < start], atol=1e-9)
    beyond = frequency >= start
    turned = np.mean(after[beyond] * before[beyond].conj()) / np.mean(np.abs(before[beyond]) ** 2)
    assert abs(turned) < 0.05


def test_the_correction_takes_away_what_a_tight_mask_correlates():
    box = 48
    mask = spherical_mask(box, 2.0, 28.0, 0.0)
    shells_beyond = []
    for seed in range(8):
        signal = 3 * low_pass(white(seed, box), 2.0, 24.0)  # nothing beyond shell 4.8
        half1, half2 = (signal + 0.3 * white(100 + 2 * seed + half, box) for half in (0, 1))
        curves = fsc_curves(half1, half2, 2.0, mask, seed)
        first = round(box * 2.0 / curves.randomised_from)
        assert curves.unmasked[first] < 0.8 <= curves.unmasked[1:first].min()
        np.testing.assert_array_equal(curves.corrected[: first + 2], curves.masked[: first + 2])
        shells_beyond.append([c[first + 2 : first + 5] for c in (curves.unmasked, curves.masked, curves.corrected)])
    # The mask's sharp edge smears the shared low frequencies into shells that hold independent noise only.
    unmasked, masked, corrected = np.mean(shells_beyond, axis=(0, 2))
    assert abs(unmasked) < 0.05
    assert masked > 0.2
    assert abs(corrected) < 0.05


def test_the_random_phases_follow_the_seed():
    mask = spherical_mask(16, 2.0, 8.0, 4.0)
    first, again, other = (fsc_curves(white(0, 16), white(1, 16), 2.0, mask, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.phase_randomised, again.phase_randomised)
    assert np.abs(first.phase_randomised - other.phase_randomised).max() > 1e-3


def test_curves_carry_their_axes():
    half1, half2 = white(0, 16), white(1, 16)
    curves = fsc_curves(half1, half2, 2.5)
    np.testing.assert_array_equal(curves.shell, np.arange(9))
    np.testing.assert_allclose(curves.frequency, np.arange(9) / 40)
    np.testing.assert_allclose(curves.resolution[1:], 40 / np.arange(1, 9))
    assert np.isinf(curves.resolution[0])
    for curve in (curves.masked, curves.phase_randomised, curves.corrected):
        np.testing.assert_array_equal(curve, curves.unmasked)
    assert curves.randomised_from == 5.0
    np.testing.assert_allclose(curves.unmasked, fsc(half1, half2))


def test_maps_that_agree_everywhere_need_no_randomisation():
    volume = white(0, 16)
    curves = fsc_curves(volume, volume, 2.0, spherical_mask(16, 2.0, 8.0, 4.0))
    np.testing.assert_allclose(curves.corrected, 1)
    assert curves.randomised_from == 4.0


def test_the_crossing_is_interpolated_in_frequency():
    curve = 1 - np.arange(17) / 16  # box 32 at 2 A/px: shell s is 64/s A
    assert resolution_at(curve, 2.0, 0.5 - 1e-12) == pytest.approx(64 / 8)
    assert resolution_at(curve, 2.0, 0.143) == pytest.approx(64 / (16 * (1 - 0.143)))
    assert resolution_at(curve, 2.0, 0.143, box=33) == pytest.approx(66 / (16 * (1 - 0.143)))
    curve[3], curve[4:] = 0.2, 0.9
    assert resolution_at(curve, 2.0, 0.5) == pytest.approx(64 / (2 + (0.875 - 0.5) / (0.875 - 0.2)))


def test_resolution_without_a_crossing():
    assert resolution_at(np.full(17, 0.9), 2.0, 0.5) == 4.0
    assert resolution_at(np.r_[1.0, np.full(16, 0.1)], 2.0, 0.5) == 64.0


def test_unusable_input_is_refused():
    volume = white(0, 8)
    with pytest.raises(InputError, match="Resample"):
        fsc(volume, white(0, 10))
    with pytest.raises(InputError, match="cubic"):
        fsc(volume[0], volume[0])
    with pytest.raises(InputError, match="finite"):
        fsc(volume, np.where(volume > 0, np.nan, volume))
    with pytest.raises(InputError, match="mask"):
        fsc_curves(volume, volume, 1.0, soft_mask(white(0, 10), 1.0))
    with pytest.raises(InputError, match="pixel size"):
        fsc_curves(volume, volume, 0.0)
    with pytest.raises(InputError, match="box"):
        resolution_at(np.ones(5), 1.0, 0.5, box=10)
    with pytest.raises(InputError, match="finite"):
        resolution_at([1, np.nan], 1.0, 0.5)
