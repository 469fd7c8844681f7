"""Structures among maps: closed forms of the clusters, and turned, mirrored and other molecules."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryogan.models.phantom import phantom
from cryogan.validation import Alignment, Cutoff, compare_maps, same_structures
from cryogan.validation.structures import correlation_at

BOX, PIXEL = 32, 4.0
CUTOFF = Cutoff.of(BOX * PIXEL, PIXEL, 8.0)


def turned(density: np.ndarray, seed: int, *, mirrored: bool = False) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rotation = Rotation.from_quat(generator.standard_normal(4)).as_matrix()
    return Alignment(rotation, generator.uniform(-4, 4, 3), mirrored, 1.0, 0.0).apply(density, PIXEL)


def test_the_cutoff_is_30_A_unless_the_maps_or_the_box_forbid() -> None:
    assert str(Cutoff.of(300, 4.0, 8.0)) == "30.0 A"
    assert Cutoff.of(128, 4.0, 8.0).resolution_A == 16.0
    coarse = Cutoff.of(300, 4.0, 41.0)
    assert coarse.resolution_A == 41.0
    assert "no half maps" in str(coarse)
    beyond = Cutoff.of(600, 18.0, 36.0)
    assert beyond.resolution_A == 36.0
    assert "Nyquist" in str(Cutoff.of(600, 18.0, 20.0))


def test_a_turned_and_a_mirrored_copy_are_one_structure_and_another_molecule_is_another() -> None:
    density = phantom(BOX, PIXEL, 1)
    generator = np.random.default_rng(0)
    maps = [turned(density, 1), phantom(BOX, PIXEL, 2), 3 * turned(density, 2, mirrored=True) + 1]
    maps = [volume + 0.1 * volume.std() * generator.standard_normal(volume.shape) for volume in maps]
    done: list[int] = []
    agreement = compare_maps(maps, PIXEL, CUTOFF.resolution_A, done.append)
    assert sum(done) == 3
    assert agreement.correlation[0, 2] > 0.95
    assert max(agreement.correlation[0, 1], agreement.correlation[1, 2]) < 0.7
    assert agreement.to(0, 2).mirrored
    np.testing.assert_array_equal(agreement.correlation, agreement.correlation.T)
    np.testing.assert_array_equal(np.diag(agreement.correlation), 1)
    assert same_structures(agreement.correlation) == [[0, 2], [1]]
    # The map of a pair that stays may move in its place: the same transform, backwards.
    for moving, reference in [(2, 0), (0, 2)]:
        placed = agreement.to(reference, moving).apply(maps[moving], PIXEL)
        assert correlation_at(maps[reference], placed, PIXEL, CUTOFF.resolution_A) > 0.95


def test_the_inverse_of_an_alignment_undoes_it() -> None:
    density = phantom(BOX, PIXEL, 1)
    generator = np.random.default_rng(3)
    rotation = Rotation.from_quat(generator.standard_normal(4)).as_matrix()
    for mirrored in (False, True):
        there = Alignment(rotation, np.array([3.0, -2.0, 5.0]), mirrored, 0.9, 0.5)
        back = there.inverse()
        assert np.linalg.det(back.rotation) == pytest.approx(1)
        restored = back.apply(there.apply(density, PIXEL), PIXEL)
        assert correlation_at(density, restored, PIXEL, 12.0) > 0.99
        again = back.inverse()
        np.testing.assert_allclose(again.rotation, there.rotation)
        np.testing.assert_allclose(again.shift_A, there.shift_A)


def test_equal_maps_correlate_fully_in_any_unit_and_noise_does_not() -> None:
    density = phantom(BOX, PIXEL, 1).astype(np.float64)
    assert correlation_at(density, 5 * density - 2, PIXEL, 16.0) == pytest.approx(1)
    first, second = np.random.default_rng(0).standard_normal((2, BOX, BOX, BOX))
    assert abs(correlation_at(first, second, PIXEL, 16.0)) < 0.2


def matrix(*pairs: tuple[int, int, float], count: int) -> np.ndarray:
    correlation = np.full((count, count), 0.3)
    np.fill_diagonal(correlation, 1)
    for i, j, value in pairs:
        correlation[i, j] = correlation[j, i] = value
    return correlation


def test_structures_are_in_order_of_their_size() -> None:
    assert same_structures(matrix(count=3)) == [[0], [1], [2]]
    assert same_structures(matrix((1, 3, 0.9), (1, 2, 0.9), (2, 3, 0.85), count=4)) == [[1, 2, 3], [0]]
    assert same_structures(matrix((0, 3, 0.9), (1, 2, 0.95), count=4)) == [[0, 3], [1, 2]]
    assert same_structures(np.ones((1, 1))) == [[0]]


def test_a_chain_of_maps_is_not_one_structure() -> None:
    chain = matrix((0, 1, 0.95), (1, 2, 0.85), (0, 2, 0.79), count=3)
    assert same_structures(chain) == [[0, 1], [2]]
    chain[0, 2] = chain[2, 0] = 0.81
    assert same_structures(chain) == [[0, 1, 2]]
