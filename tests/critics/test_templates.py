"""Templates of a known map: log-likelihood ratios, attention, and the probability of a particle."""

from copy import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from cryogan.critics.matching.templates import Observed, shift_grid
from cryogan.fourier import to_half_planes, to_images
from cryogan.rotations import super_fibonacci

if TYPE_CHECKING:
    from conftest import Experiment, Observe

BOX, PIXEL, MAX_SHIFT = 32, 4.0, 6.0


def band_limited(images: Tensor, cutoff: float) -> Tensor:
    """Without the mean, and what is at the cut-off or beyond."""
    k = torch.fft.fftfreq(BOX, 1 / BOX)
    radius = torch.hypot(k[:, None], k[: BOX // 2 + 1].abs())
    return to_images(to_half_planes(images) * ((radius > 0.5) & (radius < cutoff)))


def test_log_likelihood_ratio_of_a_template_over_noise(experiment: "Experiment", observe: "Observe") -> None:
    cutoff, count = 10.0, 20
    templates, images = observe(count, cutoff)
    rotations, shifts = experiment.phi.rotations[:5], experiment.phi.shifts[5:8]
    ratios, _ = templates.bank(rotations, shifts).log_likelihood_ratios(images)
    assert ratios.shape == (count, 3, 5)

    simulator = experiment.simulator(600, 0)
    spectrum = simulator.projector.transform(experiment.truth)
    seen = band_limited(experiment.images[:count], cutoff)
    for i, shift in enumerate(shifts):
        for j, rotation in enumerate(rotations):
            phi = type(experiment.phi)(
                rotation.expand(count, 3, 3), shift.expand(count, 2), experiment.phi.particles[:count]
            )
            model = band_limited(simulator.clean(spectrum, phi), cutoff)
            expected = (seen.square() - (seen - model).square()).sum((1, 2)) / 2
            torch.testing.assert_close(ratios[:, i, j], expected, rtol=1e-3, atol=0.05)


def test_attention_goes_from_the_mean_over_all_templates_to_the_best(observe: "Observe") -> None:
    templates, images = observe(12, 9.0)
    rotations = torch.from_numpy(super_fibonacci(50)).float()
    bank = templates.bank(rotations, shift_grid(4.0, 4.0, torch.device("cpu")))
    ratios, matched = bank.log_likelihood_ratios(images)
    flat, mean = bank.attend(images, 0.0, 64)
    torch.testing.assert_close(mean, ratios.mean((1, 2)))
    everywhere = torch.view_as_complex(matched.mean(1).sum(0).view(-1, 2)) / 50
    torch.testing.assert_close(flat, everywhere.expand_as(flat))
    sharp, best = bank.attend(images, 1e4, 64)
    torch.testing.assert_close(best, ratios.flatten(1).amax(1))
    rotation, shift, _ = bank.best(images)
    index = (rotation[:, None] - rotations).abs().sum((2, 3)).argmin(1)
    expected = torch.zeros_like(sharp).index_add(0, index, templates.matched(images, shift))
    torch.testing.assert_close(sharp, expected)


def test_p_particle_is_the_posterior_of_a_particle(observe: "Observe") -> None:
    """In images of which a fifth show the map: Bayes' rule over all templates and no particle."""
    templates, images = observe(40, 9.0)
    generator = torch.Generator().manual_seed(4)
    noise = to_half_planes(torch.randn(40, BOX, BOX, generator=generator))
    empty = Observed(templates.disc.take(noise), images.transfer)
    rotations = torch.from_numpy(super_fibonacci(500)).float()
    shifts = shift_grid(MAX_SHIFT, 4.0, torch.device("cpu"))
    bank, all_shown = templates.bank(rotations, shifts, 0.2), templates.bank(rotations, shifts)
    faint = 0.05 * bank.log_likelihood_ratios(images)[0].flatten(1)
    mean = faint.exp().mean(1, keepdim=True)
    torch.testing.assert_close(bank.p_particle(faint), 0.2 * mean / (0.2 * mean + 0.8))
    assert (all_shown.p_particle(faint) == 1).all()
    assert bank.best(images)[2].min() > 0.99
    assert bank.best(empty)[2].max() < 0.2
    for temperature in (0.0, 0.05):
        gathered, attended = bank.attend(empty, temperature, 16)
        whole, all_of_it = all_shown.attend(empty, temperature, 16)
        share = bank.p_particle(temperature * bank.log_likelihood_ratios(empty)[0].flatten(1))
        torch.testing.assert_close(attended, share[:, 0] * all_of_it)
        assert gathered.norm() < share.max() * 1.5 * whole.norm()


@pytest.mark.parametrize(("largest", "spacing"), [(10.0, 5.7), (3.0, 3.0), (0.0, 4.0)])
def test_shift_grid_covers_the_circle(largest: float, spacing: float) -> None:
    grid = shift_grid(largest, spacing, torch.device("cpu"))
    assert (grid.norm(dim=1) <= largest + spacing / 2).all()
    assert (grid.norm(dim=1) == 0).sum() == 1
    angle = torch.linspace(0, 2 * torch.pi, 60)
    for radius in (largest, largest / 2):
        points = radius * torch.stack([angle.cos(), angle.sin()], 1)
        assert torch.cdist(points, grid).amin(1).max() <= spacing * 1.01


def test_rounded_products_differ_by_the_rounding_of_their_factors_and_leave_no_trace(observe: "Observe") -> None:
    templates, images = observe(10, 9.0)
    rotations, shifts = torch.from_numpy(super_fibonacci(50)).float(), shift_grid(4.0, 4.0, torch.device("cpu"))
    rounded = copy(templates)
    rounded.rounded = True
    exact = templates.bank(rotations, shifts)
    (found, _), (expected, _) = (bank.attend(images, 0.0, 64) for bank in (rounded.bank(rotations, shifts), exact))
    assert (found - expected).norm() < 5e-3 * expected.norm()
    again, _ = exact.attend(images, 0.0, 64)
    assert again.equal(expected)
