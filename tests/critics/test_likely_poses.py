"""The attention over likely poses alone, beside that over all."""

import math

import pytest
import torch

from cryogan.critics.matching import likely_poses
from cryogan.critics.matching.likely_poses import COUNTED, FEW, NEGLIGIBLE


def ratios_and_matched(spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return spread * torch.randn(20, 3, 500, generator=generator), torch.randn(20, 3, 14, generator=generator)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("log_odds", [math.inf, -115.0])
def test_attention_is_that_over_all_poses(log_odds: float, threads: int) -> None:
    (ratios, matched), temperature = ratios_and_matched(50.0), 0.7
    limits = likely_poses.find_few(ratios, temperature)
    assert limits is not None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        total, attended = likely_poses.attend(ratios, matched, limits, temperature, log_odds)
    finally:
        torch.set_num_threads(before)
    logits = temperature * ratios.flatten(1)
    p_particle = torch.sigmoid(torch.logsumexp(logits, 1) + log_odds)
    weights = p_particle[:, None] * torch.softmax(logits, 1)
    assert p_particle.min() == 1 if log_odds == math.inf else p_particle.min() < 0.1 < 0.9 < p_particle.max()
    torch.testing.assert_close(total, weights.view(60, 500).T @ matched.flatten(0, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attended, (weights * ratios.flatten(1)).sum(1), rtol=1e-4, atol=1e-4)


def test_poses_are_few_up_to_a_share() -> None:
    ratios = torch.full((COUNTED, 1, 1000), -2 * NEGLIGIBLE)
    few = round(1000 * FEW)
    ratios[:, :, :few] = 0.0
    limits = likely_poses.find_few(ratios, 1.0)
    assert limits is not None
    assert torch.equal(limits, torch.full((COUNTED,), -NEGLIGIBLE))
    ratios[:, :, few] = 0.0
    assert likely_poses.find_few(ratios, 1.0) is None
    assert likely_poses.find_few(ratios, 0.1) is None  # where the attention is flat, all poses have some
    ratios[0, 0, 0] = math.nan
    assert likely_poses.find_few(ratios[:1], 1.0) is None
