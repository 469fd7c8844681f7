"""The attention (ii) of docs/method.md where few poses are likely: on a CPU, a compiled loop over those alone.

Matrix products over all poses take as long when nearly all of them have no attention, as at the end of a search.
"""

import math

import numpy as np
import torch
from torch import Tensor

from cryogan.parallel.threads import in_threads
from cryogan.physics.slice_kernels import Array, compiled

NEGLIGIBLE = 16.0  # nats below an image's likeliest pose: 40,000 such poses have 0.5 % of the attention together
FEW = 0.04  # of all poses: up to so many a loop is faster than matrix products
COUNTED = 8  # they are counted in one image of so many


def find_few(ratios: Tensor, inverse_temperature: float) -> Tensor | None:
    """Find the poses that have any attention, by the log-likelihood ratios (B, L, M) of images on a CPU.

    Returns:
        For each image the ratio above which they are, (B,); None: they are not few, or not finite.
    """
    limits = ratios.amax((1, 2)) - NEGLIGIBLE / max(inverse_temperature, 1e-30)
    counted = ratios[::COUNTED]
    count = torch.count_nonzero(counted > limits[::COUNTED, None, None])
    return limits if count <= FEW * counted.numel() and bool(limits.isfinite().all()) else None


def attend(
    ratios: Tensor, matched: Tensor, limits: Tensor, inverse_temperature: float, log_odds: float
) -> tuple[Tensor, Tensor]:
    """Weight images with the attention over their likely poses.

    Args:
        ratios: log-likelihood ratios (B, L, M), nats, of L shifts and M rotations.
        matched: matched filter of the images at every shift, (B, L, 2 K).
        limits: of each image, from `find_few`.
        inverse_temperature: factor on the log-likelihood ratios in the softmax.
        log_odds: of a particle against none, for each pose; infinite: each image shows one.

    Returns:
        For each rotation, the sum over images and shifts of p_particle a_g S* C y, (M, 2 K), and the attended
        log-likelihood ratio of each image, (B,).
    """
    arrays = ratios.numpy(), matched.numpy(), limits.numpy()
    attended = np.empty(len(ratios), np.float32)
    totals: dict[int, Array] = {}

    def task(start: int, stop: int) -> None:
        totals[start] = np.zeros((ratios.shape[2], matched.shape[2]), np.float32)
        _attend(*arrays, inverse_temperature, log_odds, totals[start], attended, start, stop)

    in_threads(task, len(ratios))
    total = totals.pop(0)
    for start in sorted(totals):
        total += totals[start]
    return torch.from_numpy(total), torch.from_numpy(attended)


@compiled
def _attend(
    ratios: Array,
    matched: Array,
    limits: Array,
    inverse_temperature: float,
    log_odds: float,
    total: Array,
    attended: Array,
    start: int,
    stop: int,
) -> None:
    """Add images `start` to `stop` to `total` (M, 2 K), and fill `attended`; arguments as of `attend`."""
    rotations = ratios.shape[2]
    likely = np.empty(ratios.shape[1] * rotations, np.int32)
    for image in range(start, stop):
        count = 0
        for shift in range(ratios.shape[1]):
            for rotation in range(rotations):
                if ratios[image, shift, rotation] > limits[image]:
                    likely[count] = shift * rotations + rotation
                    count += 1
        best = limits[image] + NEGLIGIBLE / inverse_temperature
        norm = mean = 0.0
        for pose in likely[:count]:
            ratio = ratios[image, pose // rotations, pose % rotations]
            weight = math.exp(inverse_temperature * (ratio - best))
            norm, mean = norm + weight, mean + weight * ratio
        p_particle = 1.0
        if log_odds < math.inf:
            p_particle = 1 / (1 + math.exp(-(inverse_temperature * best + math.log(norm) + log_odds)))
        attended[image] = p_particle * mean / norm
        for pose in likely[:count]:
            shift, rotation = pose // rotations, pose % rotations
            attention = math.exp(inverse_temperature * (ratios[image, shift, rotation] - best)) / norm
            factor = np.float32(p_particle * attention)
            for k in range(matched.shape[2]):
                total[rotation, k] += factor * matched[image, shift, k]
