"""Templates: projections of the current map, and the likelihood of images under them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan.critics.matching import likely_poses
from cryogan.fourier import Disc, radial_power
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator

SHIFT_SPACING = 1 / 32  # of the box, between the in-plane shifts of a search
NOISE_IMAGES = 1000  # from which the power of the noise is measured
SMALLEST_LOGIT = -60.0  # relative to the largest
CACHED_NUMBERS = 2**18
_ROTATIONS_AT_ONCE = 512


@dataclass(frozen=True)
class Observed:
    """B images in Fourier space, on a disc of K coefficients.

    Attributes:
        coefficients: y, (B, K) complex.
        transfer: CTF C, (B, K).
    """

    coefficients: Tensor
    transfer: Tensor

    @classmethod
    def on(cls, disc: Disc, half_planes: Tensor, transfer: Tensor) -> "Observed":
        """Take the coefficients of a disc from half-planes and CTFs (B, D, D // 2 + 1)."""
        return cls(disc.take(half_planes), disc.take(transfer))

    def __len__(self) -> int:
        return len(self.coefficients)

    def split(self, size: int) -> list["Observed"]:
        """Split into parts of `size` images."""
        parts = zip(torch.split(self.coefficients, size), torch.split(self.transfer, size), strict=True)
        return [Observed(*part) for part in parts]

    def repeat(self, count: int) -> "Observed":
        """Repeat each image `count` times, one after the other."""
        return Observed(*(values.repeat_interleave(count, 0) for values in (self.coefficients, self.transfer)))


class Templates:
    """Projections of a map, and how likely images are under them.

    The log-likelihood ratio of an image y and a pose g = (rotation, shift) of the map x is
    l_g(y) = Re <C S P x, y> - |C S P x|^2 / 2 with the noise whitened, in nats: of "y shows x at the pose g" over
    "y is noise". It is (ii) of docs/method.md.

    Args:
        projector: P.
        spectrum: Transform of x, from `projector.transform`.
        disc: Coefficients that take part, K of them.
        noise_power: Power of the images' noise in each shell, (D // 2 + 1,), as `radial_power` returns it.
        width_A: Width of the box, A.
        rounded: Whether banks of them may compute as in `rounded_products`.
    """

    def __init__(
        self,
        projector: FourierProjector,
        spectrum: Tensor,
        disc: Disc,
        noise_power: Tensor,
        width_A: float,
        *,
        rounded: bool = False,
    ) -> None:
        self.rounded = rounded
        self.projector, self.disc, self.width_A, self.spectrum = projector, disc, width_A, spectrum
        self.precision = precision(noise_power.float(), disc, projector.box)

    def projections(self, rotations: Tensor) -> Tensor:
        """Return P x, (B, K) complex, for rotations (B, 3, 3)."""
        return self.projector.samples(self.spectrum, rotations, self.disc.frequencies)

    def shift_phase(self, shifts: Tensor) -> Tensor:
        """Return S, (B, K) complex, for shifts (B, 2) in A; see `cryogan.physics.shifts.shift`."""
        angle = 2.0 * torch.pi / self.width_A * (shifts @ self.disc.frequencies)
        return torch.complex(angle.cos(), angle.sin())

    def matched(self, images: Observed, shifts: Tensor) -> Tensor:
        """Return the matched filter S* C y of images at shifts (B, 2) in A, whitened, (B, K): it is back-projected."""
        return images.coefficients * self.shift_phase(shifts).conj() * images.transfer * self.precision

    def matched_residual(self, images: Observed, rotations: Tensor, shifts: Tensor) -> Tensor:
        """Return S* C (y - C S P x), whitened, (B, K), at poses (B, 3, 3) and (B, 2) in A."""
        expected = images.transfer.square() * self.precision * self.projections(rotations)
        return self.matched(images, shifts) - expected

    def residual(self, images: Observed, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compare each image with the projection at its pose.

        Returns:
            C P x and S* y - C P x, both (B, K) complex and whitened, and the log-likelihood ratio (B,), nats.
        """
        root = self.precision.sqrt()
        model = root * images.transfer * self.projections(rotations)
        residual = images.coefficients * self.shift_phase(shifts).conj() * root - model
        return model, residual, (model.conj() * (residual + model / 2)).real.sum(1)

    def bank(self, rotations: Tensor, shifts: Tensor, prior: float = 1.0) -> "TemplateBank":
        """Return the templates of all pairs of M rotations (M, 3, 3) and L shifts (L, 2) in A.

        Args:
            rotations: Rotations of the templates.
            shifts: Shifts of the templates.
            prior: Probability that an image shows a particle at one of these shifts.
        """
        projections = torch.cat([self.projections(part) for part in torch.split(rotations, _ROTATIONS_AT_ONCE)])
        return TemplateBank(self, projections, rotations, shifts, prior)


class TemplateBank:
    """The templates of M rotations at L shifts; log-likelihood ratios are matrix products.

    Args:
        templates: Templates of the map.
        projections: P x, (M, K) complex, at the rotations.
        rotations: Rotations (M, 3, 3).
        shifts: Shifts (L, 2), A.
        prior: Probability that an image shows a particle at one of these shifts.
    """

    def __init__(
        self, templates: Templates, projections: Tensor, rotations: Tensor, shifts: Tensor, prior: float
    ) -> None:
        self._templates, self.rotations, self.shifts, self._prior = templates, rotations, shifts, prior
        self.disc, self.precision, self.projections = templates.disc, templates.precision, projections
        self.rounded = templates.rounded
        self._projections = torch.view_as_real(projections).flatten(1)  # (M, 2 K)
        self._power = projections.abs().square()  # (M, K)

    def log_likelihood_ratios(self, images: Observed) -> tuple[Tensor, Tensor]:
        """Return l, (B, L, M) in nats, and the matched filter S* C y of the images at every shift, (B, L, 2 K)."""
        energy = (images.transfer.square() * self._templates.precision) @ self._power.T / 2
        weighted = images.coefficients * (images.transfer * self._templates.precision)
        shifted = weighted[:, None] * self._templates.shift_phase(self.shifts).conj()
        matched = torch.view_as_real(shifted).flatten(2)
        with rounded_products(self.rounded):
            products = matched.flatten(0, 1) @ self._projections.T
        return products.view(*matched.shape[:2], -1).sub_(energy[:, None]), matched

    def from_shell(self, shell: int) -> "TemplateBank":
        """Return the templates without what lies below a shell."""
        seen = self.projections * (self.disc.shell >= shell)
        return TemplateBank(self._templates, seen, self.rotations, self.shifts, self._prior)

    def p_particle(self, logits: Tensor) -> Tensor:
        """Return the posterior probability (B, 1) that an image shows a particle.

        Args:
            logits: Log-likelihood ratios (B, M L) of all templates.
        """
        if self._prior == 1:
            return logits.new_ones(len(logits), 1)
        return torch.sigmoid(torch.logsumexp(logits, dim=1, keepdim=True) + self._log_odds)

    @property
    def _log_odds(self) -> float:
        """Logarithm of the odds that an image shows a particle at one template's pose, over that it shows none."""
        if self._prior == 1:
            return math.inf
        return math.log(self._prior / (1 - self._prior) / (len(self.rotations) * len(self.shifts)))

    def attend(self, images: Observed, inverse_temperature: float, size: int) -> tuple[Tensor, Tensor]:
        """Weight the images with the attention (ii) over all templates.

        Args:
            images: Images.
            inverse_temperature: Factor on the log-likelihood ratios in the softmax.
            size: Number of images that are processed at once.

        Returns:
            For each rotation, the sum over images and shifts of p_particle a_g S* C y, (M, K) complex, and the
            attended log-likelihood ratio of each image, (B,).
        """
        total, attended = torch.zeros_like(self._projections), []
        for part in images.split(size):
            ratios, matched = self.log_likelihood_ratios(part)
            limits = None if ratios.is_cuda else likely_poses.find_few(ratios, inverse_temperature)
            if limits is not None:
                of_part, scores = likely_poses.attend(ratios, matched, limits, inverse_temperature, self._log_odds)
                total += of_part
                attended.append(scores)
                continue
            attention = ratios.flatten(1)
            for image in rows_in_cache(attention):
                logits = inverse_temperature * attention[image]
                p_particle = self.p_particle(logits)
                weights = softmax(logits)
                attended.append(p_particle[:, 0] * torch.linalg.vecdot(weights, attention[image]))
                attention[image] = weights
                matched[image] *= p_particle[:, :, None]
            with rounded_products(self.rounded):
                total += ratios.flatten(0, 1).T @ matched.flatten(0, 1)
        return torch.view_as_complex(total.view(len(total), -1, 2)), torch.cat(attended)

    def best(self, images: Observed) -> tuple[Tensor, Tensor, Tensor]:
        """Return each image's most likely template: rotation (B, 3, 3), shift (B, 2), and `p_particle` (B, 1)."""
        ratios = self.log_likelihood_ratios(images)[0].flatten(1)
        index = ratios.argmax(1)
        rotations, shifts = self.rotations[index % len(self.rotations)], self.shifts[index // len(self.rotations)]
        return rotations, shifts, self.p_particle(ratios)


def softmax(logits: Tensor) -> Tensor:
    """Return the softmax (B, N) of logits (B, N), which are changed; weights below e^-60 of the largest stay there.

    On a CPU, products with numbers too small for the normal range take eight times as long.
    """
    logits -= logits.amax(1, keepdim=True)
    return torch.softmax(logits.clamp_(min=SMALLEST_LOGIT), 1)


@contextmanager
def rounded_products(allowed: bool) -> Iterator[None]:
    """Round the factors of matrix products to 8 bits (CPUs) or 11 (CUDA), where the hardware has it; sums are exact.

    A coefficient with noise of s.d. 1 gets an error of 0.2 % of its size, and the products take a third of the time. It
    is a setting of the process: not for code that runs in several threads.
    """
    if not allowed:
        yield
        return
    backends: dict[Any, str] = {torch.backends.mkldnn.matmul: "bf16", torch.backends.cuda.matmul: "tf32"}  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend, rounded in backends.items():
            backend.fp32_precision = rounded
        yield
    finally:
        for backend, exact in zip(backends, before, strict=True):
            backend.fp32_precision = exact


def rows_in_cache(values: Tensor) -> list[slice]:
    """Divide the rows of a matrix into parts that stay in a core's cache from one operation to the next."""
    rows = len(values) if values.is_cuda else max(1, CACHED_NUMBERS // values.shape[1])
    return [slice(start, start + rows) for start in range(0, len(values), rows)]


def precision(noise_power: Tensor, disc: Disc, box: int) -> Tensor:
    """Return the inverse variance of the noise in each coefficient of a disc, (K,).

    Half of the Fourier plane stands for all of it: each coefficient counts twice.
    """
    return 2.0 / (noise_power[disc.shell] * box**2)


def measured_noise_power(simulator: Simulator) -> Tensor:
    """Return the power of the simulator's noise in each shell, (D // 2 + 1,)."""
    rows = simulator.sample(NOISE_IMAGES).particles
    return radial_power(simulator.noise.sample(rows, simulator.generator))


def angular_spacing(count: int, order: int) -> float:
    """Return the spacing, radians, of `count` rotations that cover SO(3) up to a point group of this order."""
    return float((8 * torch.pi**2 / (count * order)) ** (1 / 3))


def shift_grid(max_shift: float, spacing: float, device: torch.device) -> Tensor:
    """Return in-plane shifts (L, 2) in A: a square grid about 0, in a circle half a step larger than `max_shift`."""
    steps = np.arange(-np.ceil(max_shift / spacing), np.ceil(max_shift / spacing) + 1) * spacing
    x, y = np.meshgrid(steps, steps)
    inside = np.hypot(x, y) <= max_shift + (spacing / 2 if max_shift > 0 else 0)
    return torch.from_numpy(np.stack([x[inside], y[inside]], axis=1)).float().to(device)
