"""Held-out evidence for half maps: particles and frequencies that had no part in a map.

The poses of each half's particles are found against the other half's map, from frequencies below a cut-off only. Then
the particles are compared with the map shell by shell beyond the cut-off and a guard band:

    T(s) = sum over particles and coefficients of shell s of Re <C S (P x - mean of P' x), y>, the noise whitened,

where P' x are views of other particles, scaled to the energy of P x in the shell, so that what all views share drops
out. By the adjoint, T(s) = Re <x, b> over shell s of the map x, with b the back-projection of y, minus that with the
other views. The null distribution of T(s) is that of maps with random phases, with the map's power in each shell, its
local power and symmetry, and the same b: it holds the noise of the particles as well as what an unrelated map has in
common with the true one by chance. docs/trust.md has more.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cryogan.critics.matching.templates import Observed
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.volume import Volume
from cryogan.refinement.half_map_test import HalfMapTest
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import Poses, search_poses
from cryogan.refinement.random_phases import RandomPhases, shell_products
from cryogan.refinement.signal_share import SignalSums, by_shell, correlation_sums, noise_by_shell, with_share
from cryogan.run.folder import HALVES
from cryogan.run.held_out import HeldOut, HeldOutShells
from cryogan.run.verdict import SAME_FRAME

COARSEST = 5  # shell of the coarsest cut-off
FINEST_SHARE = 2 / 3  # of the half maps' resolution, at the finest cut-off
CUTOFFS = 3
# Searches of the poses, each with other templates, views of other particles, and twins, which are averaged; and the
# shell from which on one is enough.
SEARCHES, SURE_SHELL = 4, 32
OTHERS = 2  # other particles' views that are subtracted
DRAWS = 64  # maps with random phases
TWINS = 300  # of each half's particles
BALL_LOBE = 1.43  # first zero of a ball's Fourier transform, times its diameter

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Evidence:
    """Comparison of one half's particles with a map beyond a cut-off.

    Attributes:
        back_projection: b, (D, D, D // 2 + 1).
        expected: T of a right map at right poses, by shell, (D // 2 + 1,).
        noise_variance: Variance of T by white noise of the particles alone, by shell, (D // 2 + 1,); of an average over
            several searches of the poses, that of one.
    """

    back_projection: Tensor
    expected: Tensor
    noise_variance: Tensor


Averaged = TypeVar("Averaged", Evidence, SignalSums)


def guard_band(width_A: float, diameter_A: float) -> int:
    """Return the distance, shells, from the cut-off to the first shell that is tested.

    That particle and map end at their surface carries a frequency over the main lobe of their outline's transform, 1.43
    width / diameter shells for a ball; the interpolation of the projections over one more.

    Args:
        width_A: Width of the box, A.
        diameter_A: Diameter of a ball of the molecule's volume, A.
    """
    return math.ceil(BALL_LOBE * width_A / diameter_A) + 1


def cutoffs(finest: float) -> list[int]:
    """Return the cut-offs, shells, for half maps that agree up to the shell `finest`."""
    last = math.floor(FINEST_SHARE * finest)
    return [] if last < COARSEST else sorted({round(cut) for cut in np.linspace(COARSEST, last, CUTOFFS)})


def searches(cutoff: int) -> int:
    """Return how often the poses are searched at a cut-off, shells: coarse frequencies leave them uncertain."""
    return min(SEARCHES, max(1, round(SURE_SHELL / cutoff)))


@torch.no_grad()
def compare_beyond(half: HalfSet, density: Tensor, poses: Poses, first: int) -> Evidence:
    """Compare the particles of a half with a map from a shell on.

    Args:
        half: Particles.
        density: Map (D, D, D), of the other half.
        poses: Poses of the particles, found from coarser frequencies.
        first: First shell that takes part.
    """
    box = half.projector.box
    disc = half.disc(box / 2)
    spectrum = half.projector.transform(density)
    templates = half.templates(spectrum, disc)
    back = BackProjector(half.projector, Volume(box, box, "C1", density.device))  # no mask: it would mix the shells
    beyond = (disc.shell >= first).float()

    total, expected, variance = torch.zeros_like(spectrum), torch.zeros(()), torch.zeros(())
    turns = torch.randint(1, max(2, len(half)), (OTHERS,), generator=half.generator, device=density.device)
    others = torch.stack([poses.rotations.roll(int(turn), 0) for turn in turns], 1)
    parts = zip(
        *(torch.split(values, IMAGES_AT_ONCE) for values in (poses.rotations, poses.shifts, others)), strict=True
    )
    for batch, (rotations, shifts, views) in zip(half.batches(), parts, strict=True):
        images = Observed.on(disc, *batch)
        matched = templates.matched(images, shifts) * beyond
        weight = templates.precision.sqrt() * images.transfer
        model = weight * templates.projections(rotations)
        energy = by_shell(disc, model.abs().square())
        back.add(total, disc, rotations, matched)
        difference = model.clone()
        for view in views.unbind(1):
            other = weight * templates.projections(view)
            scale = (energy / by_shell(disc, other.abs().square()).clamp(min=1e-30)).sqrt()[:, disc.shell] / OTHERS
            back.add(total, disc, view, -scale * matched)
            difference -= scale * other
        expected = expected + by_shell(disc, (model.conj() * difference).real).sum(0)
        variance = variance + by_shell(disc, difference.abs().square()).sum(0)
    return Evidence(back.finish(total), expected, variance)


def shell_evidence(
    halves: Sequence[HalfSet],
    maps: Sequence[Tensor],
    evidence: Sequence[Sequence[Evidence]],
    tested: Sequence[tuple[int, int]],
) -> list[HeldOutShells]:
    """Judge the comparisons by their null distribution.

    Args:
        halves: Particles of each half.
        maps: Map that each half was compared with.
        evidence: Comparisons of each half, one for each cut-off.
        tested: Cut-off and first shell of each comparison.
    """
    shell = halves[0].back.shell

    def statistic(spectra: Sequence[Tensor], cut: int) -> Tensor:
        """T of the two maps, (2, D // 2 + 1)."""
        parts = zip(spectra, evidence, strict=True)
        return torch.stack([shell_products(x, of_half[cut].back_projection, shell) for x, of_half in parts])

    count = range(len(tested))
    spectra = [torch.fft.rfftn(density) for density in maps]
    null: list[list[Tensor]] = [[] for _ in count]
    random = RandomPhases(maps, halves[0], min(first for _, first in tested))
    for _ in range(DRAWS):
        drawn = random.sample(halves[0].generator)
        for cut in count:
            null[cut].append(statistic(drawn, cut))
    bands = []
    for cut, (cutoff, first) in enumerate(tested):
        expected = torch.stack([of_half[cut].expected.double() for of_half in evidence])
        band = _judge(statistic(spectra, cut), torch.stack(null[cut]), expected, cutoff, first)
        bands.append(replace(band, symmetric=len(halves[0].group) > 1))
    return bands


def _judge(statistic: Tensor, null: Tensor, expected: Tensor, cutoff: int, first: int) -> HeldOutShells:
    """Judge T of the two maps, (2, D // 2 + 1), by that of random maps, (DRAWS, 2, D // 2 + 1)."""
    last = statistic.shape[-1] - 1

    def listed(values: Tensor) -> tuple[float | None, ...]:
        shells = enumerate(values[:last].tolist())
        return tuple(value if shell >= first and math.isfinite(value) else None for shell, value in shells)

    def pairs(values: Tensor) -> Tensor:
        following = torch.cat([values[..., 1:last], torch.zeros_like(values[..., :1])], -1)
        return values[..., :last] + following

    def deviations(values: Tensor, draws: Tensor) -> Tensor:
        return values / draws.square().mean(0).sqrt()

    both, of_both = statistic.sum(0), null.sum(1)
    known = of_both.square().mean(0).sqrt() < expected.sum(0)
    amplitude = torch.where(known, both / expected.sum(0), math.nan)
    windows = deviations(pairs(statistic), pairs(null)).flip(0)  # each half's particles test the other's map
    return HeldOutShells(
        cutoff,
        first,
        z=listed(deviations(both, of_both)),
        window_z=listed(deviations(pairs(both), pairs(of_both))),
        amplitude=listed(amplitude),
        half_z=tuple(listed(z) for z in windows),
    )


@torch.no_grad()
def measure_held_out(test: HalfMapTest) -> HeldOut:
    """Measure what the particles of each half support of the other half's map.

    Where the half maps disagree, their FSC says nothing of either: each is tested alone, too, to Nyquist.

    Args:
        test: Half maps and the particles of each half.
    """
    weighted = [test.weighted(side) for side in range(len(HALVES))]
    tested = _first_shells(test, cutoffs(test.width_A / test.finest_A))
    bands: list[HeldOutShells] = []
    if tested:
        found = _of_both(test, lambda side: _compare(test, side, weighted[side], tested, with_twins=True))
        judged = shell_evidence(test.halves, test.maps, [evidence for evidence, _ in found], tested)
        for cut, band in enumerate(judged):
            sums = [of_half[cut] for _, of_half in found]
            bands.append(with_share(band, sums, test.curves.unmasked, has_patches=test.plan.noise is not None))
    alone: list[HeldOutShells] = []
    to_nyquist = _first_shells(test, cutoffs(test.plan.box / 2))
    if to_nyquist and test.independent and test.correlation < SAME_FRAME:
        found = _of_both(test, lambda side: _compare(test, side, test.maps[side], to_nyquist, with_twins=False))
        alone = shell_evidence(test.halves, test.maps, [evidence for evidence, _ in found], to_nyquist)
    return HeldOut(test.width_A, sum(map(len, test.halves)), test.resolution, tuple(bands), tuple(alone))


def _of_both(test: HalfMapTest, measure: Callable[[int], Measured]) -> list[Measured]:
    """Measure something of both halves: on a CPU at the same time."""
    if test.plan.device.type != "cpu":
        return [measure(side) for side in range(len(HALVES))]
    with ThreadPoolExecutor(len(HALVES)) as pool:
        return list(pool.map(measure, range(len(HALVES))))


def _first_shells(test: HalfMapTest, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Return cut-offs with the first shell that each tests."""
    guard = guard_band(test.width_A, test.molecule_diameter)
    return [(cut, cut + guard) for cut in cuts if cut + guard < test.plan.box // 2 - 1]


def _compare(
    test: HalfMapTest, side: int, density: Tensor, tested: Sequence[tuple[int, int]], *, with_twins: bool
) -> tuple[list[Evidence], list[SignalSums]]:
    """Compare the particles of a half, and twins simulated from the map, with it at poses from below each cut-off.

    The poses are searched several times, see `searches`, and what is found is averaged.

    Args:
        test: Half maps and the particles of each half.
        side: The half, 0 or 1.
        density: Map (D, D, D) against which the poses are found.
        tested: Cut-offs, and the first shell that each tests.
        with_twins: Whether twins are made, too.

    Returns:
        The evidence of each cut-off; and what the correlation with the particles' signal is made of, if `with_twins`.
    """
    half, count = test.halves[side], [searches(cutoff) for cutoff, _ in tested]
    evidence: list[list[Evidence]] = [[] for _ in tested]
    sums: list[list[SignalSums]] = [[] for _ in tested]
    poses: dict[int, Poses] = {}
    noise, shown = len(half) * noise_by_shell(half.disc(half.projector.box / 2)), test.for_twins(side)
    for number in range(max(count)):
        again = [cut for cut in range(len(tested)) if number < count[cut]]
        for cut in again:
            cutoff, first = tested[cut]
            poses[cut] = search_poses(half, density, float(cutoff))
            evidence[cut].append(compare_beyond(half, test.maps[side], poses[cut], first))
        if with_twins:
            finest = poses[len(tested) - 1]
            twins, rotations = half.twins(shown, finest.rotations, finest.shifts, TWINS)
            for cut in again:
                of_twins = search_poses(twins, density, float(tested[cut][0]))
                real = correlation_sums(half, density, poses[cut])
                simulated = correlation_sums(twins, density, of_twins, (shown, rotations))
                sums[cut].append(SignalSums(real, simulated, noise))
    return [_mean(of_cut) for of_cut in evidence], [_mean(of_cut) for of_cut in sums if of_cut]


def _mean(found: Sequence[Averaged]) -> Averaged:
    """Return the mean of the values of several searches."""
    names = [field.name for field in fields(found[0])]
    return type(found[0])(*(torch.stack([getattr(values, name) for values in found]).mean(0) for name in names))
