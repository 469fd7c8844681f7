"""Equation (iii) with poses that are known: the critic is what the map lacks."""

from typing import TYPE_CHECKING

import pytest
import torch

from cryogan.critics.matching.critic import band_limited, optimal_critic
from cryogan.critics.matching.marching import FrequencyMarching
from cryogan.critics.matching.templates import Observed
from cryogan.fourier import Disc, to_half_planes
from cryogan.parallel.ranks import ALONE

if TYPE_CHECKING:
    from conftest import Experiment

BOX = 32


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_critic_is_the_difference_of_the_maps_where_poses_are_known(experiment: "Experiment", share: float) -> None:
    """Attention on the true pose gives E B = H x for each stream, so w = truth - map, but for H's lower bound."""
    trainer = experiment.trainer(FrequencyMarching, 1)
    projector, cutoff = trainer.simulator.projector, 10.0
    disc = Disc(BOX, cutoff, device=torch.device("cpu"))
    spectrum = projector.transform(share * experiment.truth)
    templates, difference = trainer.templates(spectrum, disc), trainer.difference(disc, spectrum)
    phi = experiment.phi
    with torch.no_grad():
        clean = trainer.simulator.clean(spectrum, phi)
        transfer = trainer.simulator.transfer(phi.particles)
        for images, sign in ((experiment.images, 1.0), (clean, -1.0)):
            observed = Observed.on(disc, to_half_planes(images), transfer)
            difference.add(phi.rotations, sign * templates.matched(observed, phi.shifts))
        power = disc.take(transfer).square().mean(0)
        w = optimal_critic(difference.total(ALONE), trainer.normal_diagonal(templates, power, len(phi)))
        found = band_limited(w, cutoff, trainer.back, trainer.volume)
        truth = band_limited(torch.fft.rfftn(experiment.truth), cutoff, trainer.back, trainer.volume)
    assert (found - (1 - share) * truth).norm() < 0.25 * truth.norm()
