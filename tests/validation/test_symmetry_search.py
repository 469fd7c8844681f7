"""The point groups of half maps made without symmetry are found, and no others."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_alignment import PIXEL, grid
from test_axes import symmetric

from cryogan.errors import InputError
from cryogan.validation import low_pass, suggest_symmetry, symmetry_score

NOISE = 0.03
ROTATION, SHIFT = Rotation.random(random_state=5).as_matrix(), np.array([0.7, -1.1, 0.4])


def halves(volume, seed=0, noise=NOISE):
    """Half maps: the volume with different noise, of a part of its maximum."""
    generator = np.random.default_rng(seed)
    return [volume + noise * volume.max() * generator.standard_normal(volume.shape) for _ in range(2)]


def names(scores):
    return {score.symmetry for score in scores}


@pytest.mark.parametrize(
    ("name", "subgroups"),
    [("C4", {"C2"}), ("D3", {"C2", "C3"}), ("T", {"C2", "C3", "D2"}), ("I", {"C2", "C3", "C5", "D2", "D3", "D5", "T"})],
)
def test_the_largest_group_is_suggested_and_its_subgroups_are_listed(name: str, subgroups: set[str]) -> None:
    found = suggest_symmetry(*halves(symmetric(name, ROTATION, SHIFT)), PIXEL)
    assert found.suggested is not None
    assert found.suggested.symmetry == name
    assert names(found.supported) == {name} | subgroups
    assert not found.near
    assert found.suggested.score == pytest.approx(1, abs=0.05)
    assert found.suggested.chance < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_maps_without_symmetry_are_not_above_chance(seed: int) -> None:
    """Molecules of twenty Gaussians in a ball, each map with its own, found by the same search as symmetry is."""
    generator = np.random.default_rng(seed)
    volume = np.zeros((32, 32, 32))
    for centre, height in zip(generator.uniform(-6, 6, (20, 3)), generator.uniform(0.5, 1.5, 20), strict=True):
        volume += height * np.exp(-((grid(32) - centre) ** 2).sum(-1) / (2 * 1.5**2))
    found = suggest_symmetry(*halves(volume, seed), PIXEL)
    assert found.suggested is None
    assert not found.supported
    assert not found.near
    for score in found.scores:
        assert score.score < score.chance + 0.2


def test_noise_in_the_half_maps_does_not_lower_the_score() -> None:
    volume = symmetric("D2", ROTATION, SHIFT)
    noisy, clean = (symmetry_score(*halves(volume, 1, noise), PIXEL, "D2", resolution_A=12) for noise in (0.1, 0.01))
    assert noisy.without_it < 0.9 * clean.without_it
    assert noisy.with_it < 0.9 * clean.with_it
    assert noisy.score == pytest.approx(clean.score, abs=3 * noisy.error)


def test_a_wrong_group_is_scored_with_it_without_it_and_by_chance() -> None:
    score = symmetry_score(*halves(symmetric("C3", ROTATION, SHIFT)), PIXEL, "D3")
    assert score.score == pytest.approx(score.with_it / score.without_it)
    assert score.score < 0.5
    assert not score.holds


def test_maps_surely_lack_a_wrong_group_and_noise_makes_it_less_sure() -> None:
    volume = symmetric("D2", ROTATION, SHIFT)
    right, wrong = (symmetry_score(*halves(volume), PIXEL, name) for name in ("D2", "D3"))
    assert wrong.is_lacking
    assert not right.is_lacking
    assert not replace(right, with_it=0.8 * right.without_it).is_lacking
    assert replace(wrong, error=0.02).is_lacking
    assert not replace(wrong, error=(0.71 - wrong.score) / 4).is_lacking


def test_a_symmetry_that_is_lost_at_high_frequency_is_near() -> None:
    symmetric_map, other = symmetric("C2", ROTATION, SHIFT), symmetric("C1", ROTATION, SHIFT)
    volume = low_pass(symmetric_map, PIXEL, 11) + 2 * (other - low_pass(other, PIXEL, 11))
    found = suggest_symmetry(*halves(volume, noise=0.01), PIXEL, groups=("C2", "C3", "D2"))
    assert found.suggested is None
    assert names(found.near) == {"C2"}
    assert found.near[0].fine < 0.5 < 0.9 < found.near[0].coarse


def test_what_looks_alike_under_any_turn_about_an_axis_suggests_no_group() -> None:
    radius = np.hypot(*np.moveaxis(grid(32) @ ROTATION.T, -1, 0)[:2])
    height = (grid(32) @ ROTATION.T)[..., 2]
    cone = np.exp(-((radius - 5) ** 2) / 4) * np.exp(-((height - radius / 2) ** 2) / 8)
    found = suggest_symmetry(*halves(cone, noise=0.01), PIXEL)
    assert {"C2", "C3", "C5", "C7"} <= names(found.supported)
    assert found.is_round
    assert found.suggested is None


def test_a_hollow_ball_has_every_symmetry_by_chance() -> None:
    """Whatever of it is left because its centre is known to a part of a voxel scores 1 in any frame."""
    radius = np.linalg.norm(grid(32) - SHIFT, axis=-1)
    ball = np.exp(-((radius - 9) ** 2) / 4)
    score = symmetry_score(*halves(ball), PIXEL, "C4")
    assert score.score > 0.95
    assert score.chance > 0.9
    assert not score.holds
    assert not score.nearly_holds


def test_a_hollow_ball_does_not_lend_its_symmetry_to_what_is_on_it() -> None:
    radius = np.linalg.norm(grid(32), axis=-1)
    volume = 3 * np.exp(-((radius - 9) ** 2) / 4) + symmetric("C1", ROTATION, np.zeros(3))
    found = suggest_symmetry(*halves(volume, noise=0.005), PIXEL, groups=("C2", "C3", "O"))
    assert not found.supported
    assert not found.near


def test_what_cannot_be_compared_is_refused() -> None:
    volume = symmetric("C2", ROTATION, SHIFT)
    with pytest.raises(InputError, match="Give half maps that agree on 8 shells"):
        suggest_symmetry(*halves(volume), PIXEL, resolution_A=32 * PIXEL / 5)
    with pytest.raises(InputError, match="Give half maps"):
        suggest_symmetry(*halves(volume, noise=3.0), PIXEL)
    with pytest.raises(InputError, match="C1 is no symmetry"):
        symmetry_score(*halves(volume), PIXEL, "C1")
    with pytest.raises(InputError, match="Unknown symmetry"):
        symmetry_score(*halves(volume), PIXEL, "D0")
