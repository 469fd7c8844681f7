"""Held-out evidence for the half maps of a run: particles and frequencies that had no part in a map.

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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from cryogan.critics.matching.templates import Observed
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.errors import InputError
from cryogan.particles import read_volume
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.volume import Volume
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import Poses, search_poses
from cryogan.report.figures import plot_held_out
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.held_out import THRESHOLD, HeldOut, HeldOutShells, figure_path, write_held_out
from cryogan.run.log import RunLog
from cryogan.run.plan import Plan
from cryogan.validation import FscCurves, fsc_curves, resolution_at, soft_mask

AT_MOST = 1500  # particles of each half
COARSEST = 5  # shell of the coarsest cut-off
FINEST_SHARE = 2 / 3  # of the half maps' resolution, at the finest cut-off
CUTOFFS = 3
OTHERS = 3  # other particles' views that are subtracted
DRAWS = 64  # maps with random phases
BALL_LOBE = 1.43  # first zero of a ball's Fourier transform, times its diameter


@dataclass(frozen=True)
class Evidence:
    """Comparison of one half's particles with a map beyond a cut-off.

    Attributes:
        back_projection: b, (D, D, D // 2 + 1).
        expected: T of a right map at right poses, by shell, (D // 2 + 1,).
        noise_variance: Variance of T by white noise of the particles alone, by shell, (D // 2 + 1,).
    """

    back_projection: Tensor
    expected: Tensor
    noise_variance: Tensor


def guard_band(box: int, mask_diameter_px: float) -> int:
    """Return the distance, shells, from the cut-off to the first shell that is tested.

    A mask, and that particle and map end at their surface, carries a frequency over the main lobe of the mask's
    transform, 1.43 box / diameter shells for a ball; the interpolation of the projections over one more.

    Args:
        box: Box, pixels.
        mask_diameter_px: Diameter of a ball of the volume of the molecule's mask, pixels.
    """
    return math.ceil(BALL_LOBE * box / mask_diameter_px) + 1


def cutoffs(finest: float) -> list[int]:
    """Return the cut-offs, shells, for half maps that agree up to the shell `finest`."""
    last = math.floor(FINEST_SHARE * finest)
    return [] if last < COARSEST else sorted({round(cut) for cut in np.linspace(COARSEST, last, CUTOFFS)})


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

    def by_shell(values: Tensor) -> Tensor:
        return values.new_zeros(len(values), box // 2 + 1).index_add(1, disc.shell, values)

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
        energy = by_shell(model.abs().square())
        back.add(total, disc, rotations, matched)
        difference = model.clone()
        for view in views.unbind(1):
            other = weight * templates.projections(view)
            scale = (energy / by_shell(other.abs().square()).clamp(min=1e-30)).sqrt()[:, disc.shell] / OTHERS
            back.add(total, disc, view, -scale * matched)
            difference -= scale * other
        expected = expected + by_shell((model.conj() * difference).real).sum(0)
        variance = variance + by_shell(difference.abs().square()).sum(0)
    return Evidence(back.finish(total), expected, variance)


def shell_products(spectrum: Tensor, back_projection: Tensor, shell: Tensor) -> Tensor:
    """Return Re <x, b> over each shell, (D // 2 + 1,), of half spectra (D, D, D // 2 + 1) of volumes."""
    box = len(spectrum)
    products = (spectrum.conj() * back_projection).real.double() / box**3
    products[..., 1 : box // 2] *= 2  # the half that is not stored
    return torch.bincount(shell.flatten(), products.flatten())[: box // 2 + 1]


class RandomPhases:
    """Half maps with random phases, with the power of theirs in each shell, their local power and their symmetry.

    Where a map has no detail, its random likenesses have none: they have as little room to agree with the particles by
    chance as the map has. Both half maps get the same phases: an error that they share counts once, not twice.

    Args:
        maps: Half maps (D, D, D), in one frame.
        half: Gives symmetry and shells.
        first: Shell from which on the maps are compared with particles.
    """

    def __init__(self, maps: Sequence[Tensor], half: HalfSet, first: int) -> None:
        self._half, self._shape = half, maps[0].shape
        beyond = half.back.shell >= first
        self._spectra = [torch.fft.rfftn(density) * beyond for density in maps]
        self._power = [self._by_shell(spectrum) for spectrum in self._spectra]
        smooth = torch.exp(-2 * (torch.pi * half.back.radius / (2 * first)).square())  # over half a period of `first`
        self._local = [self._local_amplitude(spectrum, smooth) for spectrum in self._spectra]

    def sample(self, generator: torch.Generator) -> list[Tensor]:
        """Return half spectra (D, D, D // 2 + 1) of the half maps with random phases."""
        white = torch.randn(self._shape, generator=generator, device=generator.device)
        symmetric = self._half.volume.symmetrise(white)
        return [self._sampled(i, symmetric) for i in range(len(self._spectra))]

    def _sampled(self, i: int, white: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfftn(white * self._local[i])
        scale = (self._power[i] / self._by_shell(spectrum).clamp(min=1e-30)).sqrt()
        return spectrum * scale[self._half.back.shell]

    def _local_amplitude(self, spectrum: Tensor, smooth: Tensor) -> Tensor:
        power = torch.fft.irfftn(spectrum, s=self._shape).square()
        local: Tensor = torch.fft.irfftn(torch.fft.rfftn(power) * smooth, s=self._shape)
        return local.clamp(min=0.0).sqrt()

    def _by_shell(self, spectrum: Tensor) -> Tensor:
        back = self._half.back
        return torch.zeros(back.shells, device=spectrum.device).index_add(
            0, back.shell.flatten(), spectrum.abs().square().flatten()
        )


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
        parts = [
            shell_products(x, of_half[cut].back_projection, shell) for x, of_half in zip(spectra, evidence, strict=True)
        ]
        return torch.stack(parts).sum(0)

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
        expected = sum(of_half[cut].expected.double() for of_half in evidence)
        found = _judge(statistic(spectra, cut), torch.stack(null[cut]), torch.as_tensor(expected), first)
        bands.append(HeldOutShells(cutoff, first, *found))
    return bands


def _judge(
    statistic: Tensor, null: Tensor, expected: Tensor, first: int
) -> tuple[tuple[float | None, ...], tuple[float | None, ...], tuple[float | None, ...]]:
    """Return z, z of each shell with the next, and amplitude, by shell up to the last below Nyquist."""
    last = len(statistic) - 1

    def listed(values: Tensor) -> tuple[float | None, ...]:
        shells = enumerate(values[:last].tolist())
        return tuple(value if shell >= first and math.isfinite(value) else None for shell, value in shells)

    def pairs(values: Tensor) -> Tensor:
        following = torch.cat([values[..., 1:last], torch.zeros_like(values[..., :1])], -1)
        return values[..., :last] + following

    def deviations(values: Tensor, draws: Tensor) -> Tensor:
        return values / draws.square().mean(0).sqrt()

    window = deviations(pairs(statistic), pairs(null))
    known = null.square().mean(0).sqrt() < expected
    amplitude = torch.where(known, statistic / expected, math.nan)
    return listed(deviations(statistic, null)), listed(window), listed(amplitude)


class HeldOutTest:
    """The half maps of a run, and the particles of each half that test the other's map.

    Args:
        run: Folder of a finished `cryogan reconstruct`.

    Raises:
        InputError: If it is not one, or the run's device is not here.
    """

    def __init__(self, run: Path) -> None:
        self.plan, folder = Plan.read(run), RunFolder(run)
        if not self.plan.is_picked:
            raise InputError(f"{run} is a run on patches with particles anywhere; this needs picked particles.")
        self.plan.require_device(run)
        folder.require_finished()
        torch.set_num_threads(self.plan.threads)
        half1, half2 = (read_volume(path)[0] for path in folder.half_maps)
        mask = soft_mask((half1 + half2) / 2, self.plan.pixel_size)
        self.curves = fsc_curves(half1, half2, self.plan.pixel_size, mask, seed=self.plan.settings.seed)
        self.guard = guard_band(self.plan.box, float((6 / math.pi * mask.sum()) ** (1 / 3)))
        self.maps = [torch.from_numpy(volume).to(self.plan.device) for volume in (half2, half1)]  # the other half's
        self.halves = [HalfSet(self.plan, folder.particles, half, AT_MOST) for half in HALVES]

    def measure(self) -> HeldOut:
        """Measure what the particles of each half support of the other half's map."""
        plan = self.plan
        width_A = plan.box * plan.pixel_size
        resolution = resolution_at(self.curves.corrected, plan.pixel_size, 0.143, plan.box)
        tested = [
            (cut, cut + self.guard) for cut in cutoffs(width_A / resolution) if cut + self.guard < plan.box // 2 - 1
        ]
        bands: list[HeldOutShells] = []
        if tested:
            with ThreadPoolExecutor(len(HALVES)) as pool:
                evidence = list(
                    pool.map(lambda half, density: self._compare(half, density, tested), self.halves, self.maps)
                )
            bands = shell_evidence(self.halves, self.maps, evidence, tested)
        return HeldOut(width_A, sum(map(len, self.halves)), resolution, tuple(bands))

    def _compare(self, half: HalfSet, density: Tensor, tested: Sequence[tuple[int, int]]) -> list[Evidence]:
        weight = torch.from_numpy(self.curves.unmasked.clip(0.0, 1.0)).to(density)
        by_shell = weight[half.back.shell.clamp(max=self.plan.box // 2)]
        weighted = torch.fft.irfftn(torch.fft.rfftn(density) * by_shell, s=density.shape)
        return [
            compare_beyond(half, density, search_poses(half, weighted, float(cutoff)), first)
            for cutoff, first in tested
        ]


def measure_held_out(run: Path, *, console: Console | None = None) -> HeldOut:
    """Measure to which resolution held-out particles and frequencies support the half maps of a finished run.

    The record and a figure are written to `held_out` in the run's folder; they replace earlier ones.

    Args:
        run: Folder of `cryogan reconstruct`.
        console: Where the result is printed; default: standard error.

    Raises:
        InputError: If the run is not finished, or not one of picked particles.
    """
    console, folder = console or Console(stderr=True), RunFolder(run)
    test, log = HeldOutTest(run), RunLog(folder, console)
    log.say("Held-out particles are compared with the half maps.")
    held_out = test.measure()
    write_held_out(folder, held_out)
    if held_out.bands:
        _plot(folder, held_out, test.curves, test.plan.pixel_size)
    log.say(held_out.sentence)
    log.report(held_out.findings)
    return held_out


def _plot(folder: RunFolder, held_out: HeldOut, curves: FscCurves, pixel_size: float) -> None:
    def padded(values: tuple[float | None, ...]) -> NDArray[np.float64]:
        return np.array([*values, None], dtype=np.float64)

    named = {
        f"poses from below {held_out.width_A / band.cutoff:.0f} Å": padded(band.window_z) for band in held_out.bands
    }
    plot_held_out(figure_path(folder), curves.frequency, named, THRESHOLD, curves.corrected, pixel_size)
