"""The particles of one half of a finished run, to be matched with maps."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryogan.critics.matching.templates import Templates, measured_noise_power
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.critics.micro_batch import MicroBatch
from cryogan.fourier import Disc, to_half_planes
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.volume import Volume
from cryogan.run.build import build_mask, build_simulator
from cryogan.run.plan import Plan


class HalfSet:
    """The particles of one half, and what is needed to compare them with maps.

    Args:
        plan: Plan of the run.
        particles: STAR file of the particles in the run's folder.
        half: 1 or 2.
        at_most: Largest number of particles, which are then spread evenly over the half.

    Attributes:
        rows: Rows (N,) of the half's particles that take part.
    """

    def __init__(self, plan: Plan, particles: Path, half: int, at_most: int | None = None) -> None:
        s = plan.settings
        seed = int(np.random.SeedSequence([s.seed, half]).generate_state(1)[0])  # nothing random is shared
        self.images, self.simulator = build_simulator(plan, plan.box, particles, half, seed)
        self.rows = torch.from_numpy(self.images.spread(len(self.images) if at_most is None else at_most))
        self.generator, self.projector = self.simulator.generator, self.simulator.projector
        self.template_count, self.width_A = s.orientations, plan.box * plan.pixel_size
        self.noise_power = measured_noise_power(self.simulator)
        radius, mask = plan.mask_radius / plan.pixel_size, build_mask(plan, plan.box)
        self.volume = Volume(plan.box, radius, s.symmetry, plan.device, mask=mask)
        self.group = torch.from_numpy(self.volume.point_group).float().to(plan.device)
        self.back = BackProjector(self.projector, self.volume)
        self.micro_batch = MicroBatch(IMAGES_AT_ONCE)

    def __len__(self) -> int:
        return len(self.rows)

    def templates(self, spectrum: Tensor, disc: Disc) -> Templates:
        """Return the templates of a map, given its transform, on a disc of coefficients."""
        return Templates(self.projector, spectrum, disc, self.noise_power, self.width_A)

    def disc(self, cutoff: float) -> Disc:
        """Return the coefficients below a cut-off (a shell)."""
        return Disc(self.projector.box, cutoff, device=self.generator.device)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield half-planes and CTFs (B, D, D // 2 + 1) of all particles in their order."""
        device = self.generator.device
        for rows in torch.split(self.rows, IMAGES_AT_ONCE):
            images = torch.from_numpy(self.images.batch(rows.numpy())).to(device)
            yield to_half_planes(images), self.simulator.transfer(rows.to(device))
