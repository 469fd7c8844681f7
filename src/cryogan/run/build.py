"""Builders for one half of a plan: its particles, the simulator of images like them, and the trainer of a stage."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.critics import Trainer, TrainerInputs
from cryogan.grids import centred_radius
from cryogan.parallel.ranks import ALONE, Ranks
from cryogan.particles import ParticleImages, ParticleTable, read_particles, read_pose_prior
from cryogan.particles.halves import patches_of_half, recorded_halves
from cryogan.particles.images import MEMORY_LIMIT
from cryogan.physics.ctf import CtfParameters, objective_aperture_cutoff
from cryogan.physics.noise import Noise
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator
from cryogan.physics.symmetry import point_group
from cryogan.physics.unpicked import UnpickedSimulator
from cryogan.run.division import split
from cryogan.run.noise import MEASURED, NoiseInputs, build_noise, patch_noise
from cryogan.run.plan import Plan
from cryogan.run.volume_mask import read_volume_mask
from cryogan.validation import find_axes, resample

LEAST_SIGNAL = 0.1  # floor of the estimated signal s.d.: below it the estimate is noise
_PER_UM2 = 1e-8  # 1 / um^2 in 1 / A^2


@dataclass(frozen=True)
class HalfTable:
    """The particles of one half.

    Attributes:
        table: the particles, without the text of their file.
        shared_micrographs: names of the micrographs of which the other half has particles, too.
    """

    table: ParticleTable
    shared_micrographs: NDArray[np.str_]


def read_half(plan: Plan, particles: Path, half: int) -> HalfTable:
    """Read the particles of one half.

    Args:
        plan: plan of the run.
        particles: the `particles.star` of the run's folder, which records the halves; or the plan's own input, which is
            divided here, for whoever looks at a half before there is a run.
        half: 1 or 2.
    """
    return _read_half(plan, particles, particles.stat().st_mtime_ns, half)


@lru_cache(maxsize=1)  # the table of a million particles takes longer to read than most stages to begin
def _read_half(plan: Plan, particles: Path, _written: int, half: int) -> HalfTable:
    """Read the particles of one half, without the text of their STAR file; anew when the file is written again."""
    table = read_particles(particles, plan.data_dir, found=plan.image_folders)
    is_input = particles.resolve() == plan.particles
    halves = split(plan.settings, table).subset if is_input else recorded_halves(table)
    shared = np.intersect1d(table.micrographs[halves == 1], table.micrographs[halves == 2])
    return HalfTable(replace(table.select(np.flatnonzero(halves == half)), star=None), shared)


def build_simulator(
    plan: Plan, box: int, particles: Path, half: int, seed: int, rows: NDArray[np.int64] | None = None
) -> tuple[ParticleImages, Simulator]:
    """Build the images of one half at a box, and the simulator of images like them.

    Args:
        plan: plan of the run.
        box: pixels.
        particles: as for `read_half`; all images are usable.
        half: 1 or 2.
        seed: seed of the simulator.
        rows: rows (n,) of the half's table that are read; None: all.
    """
    s, device = plan.settings, plan.device
    found = read_half(plan, particles, half)
    images = ParticleImages(
        found.table if rows is None else found.table.select(rows),
        box,
        plan.background_radius,
        s.invert,
        MEMORY_LIMIT,
        cropped=plan.cropped,
        checked=True,
        keep_gradient=s.keep_gradient,
    )
    optics = images.table.ctf
    noise, ctf_rows = _noise(plan, images, found.shared_micrographs, half)
    cutoff = float("inf")
    if s.aperture_diameter is not None and s.focal_length is not None:
        cutoff = objective_aperture_cutoff(s.aperture_diameter, s.focal_length, float(optics["voltage"][0]))
    simulator = _kind_of_simulator(plan)(
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


def _kind_of_simulator(plan: Plan) -> Callable[..., Simulator]:
    """Return the simulator's class: of one particle in each image, or of any number in each patch."""
    density = plan.settings.particles_per_um2
    if density is None:
        return partial(Simulator, max_shift=plan.settings.max_shift)
    return partial(UnpickedSimulator, density=density * _PER_UM2, radius_A=plan.mask_radius)


def build_trainer(plan: Plan, index: int, particles: Path, half: int, ranks: Ranks = ALONE) -> Trainer:
    """Build the training of one half at one stage, from a zero volume.

    Args:
        plan: plan of the run.
        index: index of the stage.
        particles: as for `read_half`.
        half: 1 or 2.
        ranks: the processes that train this half together.
    """
    s, stage = plan.settings, plan.stages[index]
    again = [plan.tries[half - 1]] if plan.tries[half - 1] > 1 else []
    seeds = np.random.SeedSequence([s.seed, half, index, *again]).generate_state(3)
    simulator_seed, critic_seed, order_seed = map(int, seeds)
    images, simulator = build_simulator(plan, stage.box, particles, half, simulator_seed)
    inputs = TrainerInputs(
        plan.task,
        plan.stages,
        index,
        images,
        simulator,
        signal_deviation(images),
        critic_seed,
        order_seed,
        ranks,
        build_mask(plan, stage.box),
    )
    trainer = plan.critic.trainer(inputs)
    if plan.device.type == "cuda":  # the halves share it
        free = torch.cuda.mem_get_info(plan.device)[0] / 2
        trainer.micro_batch.size = plan.cost.memory(stage).images_within(free)
    return trainer


def build_mask(plan: Plan, box: int) -> Tensor | None:
    """Return the mask (D, D, D) that bounds the volume at a box; None: a sphere does."""
    if plan.mask is None:
        return None
    mask = read_volume_mask(plan.mask, box, plan.box * plan.pixel_size, plan.settings.symmetry).values
    return torch.from_numpy(mask).to(plan.device)


def _views(plan: Plan) -> PoseDistribution:
    """Uniform at first; for a critic that keeps the prior's frame, the prior, under each symmetry operation."""
    s, views = plan.settings, PoseDistribution(plan.device)
    if s.pose_prior is None:
        return views
    table = read_pose_prior(s.pose_prior)
    directions, concentrations, weights = (
        torch.from_numpy(column).float().to(plan.device)
        for column in (table.directions, table.concentrations, table.weights)
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


def _noise(
    plan: Plan, images: ParticleImages, shared_micrographs: NDArray[np.str_], half: int
) -> tuple[Noise, Tensor | None]:
    """The noise model, and the rows of `images` whose CTF may be simulated with it; None: all."""
    s = plan.settings
    if plan.noise is None:
        return build_noise(s.noise_model, NoiseInputs(s, images, plan.particle_radius, plan.device)), None
    table = read_particles(plan.noise, plan.data_dir, need_ctf=False)
    table = table.select(patches_of_half(table, shared_micrographs, half, s.seed))
    lent = np.flatnonzero(np.isin(table.micrographs, images.table.micrographs))
    table = table.select(lent) if len(lent) else table  # or else none of them, which is refused with its reason
    patches = ParticleImages(
        table,
        images.box,
        plan.background_radius,
        s.invert,
        cropped=plan.cropped_noise,
        keep_gradient=s.keep_gradient,
    )
    return patch_noise(images, table, patches, turn=s.augment, device=plan.device)


def signal_deviation(images: ParticleImages) -> float:
    """Return the s.d. of the signal: the root of the variance near the centre beyond the background's, which is 1.

    It is 1 for patches with particles anywhere: their unit is that of their file, at every box.
    """
    if images.radius_A is None:
        return 1.0
    return float(np.sqrt(max(signal_variance(images, images.spread(MEASURED)), LEAST_SIGNAL**2)))


def signal_variance(images: ParticleImages, rows: NDArray[np.integer]) -> float:
    """Return the variance of picked particles near their centre beyond the background's, which is 1.

    Args:
        images: particles.
        rows: rows (n,) of those that are measured.
    """
    assert images.radius_A is not None
    centre = centred_radius(images.box) < 0.7 * images.radius_A / images.pixel_size
    return float(images.batch(rows)[:, centre].var()) - 1.0


def gains_symmetry(trainer: Trainer, coarser: Trainer) -> bool:
    """Whether the stage that begins imposes a symmetry that the stage before did not."""
    return len(coarser.volume.point_group) < len(trainer.volume.point_group)


def start_from(trainer: Trainer, coarser: Trainer) -> None:
    """Carry map and scales over from the stage before.

    Voxels are smaller now, so a projection sums more of them; and the images' unit, the s.d. of the background, has
    grown with the frequencies that were let in.

    Args:
        trainer: trainer of the stage that begins; is changed.
        coarser: trainer of the stage before.
    """
    old, new = coarser.simulator, trainer.simulator
    coarse: np.ndarray = coarser.volume.density.detach().cpu().numpy()
    if gains_symmetry(trainer, coarser):
        in_frame = trainer.settings.mask is not None  # nearly: the search was bounded by the mask
        axes = find_axes(coarse, old.pixel_size, trainer.settings.symmetry, nearest=in_frame)
        coarse = axes.apply(coarse, old.pixel_size)
    fine = resample(coarse, old.pixel_size, new.projector.box, new.pixel_size)
    unit = trainer.signal / coarser.signal * old.projector.box / new.projector.box
    trainer.volume.start_from(torch.from_numpy(fine * unit).to(trainer.volume.density))
    new.load_state_dict(old.state_dict())
    if old.shift_width == 0:  # a stable stage; the shifts begin now
        new.shift_width.fill_(new.max_shift)
