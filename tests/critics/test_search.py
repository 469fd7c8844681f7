"""The initial search, from a zero map."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from cryogan.critics.matching.marching import FrequencyMarching
from cryogan.critics.matching.search import InitialSearch
from cryogan.validation import align, fsc

if TYPE_CHECKING:
    from conftest import Experiment

PIXEL = 4.0


def test_search_finds_the_map_from_zero(experiment: "Experiment") -> None:
    training = experiment.trainer(InitialSearch, 60, seed=1)
    assert not training.volume.density.any()
    *_, record = training.run()
    found = training.result().numpy()
    assert found.min() >= 0
    assert np.isfinite(list(record.values())).all()
    curve = fsc(align(found, experiment.truth.numpy(), PIXEL).apply(found, PIXEL), experiment.truth.numpy())
    assert curve[1:6].min() > 0.9


def test_equal_seeds_give_equal_maps_also_from_a_saved_state(experiment: "Experiment") -> None:
    for kind in (InitialSearch, FrequencyMarching):
        whole, first, second = (
            experiment.trainer(kind, 3, orientations=300, search_batch=20, marching_images=256) for _ in range(3)
        )
        for training in (whole, first, second):
            training.volume.start_from(experiment.truth)
        list(whole.run())
        list(first.run(until=1))
        second.load_state_dict(first.state_dict())
        assert second.step == 1
        list(second.run())
        assert torch.equal(whole.result(), second.result())
