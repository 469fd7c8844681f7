"""Frequency marching: from the search's map to the Nyquist frequency, in one class or several."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from cryogan.critics.critic import ClassMaps, TrainerInputs
from cryogan.critics.matching import schedule
from cryogan.critics.matching.best_poses import BestPoses, PoseMatcher
from cryogan.critics.matching.classes import LEAST_WEIGHT, ClassEvidence, divide_class, updated_weights
from cryogan.critics.matching.critic import optimal_critic
from cryogan.critics.matching.pose_distribution import update_pose_distribution
from cryogan.critics.matching.templates import SHIFT_SPACING, angular_spacing, shift_grid
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE, RECORDED, MatchingTrainer
from cryogan.fourier import Disc, to_half_planes
from cryogan.physics.backprojection import BackProjector


class FrequencyMarching(MatchingTrainer):
    """Large batches, an attention on each image's best pose, and a cut-off that rises from step to step.

    (iii) is computed from two halves of the images, and each shell of w is weighted by their correlation, (ix). A shell
    where the critic has nothing left to say, or nothing yet, stays as it is.

    Several classes come from the search's map by division: the class that explains its images least becomes two, which
    settle for `class_steps` steps at the first cut-off; then the next, until there are as many as are asked for.
    `volume` is their weighted mean.

    Args:
        inputs: Particles, simulator and stage.
    """

    def __init__(self, inputs: TrainerInputs) -> None:
        super().__init__(inputs, inputs.task.settings.symmetry, IMAGES_AT_ONCE)
        self.classes, self.weights = [self.volume], torch.ones(1, device=self.device)
        self.shifts = shift_grid(self.simulator.max_shift, SHIFT_SPACING * self.width_A, self.device)
        # Pairs, so that both halves have as many images.
        images = min(len(inputs.images), self.settings.marching_images)
        self.batches = 2 * max(1, round(images / (2 * IMAGES_AT_ONCE)))

    @property
    def cutoff(self) -> float:
        """Shell below which frequencies take part in the next step."""
        s = self.settings
        return schedule.marching_cutoff(self.step, self.box, schedule.held_steps(s), schedule.found_shell(s))

    @torch.no_grad()
    def update(self) -> tuple[Tensor, Tensor]:
        """Move the map of each class by its w, and update the weights and the distribution of poses."""
        cutoff = self.cutoff
        if schedule.divides(self.step, self.settings):
            self._divide(cutoff)
        matcher = self.matcher(cutoff)
        sums = self._gather(matcher)
        shares = sums.shares.mean((1, 2)).clamp(min=LEAST_WEIGHT)
        self._move(matcher, sums, shares, cutoff)
        self.weights = updated_weights(self.weights, *shares)
        densities = torch.stack([volume.density for volume in self.classes])
        self.volume.density.copy_(torch.tensordot(self.weights, densities, dims=1))
        if self.simulator.views is not None:
            self._update_poses(sums)
        real, simulated = sums.scores.flatten(1)
        self.distance = -real.mean()
        return real[:RECORDED], simulated[:RECORDED]

    def matcher(self, cutoff: float) -> PoseMatcher:
        """Return what finds the best poses of images under the current maps, by frequencies below a cut-off."""
        projector, order = self.simulator.projector, len(self.volume.point_group)
        bank_shell = schedule.bank_shell(self.settings)
        fine, coarse = (Disc(self.box, c, device=self.device) for c in (cutoff, min(bank_shell, cutoff)))
        spectra = [projector.transform(volume()) for volume in self.classes]
        coarse_templates = [self.templates(spectrum, coarse) for spectrum in spectra]
        rotations = self.template_rotations(schedule.bank_share(self.settings))
        return PoseMatcher(
            spectra,
            coarse_templates,
            [part.bank(rotations, self.shifts, self.simulator.prior_within_reach) for part in coarse_templates],
            [self.templates(spectrum, fine) for spectrum in spectra],
            angular_spacing(len(rotations), order),
            self.simulator.max_shift,
            self.simulator.whole_radius_A,
            self.micro_batch,
        )

    @torch.no_grad()
    def class_result(self) -> ClassMaps | None:
        """Return the classes of the particles; None where there is one map."""
        if len(self.classes) == 1:
            return None
        matcher, ratios = self.matcher(self.cutoff), []
        for images, rows in self.particles.once():
            found = matcher(to_half_planes(images), self.simulator.transfer(rows))
            ratios.append(found.log_likelihood_ratios)
        probabilities = torch.softmax(self.weights.log() + torch.cat(ratios), dim=1)
        return ClassMaps([volume() for volume in self.classes], self.weights, probabilities)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return super().state_dict() | {
            "classes": [volume.state_dict() for volume in self.classes],
            "weights": self.weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        super().load_state_dict(state)
        self.weights = state["weights"]
        if len(self.weights) > 1:
            self.classes = [deepcopy(self.volume) for _ in self.weights]
            for volume, saved in zip(self.classes, state["classes"], strict=True):
                volume.load_state_dict(saved)

    def _divide(self, cutoff: float) -> None:
        matcher = self.matcher(cutoff)
        evidence = ClassEvidence(matcher, self.weights)
        for _, stream, found in self._found(matcher):
            evidence.add(stream, found, 2 * self.batches)
        self.ranks.sum(evidence.totals, evidence.power)
        self.classes, self.weights = divide_class(self, evidence, matcher, self.classes, self.weights)

    def _found(self, matcher: PoseMatcher) -> Iterator[tuple[int, int, BestPoses]]:
        """Match this process's batches: yields the batch, 0 if it is real and 1 if simulated, and its best poses."""
        weights = self.weights if len(self.weights) > 1 else None
        for batch in range(self.batches):
            rows, phi = self.particles.rows(), self.simulator.sample(IMAGES_AT_ONCE)  # in all processes alike
            if batch % self.ranks.count != self.ranks.index:
                continue
            streams = self.real(rows, ahead=self.ranks.count), self.simulated(matcher.spectra, phi, weights)
            for stream, (half_planes, transfer) in enumerate(streams):
                yield batch, stream, matcher(half_planes, transfer)

    def _gather(self, matcher: PoseMatcher) -> "_Sums":
        """Sum what a step needs over the images of all processes."""
        sums = _Sums(self, matcher)
        for batch, stream, found in self._found(matcher):
            sums.add(batch, stream, found)
        self.ranks.sum(sums.power, sums.scores, sums.shares)
        return sums

    def _move(self, matcher: PoseMatcher, sums: "_Sums", shares: Tensor, cutoff: float) -> None:
        """Move the map of each class by w of (v), weighted by (ix)."""
        images = self.simulator.prior_whole * self.batches * IMAGES_AT_ONCE
        normal = self.normal_diagonal(matcher.fine[0], sums.power, images)
        real, simulated = shares
        differences = [[half.total(self.ranks) for half in halves] for halves in sums.differences]
        for k, (volume, halves) in enumerate(zip(self.classes, differences, strict=True)):
            # That a class is seen more often than it is simulated is for its weight to mend, not for its map.
            known = (simulated[k] - real[k]) / 2 * normal * torch.fft.rfftn(volume())
            first, second = (half + known for half in halves)
            # The stream that shows the class more often bounds the step: a class that real images leave stays small.
            share = torch.maximum(real, simulated)[k]
            w = optimal_critic((first + second) * fsc_weight(first, second, self.back), share * normal)
            volume.density.add_(self.band_limited(w, cutoff))

    def _update_poses(self, sums: "_Sums") -> None:
        self.ranks.sum(sums.rotations, sums.shifts)
        group = torch.from_numpy(self.volume.point_group).float().to(self.device, non_blocking=True)
        poses = sums.rotations.flatten(1, 2), sums.shifts.flatten(1, 2)
        learn, first = self.settings.learn_poses, self.step == 0
        update_pose_distribution(self.simulator, group, *poses, learn=learn, first=first)


class _Sums:
    """What a step of frequency marching needs of the images of both streams.

    What other processes find is zero here, until it is summed.

    Attributes:
        differences: B(real) - B(simulated) of (iii), for each class and each half of the images.
        power: Mean of C^2 of the simulated images, (K,).
        scores: Log-likelihood ratios (2, batches, B) of real and simulated images, averaged over the classes.
        shares: Probabilities (2, batches, B, classes) of the classes.
        rotations: Best rotations (2, batches, B, 3, 3).
        shifts: Best shifts (2, batches, B, 2), A.
    """

    def __init__(self, trainer: FrequencyMarching, matcher: PoseMatcher) -> None:
        self._templates, self._weights, self._batches = matcher.fine, trainer.weights, trainer.batches
        disc, device = matcher.fine[0].disc, trainer.device
        self.differences = [[trainer.difference(disc, spectrum) for _ in range(2)] for spectrum in matcher.spectra]
        self.power = torch.zeros(len(disc), device=device)
        self.scores = torch.zeros(2, trainer.batches, IMAGES_AT_ONCE, device=device)
        self.shares, self.rotations, self.shifts = (
            self.scores.new_zeros(*self.scores.shape, *shape) for shape in ((len(matcher.spectra),), (3, 3), (2,))
        )

    def add(self, batch: int, stream: int, found: BestPoses) -> None:
        """Add a batch: `stream` is 0 for real images, 1 for simulated ones."""
        images, ratios = found.images, found.log_likelihood_ratios
        share = torch.softmax(self._weights.log() + ratios, dim=1)
        for k, templates in enumerate(self._templates):
            attended = (share * found.p_particle)[:, k, None] * templates.matched(images, found.shifts[:, k])
            self.differences[k][batch % 2].add(found.rotations[:, k], -attended if stream else attended)
        self.scores[stream, batch], self.shares[stream, batch] = (share * ratios).sum(1), share
        best = torch.arange(len(images), device=share.device), share.argmax(1)
        self.rotations[stream, batch], self.shifts[stream, batch] = found.rotations[best], found.shifts[best]
        if stream:
            self.power += images.transfer.square().mean(0) / self._batches


def fsc_weight(first: Tensor, second: Tensor, back: BackProjector) -> Tensor:
    """Compute equation (ix) of docs/method.md: 2 r / (1 + r) in each shell, r the FSC of two halves of the images.

    It is the correlation that their sum has with what both estimate; 0 where r is negative.

    Args:
        first: Difference of the streams from the first half of the images, (D, D, D // 2 + 1).
        second: Difference from the second half.
        back: Back-projection, for the shells.

    Returns:
        Weights (D, D, D // 2 + 1), from 0 to 1.
    """
    shell = back.shell.flatten()

    def by_shell(values: Tensor) -> Tensor:
        sums = torch.zeros(back.shells, dtype=torch.float64, device=shell.device)
        return sums.index_add(0, shell, values.flatten().double())

    norm = (by_shell(first.abs().square()) * by_shell(second.abs().square())).sqrt()
    r = by_shell((first.conj() * second).real) / norm.clamp(min=1e-30)
    weight = (2 * r / (1 + r).clamp(min=1e-6)).clamp(0.0, 1.0).float()
    return weight[shell].view_as(back.shell)
