"""One half map: its training, built from a plan, and the process that runs it."""

import multiprocessing
import signal as signals
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cryogan.adversarial.checkpoints import load_checkpoint, save_checkpoint
from cryogan.adversarial.discriminator import build_critic
from cryogan.adversarial.micro_batch import OUT_OF_MEMORY, is_out_of_memory, smaller_batches
from cryogan.adversarial.training import Record, Training
from cryogan.adversarial.view_training import CHUNK, Search, Sharpening, ViewTraining
from cryogan.config import Settings
from cryogan.errors import InputError
from cryogan.folders import locked, unwritable
from cryogan.particles import ParticleImages, ParticleTable, read_particles, write_star, write_volume
from cryogan.physics.crowd import CrowdSimulator
from cryogan.physics.ctf import CtfParameters, objective_aperture_cutoff
from cryogan.physics.noise import (
    ColouredNoise,
    Noise,
    PatchNoise,
    PoissonNoise,
    WhiteNoise,
    background_mask,
    background_power,
)
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator
from cryogan.physics.view_distribution import ViewDistribution
from cryogan.physics.volume import Volume
from cryogan.pictures import draw_simulation, latest_path, snapshot_path
from cryogan.plan import VIEWS_FILE, Plan
from cryogan.validation import find_axes, resample

AnyTraining = Training | ViewTraining
SNAPSHOTS = 8  # of the map over a run, for the figures
LATEST_SECONDS = 5.0  # between the maps for those who watch
DRAWN_SECONDS = 60.0  # between pictures of the simulation; one takes about a second
RECORDS = 500  # lines of progress.jsonl a half, about
COMPARISON_SECONDS = 30.0  # of --max-minutes, left for the comparison of the half maps
MEASURED = 1000  # images from which signal and noise are estimated
LEAST_SIGNAL = 0.1  # floor of the estimated signal s.d.: below it the estimate is noise


@dataclass(frozen=True)
class Message:
    """What a half's process tells its parent."""

    half: int
    kind: Literal["record", "remark", "failed", "stopped", "finished"]
    record: Record | None = None
    text: str = ""


def half_rows(count: int, half: int, seed: int) -> np.ndarray:
    """Rows, ascending, of half 1 or 2 of `count` particles: a random split that only the seed decides."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2] if half == 1 else order[count // 2 :])


def rows_of_half(table: ParticleTable, half: int, settings: Settings) -> np.ndarray:
    """The same of a table. Patches overlap, so their halves are of whole micrographs."""
    if settings.particles_per_um2 is None:
        return half_rows(len(table), half, settings.seed)
    names, index = np.unique(table.micrographs, return_inverse=True)
    return np.flatnonzero(np.isin(index, half_rows(len(names), half, settings.seed)))


def build_simulator(plan: Plan, box: int, particles: Path, half: int, seed: int) -> tuple[ParticleImages, Simulator]:
    """The particles of one half at a box, and the simulator of images like them.

    Args:
        plan: of the run.
        box: pixels.
        particles: the run folder's particle STAR, whose images are all usable.
        half: 1 or 2.
        seed: of the simulator.
    """
    s, device = plan.settings, plan.device
    table = read_particles(particles, plan.data_dir)
    table = table.select(rows_of_half(table, half, s))
    images = ParticleImages(table, box, plan.background_radius, s.invert, cropped=plan.cropped)
    optics = images.table.ctf
    noise, drawable = _noise(plan, images)
    cutoff = float("inf")
    if s.aperture_diameter is not None and s.focal_length is not None:
        cutoff = objective_aperture_cutoff(s.aperture_diameter, s.focal_length, float(optics["voltage"][0]))
    kind: Callable[..., Simulator] = partial(Simulator, max_shift=s.max_shift)
    if s.particles_per_um2 is not None:
        kind = partial(CrowdSimulator, density=s.particles_per_um2 * 1e-8, radius=plan.mask_radius)
    simulator = kind(
        FourierProjector(box, s.oversampling, device=device),
        CtfParameters.from_columns(optics, device=device),
        noise,
        pixel_size=plan.pixel_size * plan.box / box,
        generator=torch.Generator(device).manual_seed(seed),
        # The setting is the envelope's value at the working box's Nyquist frequency.
        envelope_at_nyquist=s.envelope_at_nyquist ** ((box / plan.box) ** 2),
        aperture_cutoff=cutoff,
        drawable=drawable,
        views=ViewDistribution(device) if s.learn_poses else None,
    )
    return images, simulator


def build_training(plan: Plan, index: int, particles: Path, half: int) -> AnyTraining:
    """The training of one half at one stage (`index`), from a zero volume; else as `build_simulator`."""
    s, device, stage = plan.settings, plan.device, plan.stages[index]
    seeds = np.random.SeedSequence([s.seed, half, index]).generate_state(3)
    images, simulator = build_simulator(plan, stage.box, particles, half, int(seeds[0]))
    radius = plan.mask_radius / simulator.pixel_size
    if stage.method in ("search", "sharpening"):
        # The search finds a molecule without its symmetry more surely; the axes are found afterwards.
        search = stage.method == "search"
        volume = Volume(stage.box, radius, "C1" if search else s.symmetry, device)
        kind, batch_size = (Search, s.search_batch) if search else (Sharpening, CHUNK)
        return kind(s, stage.steps, images, simulator, volume, signal(images), batch_size, int(seeds[2]))
    start = torch.Generator().manual_seed(s.seed if s.shared_critic_start else int(seeds[1]))
    critic = build_critic(s, stage.box, start).to(device)
    span, free_from = stage.steps, 0.0
    if stage.method == "stable":
        simulator.shift_width.zero_()
        span = max(stage.steps, plan.stages[-1].steps)
    elif s.free_beyond is not None and index == len(plan.stages) - 1:
        free_from = stage.box * simulator.pixel_size / s.free_beyond
    volume = Volume(stage.box, radius, s.symmetry, device, free_from)
    return Training(s, stage.steps, images, simulator, volume, critic, signal(images), int(seeds[2]), span)


def _noise(plan: Plan, images: ParticleImages) -> tuple[Noise, Tensor | None]:
    """The noise model, and the particles (rows of `images`) whose CTF may be drawn with it; None: all."""
    if plan.noise is not None:
        table = read_particles(plan.noise, plan.data_dir, need_ctf=False)
        patches = ParticleImages(table, images.box, plan.background_radius, plan.settings.invert)
        names = patches.table.micrographs
        covered = np.isin(images.table.micrographs, names)
        if not covered.any():
            raise InputError(f"{plan.noise}: no patch comes from a micrograph of this half set; give more patches.")
        pixels = torch.from_numpy(patches.batch(np.arange(len(patches)))).to(plan.device)
        noise = PatchNoise(pixels, names, images.table.micrographs, turn=plan.settings.augment)
        return noise, torch.from_numpy(np.flatnonzero(covered)).to(plan.device)
    if plan.settings.noise_model == "white":
        return WhiteNoise(images.box), None
    if plan.settings.noise_model == "poisson":
        assert plan.settings.dose is not None
        return PoissonNoise(plan.settings.dose * images.pixel_size**2, images.box), None
    some = torch.from_numpy(images.batch(images.spread(MEASURED))).to(plan.device)
    background = background_mask(images.box, plan.particle_radius / images.pixel_size, plan.device)
    return ColouredNoise(background_power(some, background), images.box), None


def signal(images: ParticleImages) -> float:
    """S.d. of the signal: the variance near the centre beyond the background's, which is 1.

    1 for patches with particles anywhere: their unit is that of their file, at every box.
    """
    if images.radius_A is None:
        return 1.0
    axis = np.arange(images.box) - images.box // 2
    centre = np.hypot(axis[:, None], axis) < 0.7 * images.radius_A / images.pixel_size
    variance = float(images.batch(images.spread(MEASURED))[:, centre].var()) - 1.0
    return float(np.sqrt(max(variance, LEAST_SIGNAL**2)))


def start_from(training: AnyTraining, coarser: AnyTraining) -> None:
    """Carry map and scales over from the stage before.

    Voxels are smaller now, so a projection sums more of them; and the images' unit, the s.d. of the
    background, has grown with the frequencies that were let in.
    """
    old, new = coarser.simulator, training.simulator
    coarse: np.ndarray = coarser.volume.density.detach().cpu().numpy()
    if len(coarser.volume.point_group) < len(training.volume.point_group):
        coarse = find_axes(coarse, old.pixel_size, training.settings.symmetry).apply(coarse, old.pixel_size)
    fine = resample(coarse, old.pixel_size, new.projector.box, new.pixel_size)
    unit = training.signal / coarser.signal * old.projector.box / new.projector.box
    training.volume.start_from(torch.from_numpy(fine * unit).to(training.volume.density))
    new.load_state_dict(old.state_dict())
    if old.shift_width == 0:  # a stable stage; the shifts begin now
        new.shift_width.fill_(new.max_shift)


def checkpoint_path(folder: Path, half: int) -> Path:
    return folder / f"half{half}.pt"


def train_half(folder: Path, half: int, messages: "Queue[Message]") -> None:
    """Body of a half's process: train from the start or the last checkpoint, to the end or a signal."""
    stop = threading.Event()
    for number in (signals.SIGINT, signals.SIGTERM):
        signals.signal(number, lambda *_: stop.set())  # a step is never cut short
    signals.pthread_sigmask(signals.SIG_UNBLOCK, {signals.SIGINT})  # the parent blocked it at the start
    try:
        plan = Plan.read(folder)
        torch.set_num_threads(plan.threads)
        # The half of a run that was killed may still be at its last step.
        with locked(folder / f".half{half}.lock", wait=True):
            finished = all(_run_stages(plan, folder, half, messages, stop))
        messages.put(Message(half, "finished" if finished else "stopped"))
    except InputError as error:
        messages.put(Message(half, "failed", text=str(error)))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        messages.put(Message(half, "failed", text=OUT_OF_MEMORY))
    except OSError as error:  # a full disk, mostly
        messages.put(Message(half, "failed", text=str(unwritable(folder, error))))


def _run_stages(
    plan: Plan, folder: Path, half: int, messages: "Queue[Message]", stop: threading.Event
) -> Iterator[bool]:
    """Train stage after stage, each from the best map so far; yields whether each was finished.

    The trials of the coarsest box all start from zero. The critic's gap estimates the distance of the two
    distributions, so the trial with the smallest gap is the best of them.
    """
    checkpoint, particles = checkpoint_path(folder, half), folder / "particles.star"
    # Each stage reads the images anew, at its box; they must be the same ones.
    tables = [read_particles(particles, plan.data_dir)]
    if plan.noise is not None:
        tables.append(read_particles(plan.noise, plan.data_dir, need_ctf=False))
    saved = load_checkpoint(checkpoint, plan.device) if checkpoint.exists() else None
    first = 0 if saved is None else saved["stage"]
    best: AnyTraining | None = None
    if saved is not None and saved["best"] is not None:
        best = build_training(plan, saved["best_stage"], particles, half)
        best.load_state_dict(saved["best"])
    best_stage = None if saved is None else saved["best_stage"]
    every, pictures = max(1, plan.total_steps // RECORDS), _snapshot_steps(plan)
    seconds, started = 0.0, time.monotonic()
    latest = drawn = -float("inf")
    limit = 60 * (plan.settings.max_minutes or float("inf")) - COMPARISON_SECONDS
    for index in range(first, len(plan.stages)):
        before = sum(stage.steps for stage in plan.stages[:index])
        for table in tables:
            table.require_unchanged()
        training = build_training(plan, index, particles, half)
        trial = plan.stages[index] == plan.stages[0]
        training.seconds = seconds
        if saved is not None and index == first:
            training.load_state_dict(saved["training"])
        elif best is not None and not trial:
            start_from(training, best)
        at_once = training.micro_batch.size
        written, before_step, late = time.monotonic(), time.monotonic(), False
        for record in training.run():
            if not np.isfinite(record["map_change"]):
                raise InputError(f"Half {half}: the map is not finite after step {training.step}; lower the rates.")
            step = before + training.step
            if training.micro_batch.size < at_once:
                at_once = training.micro_batch.size
                text = smaller_batches(f"Half {half} at box {plan.stages[index].box}", at_once)
                messages.put(Message(half, "remark", text=text))
            now = time.monotonic()
            if now - latest > LATEST_SECONDS:
                _write(latest_path(folder, half), training)
                latest = now
            if step in pictures:
                _write(snapshot_path(folder, half, step), training)
            if half == 1 and (step in pictures or now - drawn > DRAWN_SECONDS):
                _picture(folder, training)
                drawn = time.monotonic()
            if step % every == 0 or step in pictures:
                messages.put(Message(half, "record", record | {"step": step, "box": plan.stages[index].box}))
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                stop.set()  # killed: nobody waits for this half any more
            now = time.monotonic()
            late = now - started + (now - before_step) > limit
            before_step = now
            if stop.is_set() or late:
                break
            if time.monotonic() - written > 60 * plan.settings.checkpoint_minutes:
                _save(checkpoint, index, training, best_stage, best)
                written = time.monotonic()
        _save(checkpoint, index, training, best_stage, best)
        if late and not stop.is_set():
            _write(snapshot_path(folder, half, plan.total_steps), training)
            if half == 1:
                _picture(folder, training)
            yield True
            return
        yield not stop.is_set()
        if stop.is_set():
            return
        seconds = training.seconds
        if best is None or not trial or training.distance < best.distance:
            best, best_stage = training, index


def _save(path: Path, stage: int, training: AnyTraining, best_stage: int | None, best: AnyTraining | None) -> None:
    """Write the stage that is running and the best one before it."""
    state = {"stage": stage, "training": training.state_dict(), "best_stage": best_stage}
    save_checkpoint(path, state | {"best": None if best is None else best.state_dict()})


def _write(path: Path, training: AnyTraining) -> None:
    write_volume(path, training.result().cpu().numpy(), training.simulator.pixel_size)


def _picture(folder: Path, training: AnyTraining) -> None:
    """What the simulator makes of the map, and what it has learned of the poses (`ViewDistribution.coverage`)."""
    draw_simulation(folder, training)
    views = training.simulator.views
    if views is None:
        return
    x, y, z = views.directions.double().cpu().numpy().T
    columns = {
        "rlnAngleRot": np.degrees(np.arctan2(y, x)),
        "rlnAngleTilt": np.degrees(np.arccos(z)),
        "cryoganViewDensity": views.density.cpu().numpy(),
        "cryoganCoverage": views.coverage().cpu().numpy(),
    }
    blocks = {"views": {name: values.tolist() for name, values in columns.items()}}
    blocks["shifts"] = {"cryoganShiftHalfWidthAngst": [float(training.simulator.shift_width)]}
    write_star(folder / VIEWS_FILE, blocks)


def _snapshot_steps(plan: Plan) -> set[int]:
    """Steps at which the map is kept, denser at the start, where it changes most; the last is among them.

    Of several trials of the first stage only the last is pictured: which one goes on is not known before.
    """
    trials = [stage for stage in plan.stages if stage == plan.stages[0]]
    skipped = sum(stage.steps for stage in trials[:-1])
    first = plan.work(skipped)
    shares = [first + (1 - first) * (i / SNAPSHOTS) ** 2 for i in range(1, SNAPSHOTS)]
    steps = range(skipped + 1, plan.total_steps + 1)
    return {plan.total_steps} | {skipped + 1 + bisect_left(steps, share, key=plan.work) for share in shares}
