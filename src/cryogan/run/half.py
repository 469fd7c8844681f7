"""One half map: its training, built from a plan, and the process that runs it."""

import multiprocessing
import signal as signals
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cryogan.config import Settings
from cryogan.critics import Trainer, TrainerInputs
from cryogan.critics.matching.trainer import Sharpening
from cryogan.critics.micro_batch import OUT_OF_MEMORY, is_out_of_memory, smaller_batches
from cryogan.critics.records import Record
from cryogan.errors import InputError
from cryogan.files import locked, unwritable
from cryogan.grids import centred_radius
from cryogan.parallel.launch import STOPPING
from cryogan.parallel.ranks import ALONE, Ranks
from cryogan.particles import (
    ParticleImages,
    ParticleTable,
    read_particles,
    read_view_table,
    write_star,
    write_volume,
)
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
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator
from cryogan.physics.symmetry import point_group
from cryogan.physics.unpicked import UnpickedSimulator
from cryogan.run.checkpoint import load_checkpoint, save_checkpoint
from cryogan.run.figures import class_path, classes_path, draw_simulation, latest_path, snapshot_path
from cryogan.run.plan import VIEWS_FILE, Plan
from cryogan.validation import find_axes, resample

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
    record: dict[str, float] | None = None
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
    table = _half_table(particles, particles.stat().st_mtime_ns, plan.data_dir, half, s)
    images = ParticleImages(table, box, plan.background_radius, s.invert, cropped=plan.cropped, checked=True)
    optics = images.table.ctf
    noise, ctf_rows = _noise(plan, images)
    cutoff = float("inf")
    if s.aperture_diameter is not None and s.focal_length is not None:
        cutoff = objective_aperture_cutoff(s.aperture_diameter, s.focal_length, float(optics["voltage"][0]))
    kind: Callable[..., Simulator] = partial(Simulator, max_shift=s.max_shift)
    if s.particles_per_um2 is not None:
        kind = partial(UnpickedSimulator, density=s.particles_per_um2 * 1e-8, radius_A=plan.mask_radius)
    simulator = kind(
        FourierProjector(box, s.oversampling, device=device),
        CtfParameters.from_columns(optics, device=device),
        noise,
        pixel_size=plan.pixel_size * plan.box / box,
        generator=torch.Generator(device).manual_seed(seed),
        # The setting is the envelope's value at the working box's Nyquist frequency.
        envelope_at_nyquist=s.envelope_at_nyquist ** ((box / plan.box) ** 2),
        aperture_cutoff=cutoff,
        ctf_rows=ctf_rows,
        views=_views(plan) if plan.uneven_views else None,
    )
    return images, simulator


@lru_cache(maxsize=1)  # the table of a million particles takes longer to read than most stages to begin
def _half_table(particles: Path, _: int, data_dir: Path | None, half: int, settings: Settings) -> ParticleTable:
    """The particles of one half, without their STAR's text; read anew when the file's time of change is another."""
    table = read_particles(particles, data_dir)
    return replace(table.select(rows_of_half(table, half, settings)), star=None)


def build_training(plan: Plan, index: int, particles: Path, half: int, ranks: Ranks = ALONE) -> Trainer:
    """The training of one half at one stage (`index`), by `ranks`, from a zero volume; else as `build_simulator`."""
    training = _build(plan, index, particles, half, ranks)
    if plan.device.type == "cuda":  # the halves share it
        free = torch.cuda.mem_get_info(plan.device)[0] / 2
        training.micro_batch.size = plan.memory(plan.stages[index]).images_within(free)
    return training


def _build(plan: Plan, index: int, particles: Path, half: int, ranks: Ranks) -> Trainer:
    s, stage = plan.settings, plan.stages[index]
    simulator_seed, critic_seed, order_seed = map(int, np.random.SeedSequence([s.seed, half, index]).generate_state(3))
    images, simulator = build_simulator(plan, stage.box, particles, half, simulator_seed)
    inputs = TrainerInputs(
        plan.task, plan.stages, index, images, simulator, signal(images), critic_seed, order_seed, ranks
    )
    return plan.critic.trainer(inputs)


def _views(plan: Plan) -> PoseDistribution:
    """Uniform at first, and for the convolutional critic, whose map takes the prior's frame, the prior."""
    s, views = plan.settings, PoseDistribution(plan.device)
    if s.pose_prior is None:
        return views
    table = read_view_table(s.pose_prior)
    directions, concentrations, weights = (
        torch.from_numpy(each).float().to(plan.device)
        for each in (table.directions, table.concentrations, table.weights)
    )
    if plan.critic.finds_frame:
        views.prior = views.mixture(directions, concentrations, weights)
        return views
    parts = [
        views.mixture(directions @ element.T, concentrations, weights)
        for element in torch.from_numpy(point_group(s.symmetry)).to(directions)
    ]
    views.density.copy_(torch.stack(parts).mean(0))
    return views


def _noise(plan: Plan, images: ParticleImages) -> tuple[Noise, Tensor | None]:
    """The noise model, and the particles (rows of `images`) whose CTF may be drawn with it; None: all."""
    if plan.noise is not None:
        table = read_particles(plan.noise, plan.data_dir, need_ctf=False)
        where = (images.box, plan.background_radius, plan.settings.invert)
        patches = ParticleImages(table, *where, cropped=plan.cropped_noise)
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
    centre = centred_radius(images.box) < 0.7 * images.radius_A / images.pixel_size
    variance = float(images.batch(images.spread(MEASURED))[:, centre].var()) - 1.0
    return float(np.sqrt(max(variance, LEAST_SIGNAL**2)))


def start_from(training: Trainer, coarser: Trainer) -> None:
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
    """Body of a half's process: `train` it with the plan in the folder, and tell the parent how that went."""
    stop, parent = stopped_by_signals(), multiprocessing.parent_process()

    def stopped() -> bool:
        # A parent that was killed waits no more.
        return stop.is_set() or (parent is not None and not parent.is_alive())

    try:
        plan = Plan.read(folder)
        torch.set_num_threads(plan.threads)
        finished = train(plan, folder, half, messages.put, stopped)
        messages.put(Message(half, "finished" if finished else "stopped"))
    except InputError as error:
        messages.put(Message(half, "failed", text=str(error)))


def stopped_by_signals() -> threading.Event:
    """Set by Ctrl-C, SIGTERM or SIGUSR1 from now on: a step is never cut short."""
    stop = threading.Event()
    for number in (signals.SIGINT, *STOPPING):
        signals.signal(number, lambda *_: stop.set())
    signals.pthread_sigmask(signals.SIG_UNBLOCK, {signals.SIGINT})  # the parent blocked it at the start
    return stop


def train(
    plan: Plan,
    folder: Path,
    half: int,
    tell: Callable[[Message], None],
    stopped: Callable[[], bool],
    ranks: Ranks = ALONE,
) -> bool:
    """Train a half from the start or the last checkpoint.

    Args:
        plan: of the run.
        folder: of the run.
        half: 1 or 2.
        tell: is told records and remarks.
        stopped: is asked after each step, whether to end with a checkpoint.
        ranks: the processes that train this half; the first of them writes.

    Returns:
        Whether the half is finished.

    Raises:
        InputError: the files have changed, the disk is full, memory has run out.
    """
    try:
        # The half of a run that was killed may still be at its last step.
        with locked(folder / f".half{half}.lock", wait=True) if ranks.first else nullcontext():
            ranks.any(True)  # until the first holds the lock
            return all(_run_stages(plan, folder, half, tell, stopped, ranks))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(OUT_OF_MEMORY) from error
    except OSError as error:  # a full disk, mostly
        raise unwritable(folder, error) from error


def _run_stages(
    plan: Plan,
    folder: Path,
    half: int,
    tell: Callable[[Message], None],
    stopped: Callable[[], bool],
    ranks: Ranks,
) -> Iterator[bool]:
    """Train stage after stage, each from the best map so far; yields whether each was finished.

    The trials of the coarsest box all start from zero. The critic's gap estimates the distance of the two
    distributions, so the trial with the smallest gap is the best of them.
    """
    checkpoint, particles = checkpoint_path(folder, half), folder / "particles.star"
    # Each stage reads the images anew, at its box; they must be the same ones.
    tables = [_half_table(particles, particles.stat().st_mtime_ns, plan.data_dir, half, plan.settings)]
    if plan.noise is not None:
        tables.append(read_particles(plan.noise, plan.data_dir, need_ctf=False))
    saved = load_checkpoint(checkpoint, plan.device) if checkpoint.exists() else None
    first = 0 if saved is None else saved["stage"]
    best: Trainer | None = None
    if saved is not None and saved["best"] is not None:
        best = build_training(plan, saved["best_stage"], particles, half, ranks)
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
        training = build_training(plan, index, particles, half, ranks)
        trial = plan.stages[index] == plan.stages[0]
        training.seconds = seconds
        if saved is not None and index == first:
            training.load_state_dict(saved["training"])
        elif best is not None and not trial:
            start_from(training, best)
            ranks.copy_first(training.volume.state_dict().values())  # other machines may find other axes
        at_once = training.micro_batch.size
        written, before_step, stop, late = time.monotonic(), time.monotonic(), False, False
        record: Record | None = None
        for record in training.run():
            step = before + training.step
            reported = step % every == 0 or step in pictures
            if reported:  # to look at a record is to wait for the GPU
                _require_finite(half, training, record)
            if training.micro_batch.size < at_once:
                at_once = training.micro_batch.size
                text = smaller_batches(f"Half {half} at box {plan.stages[index].box}", at_once)
                tell(Message(half, "remark", text=text))
            now = time.monotonic()
            if ranks.first and now - latest > LATEST_SECONDS:
                _write(latest_path(folder, half), training)
                latest = now
            if ranks.first and step in pictures:
                _write(snapshot_path(folder, half, step), training)
            if ranks.first and half == 1 and (step in pictures or now - drawn > DRAWN_SECONDS):
                _picture(folder, training)
                drawn = time.monotonic()
            if ranks.first and reported:
                numbers = {**record, "step": step, "box": plan.stages[index].box}
                tell(Message(half, "record", numbers))
            now = time.monotonic()
            stop, late = ranks.any(stopped(), now - started + (now - before_step) > limit)
            before_step = now
            if stop or late:
                break
            if ranks.first and time.monotonic() - written > 60 * plan.settings.checkpoint_minutes:
                _require_finite(half, training, record)
                _save(checkpoint, index, training, best_stage, best)
                written = time.monotonic()
        if record is not None:
            _require_finite(half, training, record)
        if ranks.first:
            _save(checkpoint, index, training, best_stage, best)
            if not stop and (late or index == len(plan.stages) - 1):
                _write_classes(folder, half, training)
        if late and not stop:
            if ranks.first:
                _write(snapshot_path(folder, half, plan.total_steps), training)
                if half == 1:
                    _picture(folder, training)
            yield True
            return
        yield not stop
        if stop:
            return
        seconds = training.seconds
        if best is None or not trial or training.distance < best.distance:
            best, best_stage = training, index


def _require_finite(half: int, training: Trainer, record: Record) -> None:
    if not np.isfinite(record["map_change"]):
        raise InputError(f"Half {half}: the map is not finite after step {training.step}; lower the rates.")


def _save(path: Path, stage: int, training: Trainer, best_stage: int | None, best: Trainer | None) -> None:
    """Write the stage that is running and the best one before it."""
    state = {"stage": stage, "training": training.state_dict(), "best_stage": best_stage}
    save_checkpoint(path, state | {"best": None if best is None else best.state_dict()})


def _write(path: Path, training: Trainer) -> None:
    write_volume(path, training.result().cpu().numpy(), training.simulator.pixel_size)


def _write_classes(folder: Path, half: int, training: Trainer) -> None:
    """What the comparison of the halves needs of the classes, if there are several."""
    if not isinstance(training, Sharpening) or len(training.classes) == 1:
        return
    for number, volume in enumerate(training.class_maps(), 1):
        write_volume(class_path(folder, half, number), volume.cpu().numpy(), training.simulator.pixel_size)
    probabilities = training.class_probabilities().T.cpu()
    blocks = {
        "weights": {"cryoganClassWeight": training.weights.tolist()},
        "particles": {f"cryoganClassProbability{k}": each.tolist() for k, each in enumerate(probabilities, 1)},
    }
    write_star(classes_path(folder, half), blocks)


def _picture(folder: Path, training: Trainer) -> None:
    """What the simulator makes of the map, and from where (`PoseDistribution.coverage`), where that is not uniform."""
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
    if views.prior_fit > 0:
        blocks["prior"] = {"cryoganPriorCorrelation": [float(views.prior_fit)]}
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
