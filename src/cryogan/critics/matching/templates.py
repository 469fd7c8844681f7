"""Views of the current map: the features of the view critic."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryogan.fourier import Disc
from cryogan.physics.projector import FourierProjector
from cryogan.rotations import small_rotations

NEWTON_STEP = 0.5  # voxels of the padded spectrum by which the outermost coefficient moves in a finite difference
DAMPING = 0.05


@dataclass(frozen=True)
class Observed:
    """B images in Fourier space, on a disc of K coefficients."""

    coefficients: Tensor  # y, (B, K) complex
    transfer: Tensor  # C, (B, K)

    def __len__(self) -> int:
        return len(self.coefficients)

    def split(self, size: int) -> list["Observed"]:
        parts = zip(torch.split(self.coefficients, size), torch.split(self.transfer, size), strict=True)
        return [Observed(*part) for part in parts]


class Views:
    """Projections of a volume, and how well images agree with them.

    The agreement of an image y with the view g = (rotation, shift) of the volume x is
    l_g(y) = Re <C S P x, y> - |C S P x|^2 / 2 with the noise whitened: the log-likelihood ratio, in nats,
    of "y shows x from g" over "y is noise".

    Args:
        projector: P.
        spectrum: of x, from `projector.transform`.
        disc: the coefficients that take part.
        noise_power: (D // 2 + 1,), of the images' noise, as `radial_power` gives it.
        width_A: of the box, A.
    """

    def __init__(
        self, projector: FourierProjector, spectrum: Tensor, disc: Disc, noise_power: Tensor, width_A: float
    ) -> None:
        self._projector, self._spectrum, self.disc, self._width = projector, spectrum, disc, width_A
        # Half of the plane stands for all of it: each coefficient counts twice.
        self.precision = 2.0 / (noise_power.float()[disc.shell] * projector.box**2)

    def samples(self, rotations: Tensor) -> Tensor:
        """P x, (B, K) complex."""
        return self._projector.samples(self._spectrum, rotations, self.disc.frequencies)

    def phase(self, shifts: Tensor) -> Tensor:
        """S, (B, K), of shifts (B, 2) in A; see `cryogan.physics.shifts.shift`."""
        angle = 2.0 * torch.pi / self._width * (shifts @ self.disc.frequencies)
        return torch.complex(angle.cos(), angle.sin())

    def matched(self, images: Observed, shifts: Tensor) -> Tensor:
        """What is back-projected of images: S* C y, whitened, (B, K)."""
        return images.coefficients * self.phase(shifts).conj() * images.transfer * self.precision

    def residual(self, images: Observed, rotations: Tensor, shifts: Tensor) -> Tensor:
        """The same of what the views (B, 3, 3) and (B, 2) leave of the images: S* C (y - C S P x), whitened, (B, K)."""
        expected = images.transfer.square() * self.precision * self.samples(rotations)
        return self.matched(images, shifts) - expected

    def bank(self, rotations: Tensor, shifts: Tensor, shown: float = 1.0) -> "Bank":
        """The views of all pairs of M rotations and L shifts, in images of which this share shows a particle."""
        samples = torch.cat([self.samples(part) for part in torch.split(rotations, 512)])
        return Bank(self, samples, rotations, shifts, shown)

    def climb(
        self, images: Observed, rotations: Tensor, shifts: Tensor, *, steps: int, largest: float, max_shift: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Climb from each image's view to the nearest maximum of its agreement, by Gauss-Newton.

        Args:
            images: B.
            rotations, shifts: (B, 3, 3) and (B, 2) in A, where to start.
            steps: at most so many; the best view on the way is returned.
            largest: radians, by which a step may turn.
            max_shift: A, bound of each shift.

        Returns:
            Rotations, shifts, agreement (B,) in nats.
        """
        best = (rotations, shifts, rotations.new_full((len(images),), -torch.inf))
        for step in range(steps + 1):
            model, residual, agreement = self._compare(images, rotations, shifts)
            better = agreement > best[2]
            best = (
                torch.where(better[:, None, None], rotations, best[0]),
                torch.where(better[:, None], shifts, best[1]),
                torch.where(better, agreement, best[2]),
            )
            if step == steps:
                break
            jacobian, hessian = self._curvature(images, rotations, model, with_shifts=max_shift > 0)
            gradient = jacobian @ torch.view_as_real(residual).flatten(1)[:, :, None]
            move = torch.linalg.solve_ex(hessian, gradient)[0][:, :, 0]  # `solve` asks a GPU whether it worked
            turn = move[:, :3] * (largest / move[:, :3].norm(dim=1, keepdim=True).clamp(min=largest))
            rotations = rotations @ small_rotations(turn)
            if max_shift > 0:
                pixel = self._width / self._projector.box
                shifts = (shifts + move[:, 3:].clamp(-pixel, pixel)).clamp(-max_shift, max_shift)
        return best

    def draw(
        self,
        images: Observed,
        rotations: Tensor,
        shifts: Tensor,
        count: int,
        generator: torch.Generator,
        *,
        with_shifts: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Views from each image's posterior about its best view.

        They are drawn from the Gaussian that the agreement's curvature gives, and weighted by the agreement over it.

        Args:
            images: B.
            rotations, shifts: (B, 3, 3) and (B, 2) in A, the best views.
            count: of draws for each image, L.
            generator: draws.
            with_shifts: otherwise these are certain.

        Returns:
            Rotations (B, L, 3, 3), shifts (B, L, 2), and weights (B, L), whose sum is 1 for each image.
        """
        model, _, _ = self._compare(images, rotations, shifts)
        _, hessian = self._curvature(images, rotations, model, with_shifts=with_shifts)
        width = torch.linalg.cholesky(torch.linalg.inv(hessian))
        size = len(images), count, width.shape[-1]
        normal = torch.randn(size, generator=generator, device=rotations.device)
        moves = normal @ width.mT
        turned = rotations[:, None] @ small_rotations(moves[..., :3].flatten(0, 1)).view(*size[:2], 3, 3)
        moved = shifts[:, None] + moves[..., 3:] if with_shifts else shifts[:, None].expand(-1, count, -1)
        repeated = Observed(*(each.repeat_interleave(count, 0) for each in (images.coefficients, images.transfer)))
        _, _, agreement = self._compare(repeated, turned.flatten(0, 1), moved.flatten(0, 1))
        return turned, moved, torch.softmax(agreement.view(size[:2]) + normal.square().sum(2) / 2, 1)

    def _compare(self, images: Observed, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a view of each image: the whitened C P x, what y has beyond it, (B, K) complex, and the agreement (B,)."""
        root = self.precision.sqrt()
        model = root * images.transfer * self.samples(rotations)
        residual = images.coefficients * self.phase(shifts).conj() * root - model
        return model, residual, (model.conj() * (residual + model / 2)).real.sum(1)

    def _curvature(
        self, images: Observed, rotations: Tensor, model: Tensor, *, with_shifts: bool
    ) -> tuple[Tensor, Tensor]:
        """Slopes (B, M, 2 K) of the model by turns (radians), and shifts (A) if M = 5; their products (B, M, M)."""
        delta = NEWTON_STEP * self._projector.box / self._projector.padded / self.disc.last_shell
        scale = self.precision.sqrt() * images.transfer
        turns = small_rotations(delta * torch.eye(3, device=rotations.device))
        slopes = [(scale * self.samples(rotations @ turn) - model) / delta for turn in turns]
        if with_shifts:
            slopes += [2j * torch.pi / self._width * k * model for k in self.disc.frequencies]
        jacobian = torch.view_as_real(torch.stack(slopes, 1)).flatten(2)
        hessian = jacobian @ jacobian.mT
        # Damped, and bounded from below where a view does not depend on a direction (an empty map, a ball).
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        return jacobian, hessian + torch.diag_embed(DAMPING * diagonal + 1e-3 * diagonal.amax(1, keepdim=True) + 1e-9)


class Bank:
    """M x L views of a volume; agreements by matrix products."""

    def __init__(self, views: Views, samples: Tensor, rotations: Tensor, shifts: Tensor, shown: float = 1.0) -> None:
        self._views, self.rotations, self.shifts, self._shown = views, rotations, shifts, shown
        self._templates = torch.view_as_real(samples).flatten(1)  # (M, 2 K)
        self._power = samples.abs().square()  # (M, K)

    def agreements(self, images: Observed) -> tuple[Tensor, Tensor]:
        """l, (B, L, M), and S* C y of the images for every shift, (B, L, 2 K)."""
        size = (images.transfer.square() * self._views.precision) @ self._power.T / 2
        matched = torch.stack(
            [torch.view_as_real(self._views.matched(images, s[None])).flatten(1) for s in self.shifts], 1
        )
        return matched @ self._templates.T - size[:, None], matched

    def presence(self, logits: Tensor) -> Tensor:
        """The probability (B, 1) that an image shows a particle, of the likelihood ratios' logarithms (B, M L)."""
        if self._shown == 1:
            return logits.new_ones(len(logits), 1)
        odds = self._shown / (1 - self._shown) / logits.shape[1]
        return torch.sigmoid(torch.logsumexp(logits, dim=1, keepdim=True) + math.log(odds))

    def attend(self, images: Observed, sharpness: float, size: int) -> tuple[Tensor, Tensor]:
        """Softmax attention over all views, `size` images at a time.

        Returns:
            (M, K) complex: sum over images and shifts of a_g S* C y, with a = softmax(sharpness l), times the
            probability of a particle by the same measure; and the attended agreement of each image, (B,).
        """
        total, attended = torch.zeros_like(self._templates), []
        for part in images.split(size):
            agreements, matched = self.agreements(part)
            logits = sharpness * agreements.flatten(1)
            attention = torch.softmax(logits, dim=1).view_as(agreements)
            present = self.presence(logits)[:, :, None]
            total += attention.flatten(0, 1).T @ (present * matched).flatten(0, 1)
            attended.append(present[:, 0, 0] * (attention * agreements).sum((1, 2)))
        return torch.view_as_complex(total.view(len(total), -1, 2)), torch.cat(attended)

    def best(self, images: Observed) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations (B, 3, 3) and shifts (B, 2) of each image's best view, and its `presence` (B, 1)."""
        agreements = self.agreements(images)[0].flatten(1)
        index = agreements.argmax(1)
        rotations, shifts = self.rotations[index % len(self.rotations)], self.shifts[index // len(self.rotations)]
        return rotations, shifts, self.presence(agreements)


def shift_grid(max_shift: float, spacing: float, device: torch.device) -> Tensor:
    """Shifts (L, 2) in A on a square grid about 0, within a circle that reaches beyond max_shift by half a step."""
    steps = np.arange(-np.ceil(max_shift / spacing), np.ceil(max_shift / spacing) + 1) * spacing
    x, y = np.meshgrid(steps, steps)
    inside = np.hypot(x, y) <= max_shift + (spacing / 2 if max_shift > 0 else 0)
    return torch.from_numpy(np.stack([x[inside], y[inside]], axis=1)).float().to(device)
