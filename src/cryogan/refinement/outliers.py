"""Particles that do not show the map: noise, ice, aggregates and parts of molecules.

What is usual is learned from the particles themselves, most of which must show the map, and what is usual in their
micrograph, where ice is thicker or thinner. Each of their scores is standardised by median and median absolute
deviation, and turned so that junk is high: it has less of the map, or more beside it. The distance of a particle is the
root of the sum of the squares of its positive deviations. For particles, whose scores are independent and nearly
Gaussian, its distribution is known; the local false discovery rate (Efron 2004, *J. Am. Stat. Assoc.* 99:96) compares
it with the distribution that is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats

from cryogan.refinement.scores import Scores

Array = NDArray[np.float64]

ROUNDS = 20  # at most, in which what is usual is learned from the particles that seemed usual before
USUAL = 0.01  # probability of a particle's distance, or a larger one, down to which it is usual
LEAST_WIDTH = 0.1  # of the usual amplitude: standard deviation that is granted to it where noise makes less
FARTHEST = 2.0  # standard deviations of what is usual in the micrographs: one that is all junk is not usual
LEAST_WEIGHT = 0.3  # of a kept particle: to lose one is worse than to keep junk
TAIL = 0.5  # probability of a distance, or a larger one, from which on there are particles only


@dataclass(frozen=True)
class Outliers:
    """What speaks against each of N particles.

    Attributes:
        deviations: (N, 3), of amplitude, outline and detail, in standard deviations; positive where junk is.
        weight: (N,), probability that the particle shows the map.
    """

    deviations: Array
    weight: Array

    @property
    def distance(self) -> Array:
        """Root of the sum of the squares of the positive deviations, (N,)."""
        return _distance(self.deviations)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which particles are taken to show the map, (N,)."""
        kept: NDArray[np.bool_] = self.weight > LEAST_WEIGHT
        return kept


def find_outliers(halves: Sequence[Scores], micrographs: Sequence[NDArray[np.str_]]) -> Outliers:
    """Tell particles that show a map from those that do not.

    Args:
        halves: Scores of the particles of each half, which have scales of their own.
        micrographs: Micrographs of the particles of each half.
    """
    deviations = np.concatenate([_deviations(*of_half) for of_half in zip(halves, micrographs, strict=True)])
    return Outliers(deviations, p_particle(probability_beyond(_distance(deviations), deviations.shape[1])))


def probability_beyond(distance: Array, scores: int) -> Array:
    """Return the probability that a particle is as far or farther, (N,).

    Each of the independent, standard Gaussian scores is positive with probability 1/2: a mixture of chi distributions.

    Args:
        distance: Distances (N,).
        scores: Number of scores.
    """
    parts = [comb(scores, k) / 2**scores * stats.chi2.sf(distance**2, k) for k in range(1, scores + 1)]
    return np.asarray(np.sum(parts, axis=0))


def p_particle(probabilities: Array) -> Array:
    """Return the probability (N,) that each is a particle: one less the local false discovery rate of junk.

    It is p0 / f(p): the density of the probabilities is 1 for particles, of which there is a share p0, and f for all.
    f is the steepest decreasing density that fits (Grenander's estimator; Strimmer 2008, *BMC Bioinformatics* 9:303).

    Args:
        probabilities: `probability_beyond` of each, (N,).
    """
    share = min(1.0, float((probabilities >= TAIL).mean()) / (1 - TAIL))
    ends, member, counts = np.unique(probabilities.clip(min=1e-12), return_inverse=True, return_counts=True)
    widths = np.diff(ends, prepend=0.0)
    low = ends < TAIL
    density = np.full(len(ends), share)
    if low.any():
        observed = counts[low] / len(probabilities) / widths[low]
        fit = optimize.isotonic_regression(observed, weights=widths[low], increasing=False)
        density[low] = np.maximum(fit.x, share)
    weight: Array = (share / density)[member]
    return weight


def _deviations(scores: Scores, micrographs: NDArray[np.str_]) -> Array:
    """Return the deviations (N, 3) of one half's scores from what is usual, positive where junk is."""
    values = torch.stack([-scores.amplitude, scores.outline, scores.detail], dim=1).double().cpu().numpy()
    usual = np.ones(len(values), dtype=bool)
    for _ in range(ROUNDS):
        from_usual = values - _usual_in_micrograph(values, usual, micrographs)
        width = stats.median_abs_deviation(from_usual[usual], axis=0, scale="normal")
        least = np.array([LEAST_WIDTH * abs(np.median(values[usual, 0])), 0.0, 0.0])
        deviations: Array = from_usual / np.maximum(width, least + 1e-9)
        before, usual = usual, probability_beyond(_distance(deviations), values.shape[1]) > USUAL
        if (before == usual).all():
            break
    return deviations


def _usual_in_micrograph(values: Array, usual: NDArray[np.bool_], micrographs: NDArray[np.str_]) -> Array:
    """Return what is usual in each particle's micrograph, (N, 3): its median, drawn towards the median of all.

    It is drawn by the share that chance has in the differences of the medians (empirical Bayes).

    Args:
        values: Scores (N, 3).
        usual: Which particles it is learned from, (N,).
        micrographs: Names (N,).
    """
    centre = np.median(values[usual], axis=0)
    variance = stats.median_abs_deviation(values[usual], axis=0, scale="normal") ** 2
    _, micrograph = np.unique(micrographs, return_inverse=True)
    order = np.flatnonzero(usual)[np.argsort(micrograph[usual], kind="stable")]
    present, starts, counts = np.unique(micrograph[order], return_index=True, return_counts=True)
    medians = np.stack([np.median(part, axis=0) for part in np.split(values[order], starts[1:])]) - centre
    chance = np.pi / 2 * variance / counts[:, None]
    observed = stats.median_abs_deviation(medians, axis=0, scale="normal") ** 2
    spread = np.maximum(observed - np.median(chance, axis=0), 0)
    limit = FARTHEST * np.sqrt(spread)
    offsets = np.zeros((micrograph.max() + 1, values.shape[1]))
    offsets[present] = np.clip(medians * spread / (spread + chance + 1e-12), -limit, limit)
    return np.asarray(centre + offsets[micrograph])


def _distance(deviations: Array) -> Array:
    distance: Array = np.linalg.norm(np.maximum(deviations, 0), axis=1)
    return distance
