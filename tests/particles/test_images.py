import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.particles import ParticleImages, ParticleTable, read_particles, write_stack, write_star
from cryogan.particles.mrc import read_header, read_images
from cryogan.particles.resample import fourier_crop

SIDE, PIXEL = 24, 2.0
RADIUS = 16.0


def waves(side: int, highest: int, seed: int = 0) -> np.ndarray:
    """A sum of waves of up to `highest` periods a box, sampled at any number of pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side)) / side
    image = np.full((side, side), 3.0)
    for _ in range(20):
        ky, kx = rng.integers(-highest, highest + 1, 2)
        image += rng.standard_normal() * np.cos(2 * np.pi * (ky * y + kx * x + rng.random()))
    return image.astype(np.float32)


@pytest.fixture
def make_table(tmp_path: Path) -> Callable[..., ParticleTable]:
    """A table over two stacks, its rows in no order."""

    def make(first: np.ndarray, second: np.ndarray) -> ParticleTable:
        for path, images in ((tmp_path / "a.mrcs", first), (tmp_path / "b.mrcs", second)):
            write_stack(path, np.zeros_like(images, np.float32), PIXEL)
            # mrcfile would warn of NaN.
            np.memmap(path, np.float32, "r+", 1024, images.shape)[:] = images
        names = [f"{n + 1}@{s}.mrcs" for s, images in (("a", first), ("b", second)) for n in range(len(images))]
        shuffled = [names[n] for n in np.random.default_rng(5).permutation(len(names))]
        write_star(tmp_path / "p.star", {"": {"rlnImageName": shuffled}})
        return read_particles(tmp_path / "p.star", need_ctf=False)

    return make


def random_images(count: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((count, side, side)) * 7 + 40).astype(np.float32)


def background(images: np.ndarray, radius_pixels: float) -> np.ndarray:
    side = images.shape[-1]
    y, x = np.indices((side, side)) - side // 2
    return images[:, np.hypot(x, y) > radius_pixels]


def test_a_band_limited_image_crops_exactly() -> None:
    for small, highest in ((8, 2), (12, 4), (18, 6), (24, 8)):  # highest: the square fits the Nyquist disc
        np.testing.assert_allclose(fourier_crop(waves(24, highest), small), waves(small, highest), atol=2e-5)


def test_nothing_is_left_beyond_the_nyquist_disc() -> None:
    for box in (12, 24):
        power = np.abs(np.fft.fft2(fourier_crop(random_images(1)[0], box))) ** 2
        k = np.fft.fftfreq(box, 1 / box)
        outside = np.hypot(k[:, None], k) >= box / 2
        assert power[outside].max() < 1e-6 * power[~outside].mean()


def test_crop_keeps_level_centre_and_orientation() -> None:
    constant = np.full((2, 24, 24), 5, np.float32)
    np.testing.assert_allclose(fourier_crop(constant, 10), 5, rtol=1e-6)
    spot = np.zeros((24, 24), np.float32)
    spot[12, 12] = 1
    small = fourier_crop(spot, 10)
    assert small.argmax() == 5 * 10 + 5
    # Nyquist included: noise cropped and transposed is noise transposed and cropped.
    noise = random_images(1)[0]
    np.testing.assert_allclose(fourier_crop(noise.T.copy(), 10), fourier_crop(noise, 10).T, atol=1e-4)
    flipped = np.roll(noise[::-1], 1, axis=0).copy()
    expected = np.roll(fourier_crop(noise, 10)[::-1], 1, axis=0)
    np.testing.assert_allclose(fourier_crop(flipped, 10), expected, atol=1e-4)


@pytest.mark.parametrize("box", [24, 16])
def test_background_has_mean_0_and_deviation_1(make_table: Callable[..., ParticleTable], box: int) -> None:
    images = ParticleImages(make_table(random_images(3), random_images(2, seed=1)), box, RADIUS)
    assert images.pixel_size == pytest.approx(PIXEL * 24 / box)
    outside = background(images.batch(np.arange(5)), RADIUS / images.pixel_size)
    assert outside.shape[1] > 0
    np.testing.assert_allclose(outside.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(outside.std(axis=1), 1, atol=1e-5)


def test_images_come_in_the_order_of_rows(make_table: Callable[..., ParticleTable]) -> None:
    first, second = random_images(4), random_images(3, seed=1)
    table = make_table(first, second)
    images = ParticleImages(table, SIDE, RADIUS, keep_gradient=True)
    rows = np.array([6, 0, 3, 3, 1])
    stacks = {"a.mrcs": first, "b.mrcs": second}
    raw = np.stack([stacks[table.stacks[table.stack_index[r]].name][table.image_index[r]] for r in rows])
    raw = fourier_crop(raw, SIDE)
    outside = background(raw, RADIUS / PIXEL).astype(np.float64)
    expected = (raw - outside.mean(axis=1)[:, None, None]) / outside.std(axis=1)[:, None, None]
    np.testing.assert_allclose(images.batch(rows), expected, atol=1e-4)
    assert images.batch(rows).dtype == np.float32


def test_cached_and_uncached_batches_are_identical(make_table: Callable[..., ParticleTable]) -> None:
    first, second = random_images(300), random_images(5, seed=1)
    first[7, 3, 3] = np.nan
    table = make_table(first, second)
    cached = ParticleImages(table, 18, RADIUS, invert=True)
    on_the_fly = ParticleImages(table, 18, RADIUS, invert=True, memory_limit_bytes=0)
    assert cached._cache is not None
    assert on_the_fly._cache is None
    for rows in (np.arange(304), np.array([17]), np.array([303, 5, 5, 200, 0, 9, 77])):
        np.testing.assert_array_equal(cached.batch(rows), on_the_fly.batch(rows))


def test_invert_is_the_negative(make_table: Callable[..., ParticleTable]) -> None:
    table = make_table(random_images(2), random_images(2, seed=1))
    rows = np.arange(4)
    plain, inverted = ParticleImages(table, 16, RADIUS), ParticleImages(table, 16, RADIUS, invert=True)
    np.testing.assert_array_equal(inverted.batch(rows), -plain.batch(rows))


def slopes(side: int, a: float, b: float, c: float) -> np.ndarray:
    """a + b x + c y, x and y in pixels from side // 2."""
    y, x = np.indices((side, side)) - side // 2
    return (a + b * x + c * y).astype(np.float32)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(("side", "box"), [(24, 24), (24, 16), (25, 24), (25, 14)])
def test_a_plane_added_to_an_image_changes_nothing(
    make_table: Callable[..., ParticleTable], side: int, box: int, invert: bool
) -> None:
    first, second = (random_images(count, side, seed) / 7 for count, seed in ((3, 0), (2, 1)))
    rows = np.arange(5)
    without = ParticleImages(make_table(first, second), box, RADIUS, invert).batch(rows)
    first += slopes(side, 2.0, 0.05, -0.1)
    second += slopes(side, -1.0, -0.2, 0.03)
    tilted = make_table(first, second)
    np.testing.assert_allclose(ParticleImages(tilted, box, RADIUS, invert).batch(rows), without, atol=1e-5)
    kept = ParticleImages(tilted, box, RADIUS, invert, keep_gradient=True).batch(rows)
    assert np.abs(kept - without).max() > 0.5


def test_the_gradient_that_is_kept_is_that_of_the_file(make_table: Callable[..., ParticleTable]) -> None:
    images = random_images(3) + slopes(SIDE, 0, 2.0, 0)
    kept = ParticleImages(make_table(images, images), SIDE, RADIUS, keep_gradient=True).batch(np.arange(6))
    raw = fourier_crop(images, SIDE)
    outside = background(raw, RADIUS / PIXEL).astype(np.float64)
    expected = (raw - outside.mean(axis=1)[:, None, None]) / outside.std(axis=1)[:, None, None]
    for image in kept:
        assert min(np.abs(image - other).max() for other in expected) < 1e-4


def test_patches_with_particles_anywhere_keep_their_gradient(make_table: Callable[..., ParticleTable]) -> None:
    images = random_images(2) + slopes(SIDE, 0, 2.0, 0)
    table = make_table(images, images)
    rows = np.arange(4)
    seen = ParticleImages(table, 16, None).batch(rows)
    np.testing.assert_array_equal(seen, ParticleImages(table, 16, None, keep_gradient=True).batch(rows))
    for image in seen:
        assert min(np.abs(image - other).max() for other in fourier_crop(images, 16)) < 1e-4


def test_an_image_that_is_a_plane_outside_the_circle_is_not_usable(make_table: Callable[..., ParticleTable]) -> None:
    """What rounding leaves of it would pass for noise."""
    images = random_images(3)
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    images[1][np.hypot(x, y) > 6] = slopes(SIDE, 40.0, 1.1, -0.7)[np.hypot(x, y) > 6]
    assert ParticleImages(make_table(images, random_images(1)), 16, RADIUS).dropped == 1


def test_an_odd_box_loses_its_last_row_and_column(make_table: Callable[..., ParticleTable]) -> None:
    odd = random_images(3, side=25)
    images = ParticleImages(make_table(odd, odd), 24, 16)
    assert images.cropped_odd
    assert images.pixel_size == PIXEL
    even = ParticleImages(make_table(odd[:, :24, :24], odd[:, :24, :24]), 24, 16)
    assert not even.cropped_odd
    np.testing.assert_array_equal(images.batch(np.arange(6)), even.batch(np.arange(6)))


def test_unusable_images_are_dropped_and_counted(make_table: Callable[..., ParticleTable]) -> None:
    first, second = random_images(5), random_images(3, seed=1)
    first[0, 2, 2] = np.nan
    first[2, 5, 9] = np.inf
    first[3] = 123.456
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    second[1] *= np.hypot(x, y) < 4  # masked: nothing outside the circle to normalise by
    table = make_table(first, second)
    for limit in (1 << 30, 0):
        images = ParticleImages(table, 16, RADIUS, memory_limit_bytes=limit)
        assert images.dropped == 4
        assert len(images) == len(images.table) == 4
        kept = table.select(images.kept_rows)
        pairs = zip(kept.stack_index, kept.image_index, strict=True)
        assert {(kept.stacks[stack].name, int(image)) for stack, image in pairs} == {
            ("a.mrcs", 1),
            ("a.mrcs", 4),
            ("b.mrcs", 0),
            ("b.mrcs", 2),
        }
        np.testing.assert_array_equal(images.table.image_index, kept.image_index)
        assert np.isfinite(images.batch(np.arange(4))).all()


def test_no_usable_image(make_table: Callable[..., ParticleTable]) -> None:
    table = make_table(np.ones((2, 8, 8)), np.ones((1, 8, 8)))
    with pytest.raises(InputError, match=r"p\.star: all 3 images are NaN, blank in part or constant"):
        ParticleImages(table, 8, 6)


@pytest.mark.parametrize("box", [15, 26, 0])
def test_impossible_boxes(make_table: Callable[..., ParticleTable], box: int) -> None:
    table = make_table(random_images(1, side=25), random_images(1, side=25))
    with pytest.raises(InputError, match=rf"box of {box} pixels is not possible\. .* from 2 to 24"):
        ParticleImages(table, box, RADIUS)


@pytest.mark.parametrize("radius", [0.0, -3.0, 24.5])
def test_impossible_circles(make_table: Callable[..., ParticleTable], radius: float) -> None:
    table = make_table(random_images(1), random_images(1))
    with pytest.raises(InputError, match=r"does not fit the box of 48 A\. Choose at most half"):
        ParticleImages(table, 16, radius)


def test_an_image_that_cannot_be_read_later_is_named(make_table: Callable[..., ParticleTable], tmp_path: Path) -> None:
    table = make_table(random_images(4), random_images(3, seed=1))
    images = ParticleImages(table, 16, RADIUS, memory_limit_bytes=0)
    stack, whole = tmp_path / "b.mrcs", (tmp_path / "b.mrcs").read_bytes()
    written = stack.stat().st_mtime_ns
    stack.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=rf"b\.mrcs: has changed .* \({len(whole)} bytes then, {len(whole) - 1} now\)"):
        images.batch(np.arange(7))
    stack.write_bytes(whole)
    os.utime(stack, ns=(written, written + 1))  # as long as before, and other images perhaps
    with pytest.raises(InputError, match="has changed since it was first read"):
        images.batch(np.arange(7))
    os.utime(stack, ns=(written, written))
    images.batch(np.arange(7))
    stack.unlink()
    with pytest.raises(InputError, match=r"b\.mrcs: cannot be read \(No such file or directory\)"):
        images.batch(np.arange(7))


def test_an_image_beyond_the_end_of_its_file_is_no_crash(make_table: Callable[..., ParticleTable]) -> None:
    table = make_table(random_images(4), random_images(3, seed=1))
    with pytest.raises(InputError, match=r"a\.mrcs: image 5 is cut off"):
        read_images(table.stacks[0], read_header(table.stacks[0]), [0, 4])


@pytest.mark.parametrize("kind", ["blank", "repeated"])
def test_images_of_which_a_third_is_blank_are_left_out(make_table: Callable[..., ParticleTable], kind: str) -> None:
    """A box that sticks out of its micrograph."""
    stack = np.random.default_rng(0).standard_normal((6, 48, 48)).astype(np.float32)
    stack[2, :, 32:] = 0.0 if kind == "blank" else stack[2, :, 31:32]
    stack[4, :16] = 0.7 if kind == "blank" else stack[4, 16]
    stack[5, :, -1] = 0.0  # one line does no harm
    images = ParticleImages(make_table(stack[:3], stack[3:]), 24, RADIUS)
    names = np.array([path.name for path in images.table.stacks])[images.table.stack_index]
    kept = images.table.image_index + 3 * (names == "b.mrcs")
    assert sorted(kept.tolist()) == [0, 1, 3, 5]


def test_images_of_few_grey_levels_are_not_blank(make_table: Callable[..., ParticleTable]) -> None:
    counts = np.random.default_rng(0).poisson(1.0, (4, 48, 48)).astype(np.float32)
    assert ParticleImages(make_table(counts[:2], counts[2:]), 24, RADIUS).dropped == 0
