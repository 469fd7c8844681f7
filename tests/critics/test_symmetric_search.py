"""The search with a polyhedron's symmetry: on images of a hollow molecule whose contrast varies."""

from typing import TYPE_CHECKING

import pytest
import torch

from cryogan.config import Settings
from cryogan.critics.matching.schedule import bank_shell, found_shell, symmetric_cutoff
from cryogan.critics.matching.symmetric_search import SymmetricSearch
from cryogan.validation import align, fsc, radial_average

if TYPE_CHECKING:
    from conftest import Experiment

STEPS, PIXEL = 40, 4.0


def test_a_molecule_that_is_nearly_a_ball_is_found(varying: "Experiment") -> None:
    training = varying.trainer(SymmetricSearch, STEPS, symmetry="T", orientations=2000)
    list(training.run())
    found, truth = training.result().numpy(), varying.truth.numpy()
    found = align(found, truth, PIXEL).apply(found, PIXEL)
    curve = fsc(found - radial_average(found), truth - radial_average(truth))
    assert curve[4:10].min() > 0.6
    # The varying contrast is noise where the map is strong, and nowhere less than that of the background.
    excess = (training.noise_power / training.background_power)[1:15]
    assert excess.min() >= 1
    assert excess[:5].max() > 1.05


def test_it_goes_on_from_a_checkpoint(varying: "Experiment") -> None:
    first, second = (varying.trainer(SymmetricSearch, STEPS, symmetry="T", orientations=500) for _ in range(2))
    list(first.run(until=3))
    second.load_state_dict(first.state_dict())
    list(first.run(until=5))
    list(second.run(until=5))
    assert torch.equal(first.result(), second.result())
    assert first.noise_power.equal(second.noise_power)


@pytest.mark.parametrize(("symmetry", "shell", "bank"), [("C1", 9, 11), ("D7", 9, 11), ("t", 20, 20), ("I2", 20, 20)])
def test_polyhedra_are_searched_to_finer_detail(symmetry: str, shell: float, bank: float) -> None:
    settings = Settings(symmetry=symmetry)
    assert found_shell(settings) == shell
    assert bank_shell(settings) == bank


def test_the_cutoff_of_a_trial_stays_and_rises_and_that_of_the_best_one_goes_on() -> None:
    trial = [symmetric_cutoff(step, 40, 64, rises=False) for step in range(40)]
    rise = [symmetric_cutoff(step, 20, 64, rises=True) for step in range(20)]
    assert set(trial[:31]) == {13}
    assert 15.5 < trial[-1] < rise[0] == 16
    assert rise[-1] == 20
    assert trial + rise == sorted(trial + rise)
    assert symmetric_cutoff(19, 20, 32, rises=True) == 16
