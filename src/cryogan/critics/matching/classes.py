"""Several classes: their weights, and the division of a class into two (docs/roadmap/classes.md)."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.critics.matching.best_poses import BestPoses, PoseMatcher
from cryogan.critics.matching.critic import optimal_critic
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE, MatchingTrainer
from cryogan.fourier import Disc
from cryogan.physics.volume import Volume

POWER_ITERATIONS = 8  # for the principal component of a class's images
LARGEST_STEP = 2.0  # factor on a class's weight in a step
LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class ClassImages:
    """The images of one stream, as one class explains them.

    Attributes:
        shares: Probabilities (B,) that the images show the class.
        residuals: r(y) of (vii), (B, K) complex: what the best poses leave of the images.
        rotations: Best rotations (B, 3, 3).
        total: Sum of the shares over all processes.
    """

    shares: Tensor
    residuals: Tensor
    rotations: Tensor
    total: Tensor


class ClassEvidence:
    """What the division of a class needs of the images of both streams, under all classes.

    Args:
        matcher: Matcher with the classes' maps.
        weights: Weights (K,) of the classes.
    """

    def __init__(self, matcher: PoseMatcher, weights: Tensor) -> None:
        self._templates, self._log_weights = matcher.fine, weights.log()
        self.disc = matcher.fine[0].disc
        count, size = len(weights), len(self.disc)
        self.power = weights.new_zeros(size)
        # Of both streams, for each class: the images, and minus the logarithm of their likelihood, nats.
        self.totals = weights.new_zeros(2, 2, count)
        # An image without weight: a process may have no batch.
        nothing = (
            weights.new_zeros(1, count),
            weights.new_zeros(1, count, size, dtype=torch.complex64),
            weights.new_zeros(1, count, 3, 3),
        )
        self._seen = [[nothing], [nothing]]

    def add(self, stream: int, found: BestPoses, batches: int) -> None:
        """Add a batch: `stream` is 0 for real images, 1 for simulated ones, `batches` the number of all."""
        images, ratios = found.images, found.log_likelihood_ratios
        shares = torch.softmax(self._log_weights + ratios, dim=1) * found.p_particle
        energy = (images.coefficients.abs().square() * self._templates[0].precision).sum(1, keepdim=True) / 2
        self.totals[stream] += torch.stack([shares, shares * (energy - ratios)]).sum(1)
        residuals = [
            templates.matched_residual(images, found.rotations[:, k], found.shifts[:, k])
            for k, templates in enumerate(self._templates)
        ]
        self._seen[stream].append((shares, torch.stack(residuals, dim=1), found.rotations))
        self.power += images.transfer.square().mean(0) / batches

    def least_explained(self) -> int:
        """Return the class whose real images are explained least, beside images simulated from it."""
        counts, nats = self._counts, self.totals[:, 1]
        of_real, of_simulated = nats / counts
        return int((counts[0] * (of_real - of_simulated)).argmax())

    def of_class(self, index: int) -> tuple[ClassImages, ClassImages]:
        """Return the real and the simulated images, as one class explains them."""
        of_streams = []
        for batches, total in zip(self._seen, self._counts[:, index], strict=True):
            shares, residuals, rotations = (torch.cat(parts)[:, index] for parts in zip(*batches, strict=True))
            of_streams.append(ClassImages(shares, residuals, rotations, total))
        real, simulated = of_streams
        return real, simulated

    @property
    def _counts(self) -> Tensor:
        return self.totals[:, 0].clamp(min=1.0)


def divide_class(
    trainer: MatchingTrainer, evidence: ClassEvidence, matcher: PoseMatcher, classes: list[Volume], weights: Tensor
) -> tuple[list[Volume], Tensor]:
    """Divide the class that explains its images least: its map x becomes x + u and x - u, u from equation (vii).

    Args:
        trainer: Trainer of the maps.
        evidence: Images of both streams, summed over all processes.
        matcher: Matcher that found their best poses.
        classes: Maps of the K classes.
        weights: Weights (K,) of the classes.

    Returns:
        K + 1 maps and their weights.
    """
    index = evidence.least_explained()
    normal = trainer.normal_diagonal(matcher.fine[0], evidence.power, 1.0)
    component = principal_component(trainer, evidence.disc, evidence.of_class(index), normal)
    divided, weight = classes[index], weights[index] / 2
    classes = [*classes, deepcopy(divided)]
    classes[index] = deepcopy(divided)
    for k, sign in ((index, 1.0), (-1, -1.0)):
        classes[k].start_from(divided.density + sign * component)
    weights = torch.cat([weights, weight[None]])
    weights[index] = weight
    return classes, weights


def principal_component(
    trainer: MatchingTrainer, disc: Disc, streams: tuple[ClassImages, ClassImages], normal: Tensor
) -> Tensor:
    """Find u of equation (vii) of docs/roadmap/classes.md: how a class's real images vary about its map.

    Power iteration: each pass regresses what the best poses leave of the images on their scores, which say how far
    along u they lie, u <- H^-1 [ E c P_g* r (real) - E c P_g* r (simulated) ] / sd of c(real), a critic as (iii).

    Args:
        trainer: Trainer of the maps.
        disc: Coefficients of the images.
        streams: Real and simulated images.
        normal: H, for one image.

    Returns:
        u, (D, D, D); its length is the standard deviation along it.
    """
    transform, device = trainer.simulator.projector.transform, trainer.device
    component = torch.randn(trainer.volume.density.shape, generator=trainer.simulator.generator, device=device)
    for _ in range(POWER_ITERATIONS):
        spectrum = transform(component)
        templates, covariance = trainer.templates(spectrum, disc), trainer.difference(disc, spectrum)
        variance = normal.new_zeros(())
        for sign, images in zip((1.0, -1.0), streams, strict=True):
            projections = torch.cat(
                [templates.projections(part) for part in torch.split(images.rotations, IMAGES_AT_ONCE)]
            )
            scores = (images.residuals.conj() * projections).real.sum(1)
            mean = (images.shares * scores).sum() / images.total
            trainer.ranks.sum(mean)
            scores = scores - mean
            covariance.add(images.rotations, (sign * images.shares / images.total * scores)[:, None] * images.residuals)
            if sign > 0:
                variance = (images.shares * scores.square()).sum() / images.total
        w = optimal_critic(covariance.total(trainer.ranks), normal)
        trainer.ranks.sum(variance)
        component = trainer.band_limited(w, disc.last_shell) / variance.sqrt().clamp(min=1e-12)
    return component


def updated_weights(weights: Tensor, real: Tensor, simulated: Tensor) -> Tensor:
    """Update the weights (K,) of the classes: equation (vi) of docs/roadmap/classes.md, a step of Richardson and Lucy.

    Args:
        weights: Weights of the classes.
        real: Mean share (K,) of the real images that show each class.
        simulated: Mean share (K,) of the simulated images that show each class.
    """
    ratio = (real / simulated).clamp(1 / LARGEST_STEP, LARGEST_STEP)
    weights = (weights * ratio).clamp(min=LEAST_WEIGHT)
    return weights / weights.sum()
