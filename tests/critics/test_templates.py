"""The view critic: agreements, climbing, search and sharpening, against views that are known."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cryogan.critics.matching.templates import Observed, Views, shift_grid
from cryogan.critics.matching.trainer import Search, Sharpening, sharpening_steps
from cryogan.fourier import Disc, to_half_planes, to_images
from cryogan.models.phantom import conformations
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.rotations import super_fibonacci, uniform_rotations
from cryogan.validation import align, fsc

if TYPE_CHECKING:
    from conftest import Experiment

Look = Callable[[int, float], tuple[Views, Observed, Disc]]
BOX, PIXEL, MAX_SHIFT = 32, 4.0, 6.0


@pytest.fixture
def look(experiment: "Experiment") -> Look:
    """Views of the truth and the first images, up to a cut-off."""

    def make(count: int, cutoff: float) -> tuple[Views, Observed, Disc]:
        simulator = experiment.simulator(600, 0)
        disc = Disc(BOX, cutoff, device=torch.device("cpu"))
        spectrum = simulator.projector.transform(experiment.truth)
        views = Views(simulator.projector, spectrum, disc, torch.ones(BOX // 2 + 1), BOX * PIXEL)
        rows = experiment.phi.particles[:count]
        return (
            views,
            Observed(disc.take(to_half_planes(experiment.images[:count])), disc.take(simulator.transfer(rows))),
            disc,
        )

    return make


def band_limited(images: Tensor, cutoff: float) -> Tensor:
    """Without the mean, and what is at the cut-off or beyond."""
    k = torch.fft.fftfreq(BOX, 1 / BOX)
    radius = torch.hypot(k[:, None], k[: BOX // 2 + 1].abs())
    return to_images(to_half_planes(images) * ((radius > 0.5) & (radius < cutoff)))


def degrees(first: Tensor, second: Tensor) -> Tensor:
    traces = torch.einsum("bij,bij->b", first.double(), second.double())
    return ((traces - 1) / 2).clamp(-1, 1).acos().rad2deg()


def test_agreement_is_the_log_likelihood_ratio_of_view_and_noise(experiment: "Experiment", look: Look) -> None:
    cutoff, count = 10.0, 20
    views, images, _ = look(count, cutoff)
    rotations, shifts = experiment.phi.rotations[:5], experiment.phi.shifts[5:8]
    agreements, _ = views.bank(rotations, shifts).agreements(images)
    assert agreements.shape == (count, 3, 5)

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
            torch.testing.assert_close(agreements[:, i, j], expected, rtol=1e-3, atol=0.05)


def test_attention_goes_from_the_mean_over_all_views_to_the_best_view(look: Look) -> None:
    views, images, _ = look(12, 9.0)
    rotations = torch.from_numpy(super_fibonacci(50)).float()
    bank = views.bank(rotations, shift_grid(4.0, 4.0, torch.device("cpu")))
    agreements, matched = bank.agreements(images)
    flat, mean = bank.attend(images, 0.0, 64)
    torch.testing.assert_close(mean, agreements.mean((1, 2)))
    everywhere = torch.view_as_complex(matched.mean(1).sum(0).view(-1, 2)) / 50
    torch.testing.assert_close(flat, everywhere.expand_as(flat))
    sharp, best = bank.attend(images, 1e4, 64)
    torch.testing.assert_close(best, agreements.flatten(1).amax(1))
    rotation, shift, _ = bank.best(images)
    index = (rotation[:, None] - rotations).abs().sum((2, 3)).argmin(1)
    expected = torch.zeros_like(sharp).index_add(0, index, views.matched(images, shift))
    torch.testing.assert_close(sharp, expected)


def test_presence_is_the_posterior_of_a_particle(look: Look) -> None:
    """In images of which a fifth show the map: Bayes' rule over all views and no particle."""
    views, images, disc = look(40, 9.0)
    generator = torch.Generator().manual_seed(4)
    noise = to_half_planes(torch.randn(40, BOX, BOX, generator=generator))
    empty = Observed(disc.take(noise), images.transfer)
    rotations = torch.from_numpy(super_fibonacci(500)).float()
    shifts = shift_grid(MAX_SHIFT, 4.0, torch.device("cpu"))
    bank, all_shown = views.bank(rotations, shifts, 0.2), views.bank(rotations, shifts)
    faint = 0.05 * bank.agreements(images)[0].flatten(1)
    mean = faint.exp().mean(1, keepdim=True)
    torch.testing.assert_close(bank.presence(faint), 0.2 * mean / (0.2 * mean + 0.8))
    assert (all_shown.presence(faint) == 1).all()
    assert bank.best(images)[2].min() > 0.99
    assert bank.best(empty)[2].max() < 0.2
    for sharpness in (0.0, 0.05):
        gathered, attended = bank.attend(empty, sharpness, 16)
        whole, all_of_it = all_shown.attend(empty, sharpness, 16)
        share = bank.presence(sharpness * bank.agreements(empty)[0].flatten(1))
        torch.testing.assert_close(attended, share[:, 0] * all_of_it)
        assert gathered.norm() < share.max() * 1.5 * whole.norm()


def test_best_view_and_climb_find_what_an_image_shows(experiment: "Experiment", look: Look) -> None:
    count = 100
    coarse, images, _ = look(count, 9.0)
    bank = coarse.bank(torch.from_numpy(super_fibonacci(4608)).float(), shift_grid(MAX_SHIFT, 4.0, torch.device("cpu")))
    rotations, shifts, _ = bank.best(images)
    true = experiment.phi.rotations[:count], experiment.phi.shifts[:count]
    assert degrees(rotations, true[0]).median() < 10
    fine, images, _ = look(count, 16.0)
    climbed, moved, agreement = fine.climb(images, rotations, shifts, steps=8, largest=0.2, max_shift=MAX_SHIFT)
    right = degrees(climbed, true[0]) < 3
    assert right.float().mean() > 0.9
    assert (moved - true[1])[right].abs().max() < 0.3 * PIXEL
    start = fine.climb(images, rotations, shifts, steps=0, largest=0.2, max_shift=MAX_SHIFT)
    assert torch.equal(start[0], rotations)
    assert (agreement >= start[2]).all()


def test_climb_stays_where_there_is_nothing_to_see(experiment: "Experiment", look: Look) -> None:
    _, images, disc = look(5, 9.0)
    empty = torch.zeros_like(experiment.simulator(600, 0).projector.transform(experiment.truth))
    blank = Views(experiment.simulator(600, 0).projector, empty, disc, torch.ones(BOX // 2 + 1), BOX * PIXEL)
    start = experiment.phi.rotations[:5], experiment.phi.shifts[:5]
    rotations, shifts, agreement = blank.climb(images, *start, steps=3, largest=0.2, max_shift=MAX_SHIFT)
    assert torch.equal(rotations, start[0])
    assert torch.equal(shifts, start[1])
    assert not agreement.any()


def test_draws_are_as_far_from_the_best_view_as_the_truth_is(experiment: "Experiment", look: Look) -> None:
    # Three angles and two shifts: for a posterior like a Gaussian, of either the mean is 5 / 2 nats.
    count, draws = 100, 20
    views, images, _ = look(count, 16.0)
    true = experiment.phi.rotations[:count], experiment.phi.shifts[:count]
    rotations, shifts, best = views.climb(images, *true, steps=8, largest=0.2, max_shift=2 * MAX_SHIFT)

    def agreement(rotations: Tensor, shifts: Tensor) -> Tensor:
        return views.climb(images, rotations, shifts, steps=0, largest=0.2, max_shift=MAX_SHIFT)[2]

    generator = torch.Generator().manual_seed(0)
    turned, moved, weights = views.draw(images, rotations, shifts, draws, generator, with_shifts=True)
    torch.testing.assert_close(weights.sum(1), torch.ones(count))
    beside = torch.stack([best - agreement(turned[:, i], moved[:, i]) for i in range(draws)], 1)
    assert (best - agreement(*true)).mean() == pytest.approx(2.5, abs=0.6)
    assert (weights * beside).sum(1).mean() == pytest.approx(2.5, abs=0.4)
    _, moved, _ = views.draw(images, rotations, shifts, draws, generator, with_shifts=False)
    assert torch.equal(moved, shifts[:, None].expand(-1, draws, -1))


def test_shifts_are_bounded(experiment: "Experiment", look: Look) -> None:
    views, images, _ = look(50, 12.0)
    start = experiment.phi.rotations[:50], torch.zeros(50, 2)
    _, shifts, _ = views.climb(images, *start, steps=3, largest=0.1, max_shift=1.0)
    assert shifts.abs().max() == pytest.approx(1.0)
    _, shifts, _ = views.climb(images, *start, steps=3, largest=0.1, max_shift=0.0)
    assert not shifts.any()


@pytest.mark.parametrize(("largest", "spacing"), [(10.0, 5.7), (3.0, 3.0), (0.0, 4.0)])
def test_shift_grid_covers_the_circle(largest: float, spacing: float) -> None:
    grid = shift_grid(largest, spacing, torch.device("cpu"))
    assert (grid.norm(dim=1) <= largest + spacing / 2).all()
    assert (grid.norm(dim=1) == 0).sum() == 1
    angle = torch.linspace(0, 2 * torch.pi, 60)
    for radius in (largest, largest / 2):
        points = radius * torch.stack([angle.cos(), angle.sin()], 1)
        assert torch.cdist(points, grid).amin(1).max() <= spacing * 1.01


def test_truth_is_a_fixed_point(experiment: "Experiment") -> None:
    """At equal distributions the critic is zero but for the sampling noise, though it looks from wrong views."""
    training = experiment.training(Sharpening, 2)
    training.volume.start_from(experiment.truth)
    record, *_ = training.run(until=1)
    assert record["critic_auc"] == pytest.approx(0.5, abs=0.06)
    assert record["map_change"] < 0.05

    other = experiment.training(Sharpening, 2)
    other.volume.start_from(0.5 * experiment.truth.flip(2))
    record, *_ = other.run(until=1)
    assert record["map_change"] > 0.2


def coarse(truth: Tensor) -> Tensor:
    k = torch.fft.fftfreq(BOX, 1 / BOX)
    radius = (k[:, None, None] ** 2 + k[:, None] ** 2 + k[: BOX // 2 + 1] ** 2).sqrt()
    return torch.fft.irfftn(torch.fft.rfftn(truth) * (radius < 6), s=(BOX,) * 3)


def test_preferred_views_and_small_shifts_are_learned(preferred: "Experiment") -> None:
    maps, aucs = {}, {}
    for learn in (False, True):
        training = preferred.training(Sharpening, sharpening_steps(BOX, 7), learn_poses=learn)
        training.volume.start_from(coarse(preferred.truth))
        *_, record = training.run()
        maps[learn] = fsc(training.result().numpy(), preferred.truth.numpy())
        aucs[learn] = record["critic_auc"]
    assert maps[True][1:15].min() > maps[False][1:15].min() + 0.1
    assert abs(aucs[True] - 0.5) < abs(aucs[False] - 0.5)
    views = training.simulator.views
    true = views.counts(preferred.phi.rotations, torch.eye(3)[None])
    assert torch.corrcoef(torch.stack([views.density, true]))[0, 1] > 0.8
    assert training.simulator.shift_width == pytest.approx(MAX_SHIFT / 2, rel=0.3)


def test_a_prior_of_another_run_is_turned_onto_a_mirrored_map(preferred: "Experiment") -> None:
    """The other run has other particles, a frame and a hand of its own."""
    random = torch.Generator().manual_seed(11)
    views, seen = PoseDistribution(torch.device("cpu")), preferred.phi.rotations[:, :, 2]
    others = seen[torch.randint(len(seen), (400,), generator=random)]
    half_turn = torch.tensor([1.0, -1.0, -1.0])  # what mirroring in x does to the directions
    turned = others @ uniform_rotations(1, random)[0].T
    views.prior = views.mixture(turned, torch.full((400,), torch.nan), torch.ones(400))

    def training(**settings: bool) -> Sharpening:
        made: Sharpening = preferred.training(Sharpening, sharpening_steps(BOX, 1), **settings)
        made.simulator.views = PoseDistribution(torch.device("cpu"), views.prior)
        return made

    first, second = training(), training()
    first.volume.start_from(torch.roll(coarse(preferred.truth).flip(2), 1, 2))
    list(first.run(until=1))
    true = views.mixture(seen * half_turn, torch.full((len(seen),), torch.nan), torch.ones(len(seen)))
    found = first.simulator.views
    assert found is not None
    assert torch.corrcoef(torch.stack([views.prior, true]))[0, 1] < 0.6
    assert torch.corrcoef(torch.stack([found.density, true]))[0, 1] > 0.8
    assert found.prior_fit > 0.8
    second.load_state_dict(first.state_dict())
    assert second.simulator.views is not None
    assert torch.equal(second.simulator.views.density, found.density)
    list(first.run(until=2))
    list(second.run(until=2))
    assert torch.equal(first.result(), second.result())


def test_sharpening_brings_a_coarse_map_to_the_nyquist_frequency(experiment: "Experiment") -> None:
    training = experiment.training(Sharpening, sharpening_steps(BOX, 3))
    training.volume.start_from(coarse(experiment.truth))
    records = list(training.run())
    assert len(records) == 6
    curve = fsc(training.result().numpy(), experiment.truth.numpy())
    assert curve[1:15].min() > 0.9
    # In the unit of the images, too.
    scale = (training.result() * experiment.truth).sum() / experiment.truth.square().sum()
    assert scale == pytest.approx(1.0, abs=0.1)
    assert training.distance < 0


def test_search_finds_the_map_from_zero(experiment: "Experiment") -> None:
    training = experiment.training(Search, 60, seed=1)
    assert not training.volume.density.any()
    *_, record = training.run()
    found = training.result().numpy()
    assert found.min() >= 0
    assert np.isfinite(list(record.values())).all()
    curve = fsc(align(found, experiment.truth.numpy(), PIXEL).apply(found, PIXEL), experiment.truth.numpy())
    assert curve[1:6].min() > 0.9


def test_equal_seeds_give_equal_maps_also_from_a_saved_state(experiment: "Experiment") -> None:
    for kind in (Search, Sharpening):
        whole, first, second = (
            experiment.training(kind, 3, orientations=300, search_batch=20, marching_images=256) for _ in range(3)
        )
        for training in (whole, first, second):
            training.volume.start_from(experiment.truth)
        list(whole.run())
        list(first.run(until=1))
        second.load_state_dict(first.state_dict())
        assert second.step == 1
        list(second.run())
        assert torch.equal(whole.result(), second.result())


def test_classes_go_on_from_a_saved_state(experiment: "Experiment") -> None:
    whole, first, second = (
        experiment.training(Sharpening, 5, orientations=150, marching_images=256, classes=3, class_steps=2)
        for _ in range(3)
    )
    for training in (whole, first):
        training.volume.start_from(experiment.truth)
    list(whole.run())
    list(first.run(until=2))
    assert len(first.classes) == 2
    second.load_state_dict(first.state_dict())
    list(second.run())
    assert len(second.classes) == 3
    assert torch.equal(whole.weights, second.weights)
    assert whole.weights.sum() == pytest.approx(1.0)
    maps = [torch.stack(training.class_maps()) for training in (whole, second)]
    assert torch.equal(*maps)
    mean = torch.tensordot(whole.weights, maps[0], dims=1)
    torch.testing.assert_close(whole.result(), mean, rtol=0, atol=1e-5 * float(mean.abs().max()))
    probabilities = whole.class_probabilities()
    assert probabilities.shape == (600, 3)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(600))


def test_classes_divide_along_what_varies_most(experiment: "Experiment") -> None:
    maps = torch.from_numpy(np.concatenate([conformations(BOX, PIXEL, 1), np.zeros((1, BOX, BOX, BOX))])).float()
    maps *= (experiment.truth.norm() / maps.flatten(1).norm(dim=1)[0]) / 2
    simulator, phi = experiment.simulator(600, 3), experiment.phi
    with torch.no_grad():
        parts = [slice(start, start + 200) for start in (0, 200, 400)]  # of each conformation, and of noise
        images = [simulator(simulator.projector.transform(x), phi[each]) for x, each in zip(maps, parts, strict=True)]
    mixed = replace(experiment, images=torch.cat(images))
    training = mixed.training(Sharpening, 7, orientations=500, classes=3, class_steps=3)
    training.volume.start_from(maps.mean(0))

    def counts(until: int) -> np.ndarray:
        list(training.run(until))
        found = training.class_probabilities().argmax(1)
        return np.array([np.bincount(found[each], minlength=len(training.classes)) for each in parts])

    # First the images that show nothing.
    two = counts(until=2)
    empty = two[2].argmax()
    assert two[2, empty] > 190
    assert two[:2, empty].sum() < 60
    powers = sorted(float(each.square().sum()) for each in training.class_maps())
    assert powers[0] < 0.5 * powers[1]
    # Then the conformations.
    three = counts(until=5)
    assert three[linear_sum_assignment(-three)].sum() > 0.8 * 600


@pytest.mark.parametrize(("box", "steps"), [(16, 4), (32, 7), (64, 10), (192, 15)])
def test_sharpening_ends_with_steps_at_the_nyquist_frequency(box: int, steps: int) -> None:
    assert sharpening_steps(box, 4) == steps
