"""One half map: its training, built from a plan, and the process that runs it."""

import signal as signals
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cryogan.adversarial.checkpoints import load_checkpoint, save_checkpoint
from cryogan.adversarial.discriminator import Discriminator
from cryogan.adversarial.training import Record, Training
from cryogan.errors import InputError
from cryogan.particles import ParticleImages, read_particles, write_volume
from cryogan.physics.ctf import CtfParameters, objective_aperture_cutoff
from cryogan.physics.noise import ColouredNoise, Noise, PatchNoise, WhiteNoise, background_power
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator, background_mask
from cryogan.physics.volume import Volume
from cryogan.pictures import draw_simulation, snapshot_path
from cryogan.plan import Plan, Stage
from cryogan.validation import resample

SNAPSHOTS = 8  # of the map over a run, for the figures
RECORDS = 500  # lines of progress.jsonl a half, about
LEAST_SIGNAL = 0.1  # floor of the estimated signal s.d.: below it the estimate is noise


@dataclass(frozen=True)
class Message:
    """What a half's process tells its parent."""

    half: int
    kind: Literal["record", "failed", "stopped", "finished"]
    record: Record | None = None
    text: str = ""


def half_rows(count: int, half: int, seed: int) -> np.ndarray:
    """Rows, ascending, of half 1 or 2 of `count` particles: a random split that only the seed decides."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2] if half == 1 else order[count // 2 :])


def build_training(plan: Plan, stage: Stage, particles: Path, half: int) -> Training:
    """The training of one half at one stage, from a zero volume.

    Args:
        plan: of the run.
        stage: one of the plan's.
        particles: the run folder's particle STAR, whose images are all usable.
        half: 1 or 2.
    """
    s, device = plan.settings, plan.device
    pixel_size = plan.pixel_size * plan.box / stage.box
    table = read_particles(particles, plan.data_dir)
    table = table.select(half_rows(len(table), half, s.seed))
    images = ParticleImages(table, stage.box, plan.particle_radius, s.invert)
    seeds = np.random.SeedSequence([s.seed, half, stage.box]).generate_state(3)
    generator = torch.Generator(device).manual_seed(int(seeds[0]))
    background = background_mask(stage.box, plan.particle_radius / pixel_size, device)
    noise, rows = _noise(plan, images, background)
    optics = images.table.select(rows).ctf
    cutoff = float("inf")
    if s.aperture_diameter is not None and s.focal_length is not None:
        cutoff = objective_aperture_cutoff(s.aperture_diameter, s.focal_length, float(optics["voltage"][0]))
    simulator = Simulator(
        FourierProjector(stage.box, s.oversampling, device=device),
        CtfParameters.from_columns(optics, device=device),
        noise,
        pixel_size=pixel_size,
        max_shift=s.max_shift,
        generator=generator,
        # The setting is the envelope's value at the working box's Nyquist frequency.
        envelope_at_nyquist=s.envelope_at_nyquist ** ((stage.box / plan.box) ** 2),
        aperture_cutoff=cutoff,
        region=background if s.normalise == "background" else torch.ones_like(background),
    )
    start = torch.Generator().manual_seed(s.seed if s.shared_critic_start else int(seeds[1]))
    critic = Discriminator(stage.box, s.critic_width, start).to(device)
    volume = Volume(stage.box, plan.mask_radius / pixel_size, s.symmetry, device)
    return Training(s, stage.steps, images, simulator, volume, critic, signal(images), int(seeds[2]))


def _noise(plan: Plan, images: ParticleImages, background: Tensor) -> tuple[Noise, np.ndarray]:
    """The noise model, and the particles (rows of `images`) whose CTF may be drawn with it."""
    rows = np.arange(len(images))
    if plan.noise is not None:
        table = read_particles(plan.noise, plan.data_dir, need_ctf=False)
        patches = ParticleImages(table, images.box, plan.particle_radius, plan.settings.invert)
        names = patches.table.micrographs
        rows = np.flatnonzero(np.isin(images.table.micrographs, names))
        pixels = torch.from_numpy(patches.batch(np.arange(len(patches)))).to(plan.device)
        return PatchNoise(pixels, names, images.table.micrographs[rows], turn=plan.settings.augment), rows
    if plan.settings.noise_model == "white":
        return WhiteNoise(images.box), rows
    some = torch.from_numpy(images.batch(_spread(images))).to(plan.device)
    return ColouredNoise(background_power(some, background), images.box), rows


def signal(images: ParticleImages) -> float:
    """S.d. of the signal: the variance near the centre beyond the background's, which is 1."""
    axis = np.arange(images.box) - images.box // 2
    centre = np.hypot(axis[:, None], axis) < 0.7 * images.radius_A / images.pixel_size
    variance = float(images.batch(_spread(images))[:, centre].var()) - 1.0
    return float(np.sqrt(max(variance, LEAST_SIGNAL**2)))


def _spread(images: ParticleImages) -> np.ndarray:
    return np.unique(np.linspace(0, len(images) - 1, 1000).astype(int))


def start_from(training: Training, coarser: Training) -> None:
    """Carry map and scales over from the stage before.

    Voxels are smaller now, so a projection sums more of them; and the images' unit, the s.d. of the
    background, has grown with the frequencies that were let in.
    """
    old, new = coarser.simulator, training.simulator
    fine = resample(coarser.volume.density.detach().cpu().numpy(), old.pixel_size, new.projector.box, new.pixel_size)
    unit = training.signal / coarser.signal * old.projector.box / new.projector.box
    training.volume.start_from(torch.from_numpy(fine * unit).to(training.volume.density))
    new.load_state_dict(old.state_dict())
    training.seconds = coarser.seconds


def checkpoint_path(folder: Path, half: int) -> Path:
    return folder / f"half{half}.pt"


def train_half(folder: Path, half: int, messages: "Queue[Message]") -> None:
    """Body of a half's process: train from the start or the last checkpoint, to the end or a signal."""
    stop = threading.Event()
    for number in (signals.SIGINT, signals.SIGTERM):
        signals.signal(number, lambda *_: stop.set())  # a step is never cut short
    try:
        plan = Plan.read(folder)
        torch.set_num_threads(plan.threads)
        finished = all(_run_stages(plan, folder, half, messages, stop))
        messages.put(Message(half, "finished" if finished else "stopped"))
    except InputError as error:
        messages.put(Message(half, "failed", text=str(error)))
    except OSError as error:  # a full disk, mostly
        messages.put(Message(half, "failed", text=f"Half {half} cannot write to {folder}: {error}."))


def _run_stages(
    plan: Plan, folder: Path, half: int, messages: "Queue[Message]", stop: threading.Event
) -> Iterator[bool]:
    """Train stage after stage; yields whether each was finished."""
    checkpoint = checkpoint_path(folder, half)
    saved = load_checkpoint(checkpoint, plan.device) if checkpoint.exists() else None
    every, pictures = max(1, plan.total_steps // RECORDS), _snapshot_steps(plan.total_steps)
    training: Training | None = None
    before = 0
    for index, stage in enumerate(plan.stages):
        before += stage.steps
        if saved is not None and index < saved["stage"]:
            continue
        coarser, training = training, build_training(plan, stage, folder / "particles.star", half)
        if saved is not None and index == saved["stage"]:
            training.load_state_dict(saved["training"])
        elif coarser is not None:
            start_from(training, coarser)
        written = time.monotonic()
        for record in training.run():
            if not np.isfinite(record["map_change"]):
                raise InputError(f"Half {half}: the map is not finite after step {training.step}; lower the rates.")
            step = before - stage.steps + training.step
            if step in pictures:
                _keep(plan, folder, half, step, training)
            if step % every == 0 or step in pictures:
                messages.put(Message(half, "record", record | {"step": step, "box": stage.box}))
            if stop.is_set():
                break
            if time.monotonic() - written > 60 * plan.settings.checkpoint_minutes:
                save_checkpoint(checkpoint, {"stage": index, "training": training.state_dict()})
                written = time.monotonic()
        save_checkpoint(checkpoint, {"stage": index, "training": training.state_dict()})
        yield not stop.is_set()
        if stop.is_set():
            return


def _keep(plan: Plan, folder: Path, half: int, step: int, training: Training) -> None:
    """Keep the map of this step, and let half 1 draw what its simulator makes of it."""
    pixel_size = training.simulator.pixel_size
    write_volume(snapshot_path(folder, half, step), training.result().cpu().numpy(), pixel_size)
    if half == 1:
        draw_simulation(folder, training)


def _snapshot_steps(steps: int) -> set[int]:
    """Steps at which the map is kept: denser at the start, where it changes most; the last is among them."""
    return {max(1, round(steps * (i / SNAPSHOTS) ** 2)) for i in range(1, SNAPSHOTS + 1)}
