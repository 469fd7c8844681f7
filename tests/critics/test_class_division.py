"""Several classes: weights and division."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from cryogan.critics.matching.classes import updated_weights
from cryogan.critics.matching.marching import FrequencyMarching
from cryogan.models.phantom import conformations

if TYPE_CHECKING:
    from conftest import Experiment

BOX, PIXEL = 32, 4.0


def test_classes_go_on_from_a_saved_state(experiment: "Experiment") -> None:
    whole, first, second = (
        experiment.trainer(FrequencyMarching, 5, orientations=150, marching_images=256, classes=3, class_steps=2)
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
    classes, same = whole.class_result(), second.class_result()
    assert classes is not None
    assert same is not None
    maps = [torch.stack(result.maps) for result in (classes, same)]
    assert torch.equal(*maps)
    mean = torch.tensordot(whole.weights, maps[0], dims=1)
    torch.testing.assert_close(whole.result(), mean, rtol=0, atol=1e-5 * float(mean.abs().max()))
    assert torch.equal(classes.weights, whole.weights)
    assert classes.probabilities.shape == (600, 3)
    torch.testing.assert_close(classes.probabilities.sum(1), torch.ones(600))


def test_classes_divide_along_what_varies_most(experiment: "Experiment") -> None:
    maps = torch.from_numpy(np.concatenate([conformations(BOX, PIXEL, 1), np.zeros((1, BOX, BOX, BOX))])).float()
    maps *= (experiment.truth.norm() / maps.flatten(1).norm(dim=1)[0]) / 2
    simulator, phi = experiment.simulator(600, 3), experiment.phi
    with torch.no_grad():
        parts = [slice(start, start + 200) for start in (0, 200, 400)]  # of each conformation, and of noise
        images = [simulator(simulator.projector.transform(x), phi[part]) for x, part in zip(maps, parts, strict=True)]
    mixed = replace(experiment, images=torch.cat(images))
    training = mixed.trainer(FrequencyMarching, 7, orientations=500, classes=3, class_steps=3)
    training.volume.start_from(maps.mean(0))

    def counts(until: int) -> np.ndarray:
        list(training.run(until))
        classes = training.class_result()
        assert classes is not None
        found = classes.probabilities.argmax(1)
        return np.array([np.bincount(found[part], minlength=len(training.classes)) for part in parts])

    # First the images that show nothing.
    two = counts(until=2)
    empty = two[2].argmax()
    assert two[2, empty] > 190
    assert two[:2, empty].sum() < 60
    powers = sorted(float(density.square().sum()) for density in training.class_result().maps)
    assert powers[0] < 0.5 * powers[1]
    # Then the conformations.
    three = counts(until=5)
    assert three[linear_sum_assignment(-three)].sum() > 0.8 * 600


def test_weights_follow_the_shares_of_the_streams() -> None:
    weights = torch.tensor([0.5, 0.3, 0.2])
    torch.testing.assert_close(updated_weights(weights, weights, weights), weights)
    # A class that shows in more of the real images than of the simulated ones gains, by a factor of 2 at most.
    updated = updated_weights(weights, torch.tensor([0.9, 0.05, 0.05]), torch.tensor([0.1, 0.1, 0.1]))
    torch.testing.assert_close(updated, torch.tensor([1.0, 0.15, 0.1]) / 1.25)
