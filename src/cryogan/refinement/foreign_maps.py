"""The verdict on maps of any program: brought to the particles' working box and scale, they are judged as a run's."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from cryogan.config import Settings
from cryogan.critics.matching.templates import NOISE_IMAGES
from cryogan.errors import InputError
from cryogan.fourier import radial_power
from cryogan.particles import read_volume
from cryogan.refinement.half_map_test import HalfMapTest
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.verdict import judge, plot_evidence
from cryogan.run.folder import RunFolder
from cryogan.run.inputs import Inputs, read_inputs
from cryogan.run.plan import Plan
from cryogan.run.reconstruct import prepare
from cryogan.run.verdict import Verdict, write_verdict
from cryogan.validation import resample

SCALE_SHELLS = (2, 12)  # by whose power the scale of a map is fitted to its particles
SAME_WIDTH = 0.02  # by which box widths in A may differ

Volume = NDArray[np.float32]


def judge_maps(
    maps: Sequence[Path],
    particles: Path,
    settings: Settings,
    *,
    noise: Path | None,
    data_dir: Path | None,
    out: Path | None,
    console: Console,
) -> Verdict:
    """Judge two half maps, or one map of other particles.

    Args:
        maps: Half maps 1 and 2 in one frame, or a map of other particles or of a model; MRC.
        particles: RELION STAR or cryoSPARC .cs, with CTF; for two half maps it says which particle is of which.
        settings: As of a run; symmetry, diameter and box are used.
        noise: STAR or .cs of background patches.
        data_dir: Where else to look for image stacks.
        out: Folder for the record and pictures; None: none are written.
        console: Where the verdict is printed.

    Raises:
        InputError: If the particles do not say of which half they are, or maps and particles do not fit.
    """
    inputs = read_inputs(particles, noise, data_dir, settings)
    plan, independent = inputs.plan, len(maps) == 2
    if independent:
        _require_halves(inputs, particles)
    torch.set_num_threads(plan.threads)
    volumes = [_at_working_box(path, plan) for path in maps]
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        prepare(folder, inputs)
        test = HalfMapTest.of(plan, (volumes[0], volumes[-1]), folder.particles, independent)
        scaled = tuple(
            _scaled(volume, half, path)
            for volume, half, path in zip(test.half_maps, test.halves, (maps[0], maps[-1]), strict=True)
        )
        test = HalfMapTest(plan, (scaled[0], scaled[1]), test.halves, independent)
        verdict = judge(test)
        if out is not None:
            write_verdict(out / "verdict.json", verdict)
            plot_evidence(out, test, verdict)
    for finding in verdict.findings[1:]:
        console.print(finding.sentence, highlight=False, soft_wrap=True)
    return verdict


def _require_halves(inputs: Inputs, particles: Path) -> None:
    if inputs.halves.source != "input" or inputs.halves.moved:
        raise InputError(
            f"{particles} does not say of which half map each particle is, so that none is held out of a map. Give the "
            "file that was written with the half maps (_rlnRandomSubset, alignments3D/split)."
        )


def _at_working_box(path: Path, plan: Plan) -> Volume:
    volume, pixel_size = read_volume(path)
    width, expected = len(volume) * pixel_size, plan.box * plan.pixel_size
    if abs(width / expected - 1) > SAME_WIDTH and width < expected:
        raise InputError(
            f"{path} is {width:.0f} A wide, the particles are {expected:.0f} A. Give a map of the particles' box "
            "(relion_image_handler --new_box)."
        )
    return resample(volume, pixel_size, plan.box, plan.pixel_size).astype(np.float32)


@torch.no_grad()
def _scaled(volume: Volume, half: HalfSet, path: Path) -> Volume:
    """Bring a map to the scale of the particles: programs have units of their own.

    The power of the particles beyond that of their noise is the scale squared, times that of the map's projections.
    """
    rows = half.rows[:NOISE_IMAGES]
    density = torch.from_numpy(volume).to(half.generator.device)
    phi = half.simulator.sample(len(rows))
    clean = half.simulator.clean(half.projector.transform(density), phi)
    images = torch.from_numpy(half.images.batch(rows.cpu().numpy())).to(density.device)
    band = slice(*SCALE_SHELLS)

    def power(images: Tensor) -> Tensor:
        return radial_power(images)[band]

    noise = half.noise_power.to(density.device)[band]
    weight = power(clean) / power(images).square()
    squared = float((weight * (power(images) - noise)).sum() / (weight * power(clean)).sum())
    if not squared > 0:
        raise InputError(
            f"{path}: the particles hold no more power than their background, so the map cannot be brought to their "
            "scale. Give background patches (--noise) of the same micrographs."
        )
    return np.asarray(volume * np.float32(squared**0.5))
