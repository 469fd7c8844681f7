"""A user's files and settings, read and checked: what two half sets will be trained on."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cryogan.config import Settings, require_plausible
from cryogan.critics import Critic, Task, load_critic
from cryogan.errors import Finding, InputError
from cryogan.parallel.cores import available_cores
from cryogan.parallel.ranks import lots
from cryogan.particles import (
    ParticleImages,
    ParticleTable,
    crop,
    read_particles,
    read_pose_prior,
)
from cryogan.particles.halves import Halves
from cryogan.physics.symmetry import point_group
from cryogan.run.checksums import checksums
from cryogan.run.division import findings_of, split
from cryogan.run.folder import RunFolder
from cryogan.run.input_findings import findings_of_input
from cryogan.run.plan import ImageFiles, Plan, require_device
from cryogan.run.sizes import Sizes

_LARGEST_IN_PATCH = 0.75  # of the patch: a particle's diameter


class Inputs(NamedTuple):
    """What a run begins with.

    Attributes:
        plan: the run, with every number resolved.
        images: the preprocessed particles at the working box.
        findings: what a user should know.
        halves: how these particles are divided.
    """

    plan: Plan
    images: ParticleImages
    findings: list[Finding]
    halves: Halves

    def checksums(self) -> dict[str, str]:
        """Return what identifies the content of every input file, see `cryogan.run.checksums`."""
        plan, table = self.plan, self.images.table
        tables = [table.source, *table.joined]
        tables += [path for path in (plan.settings.mask, plan.settings.pose_prior) if path is not None]
        stacks = [*table.stacks]
        if plan.noise is not None:
            patches = read_particles(plan.noise, plan.data_dir, need_ctf=False)
            tables += [plan.noise, *patches.joined]
            stacks += patches.stacks
        return checksums(tables, stacks)


def read_inputs(
    particles: Path,
    noise: Path | None,
    data_dir: Path | None,
    settings: Settings,
    cache: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Inputs:
    """Read and check all input; nothing is written but particles and patches cropped to the working box.

    Args:
        particles: RELION STAR or cryoSPARC .cs, with CTF.
        noise: STAR or .cs of background patches with micrograph names.
        data_dir: where else to look for image stacks.
        settings: settings of the run.
        cache: folder for cropped particles and background patches; None: they are read from their files.
        progress: called with the share, 0 to 1, of the particles that is cropped.

    Raises:
        InputError: anything that would stop the run later.
    """
    critic = _require_possible(settings, noise)
    prior = None if settings.pose_prior is None else read_pose_prior(settings.pose_prior)
    table = read_particles(particles, data_dir, found=_folders_of_run(particles))
    if settings.kind == "patches":
        _require_unpicked(table, noise, settings)
    sizes = Sizes.of(table, settings)
    require_plausible(settings, sizes.width, sizes.width / sizes.box)
    patches = None if noise is None else read_particles(noise, data_dir, need_ctf=False)
    if patches is not None:
        _require_same_box(patches, table)
    cropped = _crop(table, patches, sizes, settings, cache, progress)
    images = _images(table, sizes, settings, cropped[0])
    _require_enough(images, particles, settings)
    task = Task(settings, sizes.box, images.pixel_size, sizes.mask_diameter / 2, len(images) // 2)
    halves = split(settings, images.table)
    of_halves = findings_of(halves, images.table)
    plan = Plan(
        settings=settings,
        particles=particles.resolve(),
        noise=noise.resolve() if noise else None,
        data_dir=data_dir.resolve() if data_dir else None,
        cropped=cropped[0],
        cropped_noise=cropped[1],
        box=sizes.box,
        pixel_size=images.pixel_size,
        particle_radius=sizes.particle_diameter / 2,
        mask_radius=sizes.mask_diameter / 2,
        particle_count=len(images),
        stages=critic.stages(task),
        threads=settings.threads or max(1, available_cores() // 2),
        halves=" ".join(found.sentence for found in of_halves if found.severity == "note"),
        image_folders=table.image_folders,
        image_files=ImageFiles.of(table),
        mask=settings.mask,
    )
    findings = findings_of_input(plan, images, table, patches, prior)
    return Inputs(plan, images, [*findings, *of_halves], halves)


def _require_possible(settings: Settings, noise: Path | None) -> Critic:
    """Refuse settings that no particles can be used with, and return the critic that they name."""
    point_group(settings.symmetry)
    critic = load_critic(settings.critic)
    require_device(settings.device)
    if settings.dose is not None and noise is not None:
        raise InputError("Give background patches (--noise) or --noise-model poisson, not both.")
    return critic


def _folders_of_run(particles: Path) -> tuple[Path, ...]:
    """Return where the images of a run were found, if the particle file stands in the run's folder."""
    for folder in particles.absolute().parents:
        if RunFolder(folder).record.is_file():
            with suppress(InputError):
                return Plan.read(folder).image_folders
    return ()


def require_images(plan: Plan, processes: int) -> None:
    """Refuse more processes than a batch can be shared out to.

    Args:
        plan: plan of the run.
        processes: number of processes of a distributed run, for both halves.

    Raises:
        InputError: a process would have no images.
    """
    setting = plan.critic.batch_setting
    batch, name = getattr(plan.settings, setting), setting.replace("_", "-")
    if lots(batch) < processes // 2:
        raise InputError(
            f"--{name} {batch} is drawn in {lots(batch)} parts, too few for {processes // 2} processes of a half map. "
            f"Start at most {2 * lots(batch)} processes."
        )


def _images(table: ParticleTable, sizes: Sizes, settings: Settings, cropped: Path | None) -> ParticleImages:
    """The usable particles at the working box; they are looked at here and held in memory by the halves."""
    return ParticleImages(
        table,
        sizes.box,
        sizes.background,
        settings.invert,
        memory_limit_bytes=0,
        cropped=cropped,
        keep_gradient=settings.keep_gradient,
    )


def _crop(
    table: ParticleTable,
    patches: ParticleTable | None,
    sizes: Sizes,
    settings: Settings,
    cache: Path | None,
    progress: Callable[[float], None],
) -> tuple[Path | None, Path | None]:
    """Keep the particles and the background patches at the working box in `cache`, if there is one."""
    if cache is None:
        return None, None
    place = (sizes.box, sizes.background, settings.invert, cache.resolve())
    try:
        particles = crop(table, *place, progress, keep_gradient=settings.keep_gradient)
        return particles, None if patches is None else crop(patches, *place, keep_gradient=settings.keep_gradient)
    except OSError as error:
        raise InputError(
            f"Cannot keep cropped particles in {cache} ({error.strerror}). Give another --cache."
        ) from error


def _require_enough(images: ParticleImages, particles: Path, settings: Settings) -> None:
    """Refuse a set without a batch for each half, and frequencies that the working box lacks."""
    if settings.free_beyond is not None and settings.free_beyond <= 2 * images.pixel_size:
        raise InputError(
            f"--free-beyond {settings.free_beyond:g}: the working box of {images.box} px holds nothing finer than "
            f"{2 * images.pixel_size:.2f} A. Give a larger --box."
        )
    if len(images) < 2 * settings.batch_size:
        raise InputError(
            f"{particles}: {len(images)} particles are too few for two halves of one batch of "
            f"{settings.batch_size} each. Give more particles or a smaller --batch-size."
        )


def _require_unpicked(table: ParticleTable, noise: Path | None, settings: Settings) -> None:
    """Refuse what patches with particles anywhere lack, and what picked particles alone can have."""
    if noise is None:
        raise InputError(
            "--particles-per-um2 needs --noise, the background patches of cryogan extract-patches: in a patch with "
            "particles anywhere no place is surely background."
        )
    largest = _LARGEST_IN_PATCH * table.box * table.pixel_size
    if settings.particle_diameter is None or max(settings.particle_diameter, settings.mask_diameter or 0) > largest:
        raise InputError(
            f"--particles-per-um2 needs --particle-diameter, which like --mask-diameter is at most {largest:.0f} A, so "
            "that many are whole in patches not cut around them; or extract patches of twice the diameter."
        )
    if len(np.unique(table.micrographs)) < 2:
        raise InputError(
            f"{table.source}: --particles-per-um2 needs two micrographs at least: the halves have to share none."
        )


def _require_same_box(patches: ParticleTable, particles: ParticleTable) -> None:
    """Refuse patches that are not of the particles' box."""
    width, expected = patches.box * patches.pixel_size, particles.box * particles.pixel_size
    if patches.box != particles.box or abs(width / expected - 1) > 1e-2:
        raise InputError(
            f"{patches.source}: the patches are {patches.box} px of {patches.pixel_size:.3f} A, the particles "
            f"{particles.box} px of {particles.pixel_size:.3f} A. Extract both alike."
        )
