"""The particles of one half of a finished run, to be matched with maps."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.critics.matching.schedule import bank_share, bank_shell
from cryogan.critics.matching.templates import (
    SHIFT_SPACING,
    TemplateBank,
    Templates,
    measured_noise_power,
    shift_grid,
)
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.critics.micro_batch import MicroBatch
from cryogan.fourier import Disc, to_half_planes
from cryogan.particles.choosing import Part, rows_of_part
from cryogan.particles.images import evenly_spread
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.simulator import Imaging
from cryogan.physics.volume import Volume
from cryogan.rotations import spread_rotations
from cryogan.run.build import build_mask, build_simulator, read_half
from cryogan.run.plan import Plan


class HalfSet:
    """The particles of one half, and what is needed to compare them with maps.

    Args:
        plan: Plan of the run.
        particles: STAR file of the particles in the run's folder.
        half: 1 or 2.
        at_most: Largest number of particles, which are then spread evenly over the half.
        part: The particles kept for choosing between runs, or the others, of which a run is judged; None: all.

    Attributes:
        images: The particles that take part, N of them.
        rows: Rows (N,) of these images.
    """

    def __init__(
        self, plan: Plan, particles: Path, half: int, at_most: int | None = None, part: Part | None = None
    ) -> None:
        s = plan.settings
        seed = int(np.random.SeedSequence([s.seed, half]).generate_state(1)[0])  # nothing random is shared
        table = read_half(plan, particles, half).table
        rows = np.arange(len(table)) if part is None else rows_of_part(table, part, plan.particle_count)
        rows = rows if at_most is None else rows[evenly_spread(len(rows), at_most)]
        self.images, self.simulator = build_simulator(plan, plan.box, particles, half, seed, rows)
        self.rows = torch.arange(len(rows))
        self.generator, self.projector = self.simulator.generator, self.simulator.projector
        self.bank_shell, self.width_A = bank_shell(s), plan.box * plan.pixel_size
        self.template_count = round(s.orientations * bank_share(s))
        self.noise_power = measured_noise_power(self.simulator)
        radius, mask = plan.mask_radius / plan.pixel_size, build_mask(plan, plan.box)
        self.volume = Volume(plan.box, radius, s.symmetry, plan.device, mask=mask)
        self.group = torch.from_numpy(self.volume.point_group).float().to(plan.device)
        self.back = BackProjector(self.projector, self.volume)
        self.micro_batch = MicroBatch(IMAGES_AT_ONCE)
        self._simulated: Tensor | None = None  # images (N, D, D) in the place of the particles

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """Names of the particles' images, in their order."""
        return self.images.table.select(self.rows.numpy()).image_names()

    def filtered(self, density: Tensor, weight: NDArray[np.float64]) -> Tensor:
        """Return a map (D, D, D) with each shell times its weight, (D // 2 + 1,), cut to 0 to 1, such as an FSC."""
        by_shell = torch.from_numpy(weight.clip(0.0, 1.0)).to(density)[self.back.shell.clamp(max=len(weight) - 1)]
        filtered: Tensor = torch.fft.irfftn(torch.fft.rfftn(density) * by_shell, s=density.shape)
        return filtered

    def subset(self, rows: Tensor) -> "HalfSet":
        """Return the half with only the particles in these rows (n,), in this order."""
        part = copy(self)
        part.rows = self.rows[rows]
        return part

    def templates(self, spectrum: Tensor, disc: Disc) -> Templates:
        """Return the templates of a map, given its transform, on a disc of coefficients."""
        return Templates(self.projector, spectrum, disc, self.noise_power, self.width_A)

    def bank(self, templates: Templates) -> TemplateBank:
        """Return the bank of templates at views spread evenly, up to the point group, and at shifts within reach."""
        count = max(1, self.template_count // len(self.group))
        rotations = spread_rotations(count, self.volume.point_group, self.generator)
        spacing = SHIFT_SPACING * self.width_A
        return templates.bank(rotations, shift_grid(self.simulator.max_shift, spacing, self.generator.device))

    def disc(self, cutoff: float) -> Disc:
        """Return the coefficients below a cut-off (a shell)."""
        return Disc(self.projector.box, cutoff, device=self.generator.device)

    def twins(self, density: Tensor, rotations: Tensor, shifts: Tensor, at_most: int) -> tuple["HalfSet", Tensor]:
        """Return images like these particles that are simulated from a map, with other background, and their rotations.

        Args:
            density: Map (D, D, D).
            rotations: Of all particles, (N, 3, 3).
            shifts: Of all particles, (N, 2), A.
            at_most: Largest number of images, spread evenly over the particles.
        """
        chosen = torch.arange(0, len(self), -(-len(self) // at_most), device=self.rows.device)
        twins = copy(self)
        twins.rows = self.rows[chosen]
        phi = Imaging(rotations[chosen], shifts[chosen], twins.rows)
        twins._simulated = self.simulator(self.projector.transform(density), phi)
        return twins, rotations[chosen]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield half-planes and CTFs (B, D, D // 2 + 1) of all particles in their order."""
        device = self.generator.device
        for i, rows in enumerate(torch.split(self.rows, IMAGES_AT_ONCE)):
            if self._simulated is None:
                images = torch.from_numpy(self.images.batch(rows.cpu().numpy())).to(device)
            else:
                images = self._simulated[i * IMAGES_AT_ONCE :][: len(rows)]
            yield to_half_planes(images), self.simulator.transfer(rows.to(device))
