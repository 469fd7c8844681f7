"""The pictures of a run: figures 2 and 3 of the paper, drawn from what the run keeps."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryogan.critics import Trainer
from cryogan.fourier import radial_power, to_images
from cryogan.particles import read_star, read_volume
from cryogan.physics.projector import FourierProjector
from cryogan.report import (
    plot_fsc,
    plot_fsc_over_time,
    plot_gallery,
    plot_power_spectra,
    plot_progress,
    plot_projections_over_time,
    plot_view_density,
    plot_volume_over_time,
)
from cryogan.rotations import uniform_rotations
from cryogan.run.plan import VIEWS_FILE, Plan
from cryogan.validation import Alignment, FscCurves, fsc, resample, resolution_at

VIEWS = 6  # columns of a gallery
SPECTRUM_IMAGES = 256


def snapshot_path(folder: Path, half: int, step: int) -> Path:
    """Where a run keeps the map of a half after `step` volume updates."""
    return folder / "snapshots" / f"half{half}_step{step:06d}.mrc"


def latest_path(folder: Path, half: int) -> Path:
    """Where a run writes the map of a half every few seconds, for those who watch it."""
    return folder / "snapshots" / f"half{half}_latest.mrc"


def class_path(folder: Path, half: int, number: int) -> Path:
    """Where a run keeps the last map of a half's class, from 1 in no order."""
    return folder / "snapshots" / f"half{half}_class{number}.mrc"


def classes_path(folder: Path, half: int) -> Path:
    """Where it keeps the weights of a half's classes, and how probable each is for each particle."""
    return folder / "snapshots" / f"half{half}_classes.star"


@dataclass(frozen=True)
class Snapshot:
    """A map of the run, on the final grid."""

    volume: np.ndarray  # (D, D, D)
    nyquist: int  # shell of the Nyquist frequency of its own stage


def snapshots(folder: Path, half: int, plan: Plan) -> dict[int, Snapshot]:
    """The kept maps of a half by their step."""
    maps = {}
    for path in sorted(snapshot_path(folder, half, 0).parent.glob(f"half{half}_step*.mrc")):
        volume, pixel_size = read_volume(path)
        fine = resample(volume, pixel_size, plan.box, plan.pixel_size).astype(np.float32)
        maps[int(path.stem[-6:])] = Snapshot(fine, len(volume) // 2)
    return maps


@torch.no_grad()
def draw_simulation(folder: Path, training: Trainer) -> None:
    """Gallery of clean, CTF-modulated, simulated and real images, and the power spectra of the last two."""
    simulator, s = training.simulator, training.settings
    # A generator of their own: drawing pictures must not change the run.
    state = simulator.generator.get_state()
    phi = simulator.sample(SPECTRUM_IMAGES)
    spectrum = simulator.projector.transform(training.volume())
    simulated = torch.cat([simulator(spectrum, phi[i : i + s.batch_size]) for i in range(0, len(phi), s.batch_size)])
    some = phi[:VIEWS]
    clean, modulated = to_images(simulator.project(spectrum, some)), simulator.clean(spectrum, some)
    simulator.generator.set_state(state)
    real, _ = training.particles.first(SPECTRUM_IMAGES)
    plot_gallery(
        folder / "figures" / "gallery.png",
        *(images.cpu().numpy() for images in (clean, modulated, simulated[:VIEWS], real[:VIEWS])),
    )
    box = simulator.projector.box
    frequency = np.arange(box // 2 + 1) / (box * simulator.pixel_size)
    plot_power_spectra(
        folder / "figures" / "power_spectra.png",
        frequency,
        radial_power(real).cpu().numpy(),
        radial_power(simulated).cpu().numpy(),
    )


def draw_history(folder: Path, plan: Plan) -> None:
    """Half 1's map and its clean projections over time, the recorded numbers, and the views if they are not uniform."""
    maps = snapshots(folder, 1, plan)
    course = records(folder, 1)
    minutes = {r["step"]: r["minutes"] for r in course}
    labels = {step: f"{minutes[step]:.1f} min" if step in minutes else f"step {step}" for step in maps}
    plot_volume_over_time(folder / "figures" / "volume_over_time.png", [(labels[s], m.volume) for s, m in maps.items()])
    projector = FourierProjector(plan.box, device=torch.device("cpu"))
    rotations = uniform_rotations(VIEWS, torch.Generator().manual_seed(plan.settings.seed))
    rows = [(labels[s], projector(torch.from_numpy(m.volume), rotations).numpy()) for s, m in maps.items()]
    plot_projections_over_time(folder / "figures" / "projections_over_time.png", rows)
    plot_progress(folder / "figures" / "progress.png", course)
    if plan.uneven_views:
        views = read_star(folder / VIEWS_FILE)["views"]
        columns = (views.floats(name) for name in ("rlnAngleRot", "rlnAngleTilt", "cryoganViewDensity"))
        plot_view_density(folder / "figures" / "views.png", *columns)


def draw_comparison(folder: Path, plan: Plan, curves: FscCurves) -> None:
    """The FSC of the half maps."""
    resolution = resolution_at(curves.corrected, plan.pixel_size, 0.143, plan.box)
    named = {
        "unmasked": curves.unmasked,
        "masked": curves.masked,
        "phase-randomised": curves.phase_randomised,
        f"corrected, 0.143 at {resolution:.1f} Å": curves.corrected,
    }
    plot_fsc(folder / "figures" / "fsc.png", curves.frequency, named, plan.pixel_size)


def agreement_over_time(folder: Path, plan: Plan, alignment: Alignment) -> dict[int, np.ndarray]:
    """FSC of the half maps, (D // 2 + 1,), by step; half 2 in half 1's frame as at the end, NaN beyond a coarse box."""
    recorded = {r["step"] for r in records(folder, 1)}
    first, second = (snapshots(folder, half, plan) for half in (1, 2))
    # A search ends in a frame of its own; the axes are found afterwards.
    in_frame = sum(stage.steps for stage in plan.stages if not plan.critic.keeps_frame(stage))
    grown = {}
    for step in sorted(each for each in first.keys() & second.keys() & recorded if each > in_frame):
        grown[step] = fsc(first[step].volume, alignment.apply(second[step].volume, plan.pixel_size))
        grown[step][first[step].nyquist :] = np.nan  # a coarse stage has nothing there
    return grown


def draw_agreement(folder: Path, plan: Plan, curves: FscCurves, grown: dict[int, np.ndarray]) -> None:
    """The FSC of the half maps, and how it grew, as `agreement_over_time` gives it."""
    draw_comparison(folder, plan, curves)
    minutes = {r["step"]: r["minutes"] for r in records(folder, 1)}
    if grown:
        labelled = [(f"{minutes[step]:.1f} min", curve) for step, curve in grown.items()]
        plot_fsc_over_time(folder / "figures" / "fsc_over_time.png", curves.frequency, labelled)


def records(folder: Path, half: int) -> list[dict[str, float]]:
    """A half's lines of `progress.jsonl`; of a step that was run twice (a resumed run), the later."""
    last: dict[float, dict[str, float]] = {}
    for line in (folder / "progress.jsonl").read_text().splitlines():
        with suppress(ValueError):  # cut off: the disk was full, or the run was killed
            record = json.loads(line)
            if record["half"] == half:
                last[record["step"]] = record
    return [last[key] for key in sorted(last)]
