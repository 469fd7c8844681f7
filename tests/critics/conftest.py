"""Images of a known map from known views, and trainers of the matching critic on them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from cryogan.config import Settings
from cryogan.critics import Stage, Task, TrainerInputs
from cryogan.critics.matching.templates import Observed, Templates
from cryogan.critics.matching.trainer import MatchingTrainer
from cryogan.critics.read_ahead import HeldImages
from cryogan.fourier import Disc, to_half_planes
from cryogan.grids import centred_radius
from cryogan.models.phantom import phantom
from cryogan.physics.ctf import CtfParameters
from cryogan.physics.noise import WhiteNoise
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Imaging, Simulator
from cryogan.physics.symmetry import Symmetriser

T = TypeVar("T", bound=MatchingTrainer)
CPU = torch.device("cpu")
Observe = Callable[[int, float], tuple[Templates, Observed]]
BOX, PIXEL, COUNT, MAX_SHIFT = 32, 4.0, 600, 6.0


@dataclass(frozen=True)
class Experiment:
    """Particles of a map, in units of their noise's s.d., and the views that they show."""

    truth: Tensor
    images: Tensor
    phi: Imaging

    @staticmethod
    def simulator(count: int, seed: int) -> Simulator:
        """Of `count` particles, each of another defocus."""
        ones = torch.ones(count)
        defocus = 8000 + 12000 * torch.linspace(0, 1, count)
        optics = CtfParameters(defocus, defocus, 0 * ones, 300 * ones, 2.7 * ones, 0.1 * ones, 0 * ones, 0 * ones, ones)
        return Simulator(
            FourierProjector(BOX, device=CPU),
            optics,
            WhiteNoise(BOX),
            pixel_size=PIXEL,
            max_shift=MAX_SHIFT,
            generator=torch.Generator().manual_seed(seed),
        )

    def trainer(self, kind: type[T], steps: int, seed: int = 0, **settings: Any) -> T:
        """An `InitialSearch` or a `FrequencyMarching` of these particles, from a zero map."""
        values = {
            "orientations": 1000,
            "search_batch": 100,
            "marching_images": COUNT,
            "max_shift": MAX_SHIFT,
        } | settings
        simulator = self.simulator(COUNT, seed + 1)
        simulator.views = PoseDistribution(CPU) if values.get("learn_poses") else None
        task = Task(Settings(**values), BOX, PIXEL, mask_radius=15 * PIXEL, particles=COUNT)
        images = HeldImages(self.images.numpy())
        return kind(
            TrainerInputs(task, (Stage(BOX, steps),), 0, images, simulator, 3.0, critic_seed=0, order_seed=seed)
        )


def particles_of_a_map(
    views: PoseDistribution | None, max_shift: float, change: Callable[[Tensor], Tensor] = lambda truth: truth
) -> Experiment:
    """600 particles of a map without symmetry, or of what is made of it, at a high signal-to-noise ratio."""
    truth = torch.from_numpy(phantom(BOX, PIXEL, 1)).float()
    truth[:, : BOX // 2] *= 0.3  # the phantom has D2
    truth[:, :, : BOX // 2] *= 0.5
    truth = change(truth)
    simulator = Experiment.simulator(COUNT, 7)
    truth *= 3.0 / simulator.projector(truth, simulator.sample(100).rotations).std()
    simulator.views = views
    simulator.shift_width.fill_(max_shift)
    phi = simulator.sample(COUNT)
    phi = Imaging(phi.rotations, phi.shifts, torch.arange(COUNT))
    with torch.no_grad():
        images = simulator(simulator.projector.transform(truth), phi)
    return Experiment(truth, images, phi)


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    return particles_of_a_map(None, MAX_SHIFT)


@pytest.fixture
def observe(experiment: Experiment) -> Observe:
    """Templates of the truth and the first images, up to a cut-off."""

    def make(count: int, cutoff: float) -> tuple[Templates, Observed]:
        simulator = experiment.simulator(COUNT, 0)
        disc = Disc(BOX, cutoff, device=CPU)
        spectrum = simulator.projector.transform(experiment.truth)
        templates = Templates(simulator.projector, spectrum, disc, torch.ones(BOX // 2 + 1), BOX * PIXEL)
        transfer = simulator.transfer(experiment.phi.particles[:count])
        return templates, Observed.on(disc, to_half_planes(experiment.images[:count]), transfer)

    return make


@pytest.fixture(scope="session")
def preferred() -> Experiment:
    """Four in five are seen from within 20 degrees of two axes, and their shifts are half as large as they could be."""
    views = PoseDistribution(CPU)
    axes = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, 3.0], [-2.0, 1.0, 0.5]]), dim=1)
    near = ((views.directions @ axes.T) > np.cos(np.radians(20))).any(1)
    views.density.copy_(torch.where(near, 0.8 / near.sum(), 0.2 / (~near).sum()) * len(near))
    return particles_of_a_map(views, MAX_SHIFT / 2)


def hollow(truth: Tensor) -> Tensor:
    """A shell that is nearly round, with the group T: blobs on it."""
    radius = torch.from_numpy(centred_radius(BOX, axes=3)).float()
    shell = torch.exp(-((radius - 9.0) ** 2) / 8)
    bumps = torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    k = torch.from_numpy(np.fft.fftfreq(BOX, 1 / BOX)).float()
    frequency = (k[:, None, None] ** 2 + k[:, None] ** 2 + k[: BOX // 2 + 1].abs() ** 2).sqrt()
    smooth = torch.fft.irfftn(torch.fft.rfftn(bumps) * (frequency < 12), s=truth.shape)
    return Symmetriser("T", BOX, device=CPU, dtype=torch.float32)(shell * (1 + 6 * smooth / smooth.abs().max()))


@pytest.fixture(scope="session")
def varying() -> Experiment:
    """Of a hollow molecule with the group T; their contrast varies by a fifth."""
    made = particles_of_a_map(None, 6.0, hollow)
    contrast = 1 + 0.2 * torch.randn(len(made.images), generator=torch.Generator().manual_seed(5))
    simulator = Experiment.simulator(len(made.images), 7)
    clean = simulator.clean(simulator.projector.transform(made.truth), made.phi)
    return replace(made, images=(made.images + (contrast[:, None, None] - 1) * clean).detach())
