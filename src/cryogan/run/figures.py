"""The figures of a run: Figures 2 and 3 of the paper, from what the run keeps."""

from dataclasses import dataclass

import numpy as np
import torch

from cryogan.critics import Trainer
from cryogan.fourier import radial_power, to_images
from cryogan.parallel.threads import map_in_threads
from cryogan.particles import read_volume
from cryogan.physics.projector import FourierProjector
from cryogan.report.figures import (
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
from cryogan.run.folder import MapFolder, RunFolder
from cryogan.run.plan import Plan
from cryogan.run.views import read_views
from cryogan.validation import Alignment, FscCurves, fsc, resample, resolution_at

VIEWS = 6  # columns of a gallery
SPECTRUM_IMAGES = 256


@dataclass(frozen=True)
class Snapshot:
    """A map of the run, on the final grid.

    Attributes:
        volume: (D, D, D).
        nyquist: shell of the Nyquist frequency at the box of its stage.
    """

    volume: np.ndarray
    nyquist: int


def snapshots(folder: RunFolder, half: int, plan: Plan) -> dict[int, Snapshot]:
    """Return the kept maps of half 1 or 2 by their step."""
    maps = {}
    for step in folder.snapshot_steps(half):
        volume, pixel_size = read_volume(folder.snapshot(half, step))
        fine = resample(volume, pixel_size, plan.box, plan.pixel_size).astype(np.float32)
        maps[step] = Snapshot(fine, len(volume) // 2)
    return maps


@torch.no_grad()
def plot_simulation(folder: RunFolder, trainer: Trainer) -> None:
    """Plot clean, CTF-modulated, simulated and real images, and the power spectra of the last two."""
    simulator, s = trainer.simulator, trainer.settings
    # The generator is set back afterwards: pictures must not change the run.
    state = simulator.generator.get_state()
    phi = simulator.sample(SPECTRUM_IMAGES)
    spectrum = simulator.projector.transform(trainer.volume())
    simulated = torch.cat([simulator(spectrum, phi[i : i + s.batch_size]) for i in range(0, len(phi), s.batch_size)])
    shown = phi[:VIEWS]
    clean, modulated = to_images(simulator.project(spectrum, shown)), simulator.clean(spectrum, shown)
    simulator.generator.set_state(state)
    real, _ = trainer.particles.first(SPECTRUM_IMAGES)
    plot_gallery(
        folder.figure("gallery"),
        *(images.cpu().numpy() for images in (clean, modulated, simulated[:VIEWS], real[:VIEWS])),
    )
    box = simulator.projector.box
    frequency = np.arange(box // 2 + 1) / (box * simulator.pixel_size)
    plot_power_spectra(
        folder.figure("power_spectra"),
        frequency,
        radial_power(real).cpu().numpy(),
        radial_power(simulated).cpu().numpy(),
    )


def plot_history(folder: RunFolder, plan: Plan) -> None:
    """Plot half 1's map and its clean projections over time, the recorded numbers, and the views if not uniform."""
    maps = snapshots(folder, 1, plan)
    course = folder.records(1)
    minutes = {r["step"]: r["minutes"] for r in course}
    labels = {step: f"{minutes[step]:.1f} min" if step in minutes else f"step {step}" for step in maps}
    plot_volume_over_time(folder.figure("volume_over_time"), [(labels[s], m.volume) for s, m in maps.items()])
    projector = FourierProjector(plan.box, device=torch.device("cpu"))
    rotations = uniform_rotations(VIEWS, torch.Generator().manual_seed(plan.settings.seed))
    rows = [(labels[s], projector(torch.from_numpy(m.volume), rotations).numpy()) for s, m in maps.items()]
    plot_projections_over_time(folder.figure("projections_over_time"), rows)
    plot_progress(folder.figure("progress"), course)
    if plan.uneven_views:
        views = read_views(folder)
        plot_view_density(folder.figure("views"), views.rot, views.tilt, views.density)


def plot_half_map_fsc(folder: MapFolder, plan: Plan, curves: FscCurves) -> None:
    """Plot the FSC of two half maps in the folder that they are in."""
    resolution = resolution_at(curves.corrected, plan.pixel_size, 0.143, plan.box)
    named = {
        "unmasked": curves.unmasked,
        "masked": curves.masked,
        "phase-randomised": curves.phase_randomised,
        f"corrected, 0.143 at {resolution:.1f} Å": curves.corrected,
    }
    plot_fsc(folder.figure("fsc"), curves.frequency, named, plan.pixel_size)


def fsc_by_step(folder: RunFolder, plan: Plan, alignment: Alignment) -> dict[int, np.ndarray]:
    """Return the FSC of the half maps, (D // 2 + 1,), by step, with NaN beyond the Nyquist frequency of a coarse box.

    Args:
        folder: folder of the run.
        plan: plan of the run.
        alignment: transform that takes half 2 into the frame of half 1 at the end of the run.
    """
    recorded = {r["step"] for r in folder.records(1)}
    first, second = (snapshots(folder, half, plan) for half in (1, 2))
    # A search ends in a frame of its own; the axes are found afterwards.
    in_frame = sum(stage.steps for stage in plan.stages if not plan.critic.keeps_frame(stage))
    steps = sorted(step for step in first.keys() & second.keys() & recorded if step > in_frame)

    def compare(step: int) -> np.ndarray:
        curve = fsc(first[step].volume, alignment.apply(second[step].volume, plan.pixel_size))
        curve[first[step].nyquist :] = np.nan  # a coarse stage has nothing there
        return curve

    return dict(zip(steps, map_in_threads(compare, steps), strict=True))


def plot_fsc_history(folder: RunFolder, plan: Plan, curves: FscCurves, grown: dict[int, np.ndarray]) -> None:
    """Plot the FSC of the half maps, and how it grew, as `fsc_by_step` gives it."""
    plot_half_map_fsc(folder, plan, curves)
    minutes = {r["step"]: r["minutes"] for r in folder.records(1)}
    if grown:
        labelled = [(f"{minutes[step]:.1f} min", curve) for step, curve in grown.items()]
        plot_fsc_over_time(folder.figure("fsc_over_time"), curves.frequency, labelled)
