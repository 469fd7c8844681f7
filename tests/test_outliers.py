"""What is usual among particles, and what is not."""

import numpy as np
import pytest
import torch

from cryogan.refinement.outliers import Outliers, find_outliers, p_particle, probability_beyond
from cryogan.refinement.scores import Scores


def scores(values: np.ndarray) -> Scores:
    return Scores(*torch.from_numpy(values.T.copy()))


def found_in(*halves: np.ndarray) -> Outliers:
    """Outliers among particles of one micrograph."""
    return find_outliers([scores(values) for values in halves], [np.full(len(values), "") for values in halves])


def test_probability_of_a_distance_is_that_of_gaussian_scores() -> None:
    drawn = np.maximum(np.random.default_rng(0).standard_normal((200_000, 3)), 0)
    distance = np.linalg.norm(drawn, axis=1)
    at = np.array([0.1, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(probability_beyond(at, 3), [(distance > d).mean() for d in at], atol=3e-3)
    assert probability_beyond(np.zeros(1), 3)[0] == pytest.approx(7 / 8)  # all three are negative in 1 of 8


def test_particles_alone_are_kept() -> None:
    generator = np.random.default_rng(1)
    found = found_in(generator.normal((1.0, 5.0, 6.0), (0.2, 0.1, 0.05), (2000, 3)))
    assert (~found.kept).mean() < 0.005
    assert found.weight.mean() > 0.9


@pytest.mark.parametrize("share", [0.05, 0.15, 0.4])
def test_weights_are_the_probabilities_of_a_mixture(share: float) -> None:
    """Junk lacks the map or has something beside it; each half has scales of its own."""
    generator, halves, is_junk = np.random.default_rng(2), [], []
    for scale in (1.0, 3.0):
        junk = generator.random(2000) < share
        values = generator.standard_normal((2000, 3))
        values[junk] += np.array([[-4.5, 0, 0], [0, 5.0, 0], [0, 3.5, 3.5]])[np.arange(junk.sum()) % 3]
        halves.append(scale * values + 7)
        is_junk.append(junk)
    found, junk = found_in(*halves), np.concatenate(is_junk)
    assert (~found.kept[junk]).mean() > 0.8
    assert (~found.kept[~junk]).mean() < 0.03
    assert found.weight.sum() == pytest.approx((~junk).sum(), rel=0.06)
    unsure = (found.weight > 0.2) & (found.weight < 0.8)
    assert found.weight[unsure].mean() == pytest.approx((~junk)[unsure].mean(), abs=0.15)


def test_weight_falls_with_the_distance_and_is_no_more_than_1() -> None:
    p = np.concatenate([np.random.default_rng(3).random(900), np.zeros(50), np.full(50, 1e-4)])
    weight = p_particle(p)
    assert (np.diff(weight[np.argsort(p)]) >= 0).all()
    assert weight[p == 0].max() < 0.01
    assert weight.max() == 1


def test_more_of_the_map_and_less_beside_it_is_no_fault() -> None:
    generator = np.random.default_rng(4)
    values = generator.standard_normal((1000, 3))
    values[:50] += (6, -6, -6)
    assert found_in(values).kept[:50].all()


def test_thick_ice_of_a_micrograph_is_usual_there() -> None:
    """Each micrograph has its own amplitude; a fiftieth are empty boxes, 0.6 below what is usual in theirs."""
    generator = np.random.default_rng(5)
    micrograph = np.arange(3000) // 30
    values = generator.normal((1.0, 5.0, 6.0), (0.1, 0.1, 0.05), (3000, 3))
    values[:, 0] += 0.25 * generator.standard_normal(100)[micrograph]
    empty = np.arange(3000) % 50 == 0
    values[empty, 0] -= 0.6
    names = np.char.add("m", micrograph.astype(str))
    there, anywhere = (find_outliers([scores(values)], [of]) for of in (names, np.full(3000, "")))
    assert (~there.kept[empty]).mean() > 0.85
    assert (~there.kept[~empty]).mean() < 0.01
    assert (~anywhere.kept[empty]).mean() < 0.5


def test_a_micrograph_of_junk_is_not_usual() -> None:
    generator = np.random.default_rng(6)
    micrograph = np.arange(3000) // 30
    values = generator.normal((1.0, 5.0, 6.0), (0.1, 0.1, 0.05), (3000, 3))
    values[micrograph == 7, 1] += 1.5
    names = np.char.add("m", micrograph.astype(str))
    found = find_outliers([scores(values)], [names])
    assert not found.kept[micrograph == 7].any()


def test_a_small_lack_of_amplitude_is_no_fault_however_little_noise_there_is() -> None:
    values = np.random.default_rng(7).normal((1.0, 5.0, 6.0), (0.001, 0.1, 0.1), (1000, 3))
    values[:20, 0] = 0.85
    values[20:40, 0] = 0.2
    kept = found_in(values).kept
    assert kept[:20].mean() > 0.9
    assert not kept[20:40].any()
