"""How much of the particles' signal a map shows, beyond the frequencies that found the poses."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.critics.matching.templates import Observed
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.fourier import Disc
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import Poses
from cryogan.run.held_out import HeldOutShells

GROUPS = 10  # of particles, for the error of their correlation with the map
# Of the power of the noise: that of background patches, and that of the particles' surroundings where there are none.
PATCH_NOISE_ERROR, SURROUNDINGS_NOISE_ERROR = 0.01, 0.1
SURE = 4.0  # standard deviations of the twins' correlation, and of the signal's power, to say anything of a shell
LEAST_FSC = 0.143  # of the half maps, that they are said to agree


@dataclass(frozen=True)
class SignalSums:
    """What the correlation of one half's particles with a map is made of, see `correlation_sums`.

    Attributes:
        real: Of the particles.
        twins: Of images simulated from the map.
        noise: Power of the particles' noise, (D // 2 + 1,).
    """

    real: Tensor
    twins: Tensor
    noise: Tensor


@torch.no_grad()
def correlation_sums(
    half: HalfSet, density: Tensor, poses: Poses, shown: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Return what the correlation of a map with the particles' signal is made of, (GROUPS, 3, D // 2 + 1).

    They are the sums over particles, in GROUPS groups, and over the coefficients of each shell, of Re <C S P x, y>,
    |C S P x|^2, and the power of the signal of y, whitened, after the radial average is removed from projection and
    image: any ball has that in common with any other.

    Args:
        half: Particles.
        density: Map (D, D, D).
        poses: Poses of the particles.
        shown: Map (D, D, D) and rotations (N, 3, 3) from which the images were simulated, so that their signal is
            known. None: the signal's power is |y|^2 less the noise's.
    """
    disc = half.disc(half.projector.box / 2)
    templates = half.templates(half.projector.transform(density), disc)
    root = templates.precision.sqrt()
    sums = root.new_zeros(GROUPS, 3, half.projector.box // 2 + 1)
    templates_shown, true = templates, poses.rotations
    if shown is not None:
        templates_shown, true = half.templates(half.projector.transform(shown[0]), disc), shown[1]
    parts = zip(*(torch.split(values, IMAGES_AT_ONCE) for values in (poses.rotations, poses.shifts, true)), strict=True)
    first = 0
    for batch, (rotations, shifts, right) in zip(half.batches(), parts, strict=True):
        images = Observed.on(disc, *batch)
        radial = root * images.transfer  # the direction, in each shell, of all that has no direction
        norm = by_shell(disc, radial.square()).clamp(min=1e-30)

        def without_radial_average(values: Tensor, radial: Tensor = radial, norm: Tensor = norm) -> Tensor:
            return values - radial * (by_shell(disc, radial * values.real) / norm)[:, disc.shell]

        model = without_radial_average(radial * templates.projections(rotations))
        observed = without_radial_average(root * images.coefficients * templates.shift_phase(shifts).conj())
        cross, energy = (by_shell(disc, v) for v in ((model.conj() * observed).real, model.abs().square()))
        if shown is None:
            signal = by_shell(disc, observed.abs().square()) - noise_by_shell(disc)
        else:
            clean = without_radial_average(radial * templates_shown.projections(right))
            signal = by_shell(disc, clean.abs().square())
        group = torch.arange(first, first + len(cross), device=cross.device) % GROUPS
        sums.index_add_(0, group, torch.stack([cross, energy, signal], 1))
        first += len(cross)
    return sums


def noise_by_shell(disc: Disc) -> Tensor:
    """Return the power of white noise in each shell of an image without its radial average, (D // 2 + 1,)."""
    return 2.0 * by_shell(disc, torch.ones_like(disc.frequencies[:1])).squeeze(0) - 1.0


def by_shell(disc: Disc, values: Tensor) -> Tensor:
    """Sum values (B, K) over the coefficients of each shell, (B, D // 2 + 1)."""
    return values.new_zeros(len(values), disc.box // 2 + 1).index_add(1, disc.shell, values)


def relative_correlation(real: Tensor, twins: Tensor, noise: Tensor, noise_error: float) -> tuple[Tensor, Tensor]:
    """Return the correlation of a map with the particles' signal over that with its twins' signal, and its deviation.

    The twins are simulated from the map: theirs is 1 but for their poses, which are found as the particles' are. Shells
    are taken two at a time. The standard deviation is the jackknife's over groups of particles, and that of a noise
    power which is known to `noise_error`.

    Args:
        real: Of both halves, from `correlation_sums`, (GROUPS, 3, D // 2 + 1).
        twins: Of images simulated from the maps.
        noise: Power of the particles' noise in the units of `real`, (D // 2 + 1,).
        noise_error: Relative standard deviation of that power.

    Returns:
        (D // 2 + 1,) each; NaN where the particles hold no more than noise, or the twins' poses say nothing.
    """

    def correlation(sums: Tensor) -> Tensor:
        cross, energy, signal = sums.unbind(-2)
        return cross / (energy * signal).sqrt()

    def jackknife(sums: Tensor) -> tuple[Tensor, Tensor]:
        left_out = correlation(sums.sum(0) - sums)
        spread = (left_out - left_out.mean(0)).square().sum(0)
        return correlation(sums.sum(0)), ((len(sums) - 1) / len(sums) * spread).sqrt()

    real, twins, noise = (_with_next(values) for values in (real, twins, noise))
    (found, error), (expected, its_error) = jackknife(real), jackknife(twins)
    relative = noise_error * noise / real.sum(0)[2] / 2
    ratio = found / expected
    deviation = (
        (error / expected).square() + (ratio * its_error / expected).square() + (ratio * relative).square()
    ).sqrt()
    known = (expected > SURE * its_error) & (relative.abs() < 1 / SURE) & (real.sum(0)[2] > 0)
    return torch.where(known, ratio, math.nan), torch.where(known, deviation, math.nan)


def _with_next(values: Tensor) -> Tensor:
    """Add to each shell the next; the last, (..., D // 2), stays."""
    return values + torch.nn.functional.pad(values[..., 1:], (0, 1))


def with_share(
    shells: HeldOutShells, halves: Sequence[SignalSums], half_map_fsc: NDArray[np.float64], *, has_patches: bool
) -> HeldOutShells:
    """Return the shells with the share that particles hold of what the half maps agree on.

    Half maps that agree to the FSC F by what is true alone have each the correlation sqrt(F) with the truth.

    Args:
        shells: Shells of one cut-off.
        halves: Sums of both halves.
        half_map_fsc: Of the half maps, not masked, (D // 2 + 1,).
        has_patches: Whether the noise is that of background patches, and not of the particles' surroundings.
    """
    real, twins, noise = (
        torch.stack([getattr(half, name).cpu() for half in halves]).double().sum(0)
        for name in ("real", "twins", "noise")
    )
    claimed = torch.from_numpy(half_map_fsc).clamp(min=LEAST_FSC).sqrt()

    def listed(values: Tensor) -> tuple[float | None, ...]:
        numbers = enumerate((values / claimed)[:-1].tolist())
        return tuple(value if shell >= shells.first and math.isfinite(value) else None for shell, value in numbers)

    noise_error = PATCH_NOISE_ERROR if has_patches else SURROUNDINGS_NOISE_ERROR
    share, deviation = relative_correlation(real, twins, noise, noise_error)
    return replace(shells, share=listed(share), share_deviation=listed(deviation))
