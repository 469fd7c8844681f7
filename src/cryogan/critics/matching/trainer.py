"""What the initial search and frequency marching share: images of both streams, templates, and equation (iii)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from cryogan.critics.critic import TrainerInputs
from cryogan.critics.matching.critic import StreamDifference, band_limited, normal_diagonal
from cryogan.critics.matching.templates import Templates, measured_noise_power
from cryogan.critics.trainer import IterativeTrainer
from cryogan.fourier import Disc, to_half_planes
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.simulator import Imaging
from cryogan.rotations import spread_rotations

IMAGES_AT_ONCE = 128
RECORDED = 1000  # images of each stream whose scores are ranked


class MatchingTrainer(IterativeTrainer):
    """Training of one half map at one stage with the matching critic, from a zero volume.

    `distance` is minus the mean log-likelihood ratio of the particles: their Kullback-Leibler distance from the
    simulated images, up to a constant.

    Args:
        inputs: Particles, simulator and stage.
        symmetry: Point group of the volume.
        batch_size: Number of images that are read at once.
    """

    def __init__(self, inputs: TrainerInputs, symmetry: str, batch_size: int) -> None:
        super().__init__(
            inputs.task.settings,
            inputs.stage.steps,
            inputs.images,
            inputs.simulator,
            inputs.volume(symmetry),
            signal=inputs.signal,
            batch_size=batch_size,
            images_at_once=min(batch_size, IMAGES_AT_ONCE),
            order_seed=inputs.order_seed,
            ranks=inputs.ranks,
        )
        self.box = self.simulator.projector.box
        self.width_A = self.box * self.simulator.pixel_size
        self.noise_power = measured_noise_power(self.simulator)
        self.back = BackProjector(self.simulator.projector, self.volume)

    def average_distance(self, log_likelihood_ratio: Tensor, memory: int) -> None:
        """Take this step's mean log-likelihood ratio into `distance`, which is averaged over `memory` steps."""
        self.distance = self.distance + (-log_likelihood_ratio - self.distance) / min(self.step + 1, memory)

    def templates(self, spectrum: Tensor, disc: Disc) -> Templates:
        """Return the templates of a map, given its transform, on a disc of coefficients."""
        return Templates(self.simulator.projector, spectrum, disc, self.noise_power, self.width_A, rounded=True)

    def template_rotations(self, share: float = 1.0) -> Tensor:
        """Return rotations (M, 3, 3), spread evenly: a share of the setting `orientations`, up to the point group."""
        count = max(1, round(share * self.settings.orientations / len(self.volume.point_group)))
        rotations = spread_rotations(count, self.volume.point_group, self.simulator.host_generator)
        return rotations.to(self.device, non_blocking=True)

    def real(self, rows: Tensor, part: slice = slice(None), ahead: int = 1) -> tuple[Tensor, Tensor]:
        """Return half-planes and CTFs (B, D, D // 2 + 1) of real images; arguments as of `Sampler.load`."""
        images, rows = self.particles.load(rows, part, ahead)
        return to_half_planes(images), self.simulator.transfer(rows)

    def simulated(
        self, spectra: Sequence[Tensor], phi: Imaging, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Simulate images.

        Args:
            spectra: Transforms of the classes' maps, K of them.
            phi: Imaging parameters of B images.
            weights: Shares (K,) of the images that show each class; None: there is one class.

        Returns:
            Half-planes and CTFs (B, D, D // 2 + 1).
        """
        shares = [1.0] if weights is None else weights.cumsum(0).tolist()
        parts = [slice(*ends) for ends in pairwise([0, *(round(len(phi) * share) for share in shares)])]
        images = [self.simulator(spectrum, phi[part]) for spectrum, part in zip(spectra, parts, strict=True)]
        return to_half_planes(torch.cat(images)), self.simulator.transfer(phi.particles)

    def difference(self, disc: Disc, spectrum: Tensor) -> StreamDifference:
        """Return an empty sum of B(real) - B(simulated) in (iii)."""
        return StreamDifference(self.back, disc, spectrum)

    def normal_diagonal(self, templates: Templates, power: Tensor, images: float) -> Tensor:
        """Return H of (iii), (D, D, D // 2 + 1), for the simulator's distribution of poses; see `normal_diagonal`."""
        return normal_diagonal(self.back, templates, power, images, self.simulator.views)

    def band_limited(self, spectrum: Tensor, cutoff: float) -> Tensor:
        """Return the map (D, D, D) of a spectrum below a cut-off; see `band_limited`."""
        return band_limited(spectrum, cutoff, self.back, self.volume)
