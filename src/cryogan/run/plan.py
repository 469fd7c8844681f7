"""From a user's files and settings to a plan: what two half sets are trained on, with every number resolved."""

import os
import platform
import sys
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import scipy
import tomli_w
import torch

import cryogan
from cryogan.config import Settings, parse_stages, validate
from cryogan.critics import Critic, Memory, Stage, Task, load_critic
from cryogan.errors import InputError
from cryogan.files import replacing
from cryogan.particles import ParticleImages, ParticleTable, contrast_sign, crop, read_particles, read_view_table
from cryogan.particles.images import MEMORY_LIMIT
from cryogan.physics.symmetry import point_group

RUN_FILE = "run.toml"
VIEWS_FILE = "views.star"  # from where half 1 simulates, where that is not uniform
_DEFAULT_BOX = 64
PARTICLE_FRACTION = 0.875  # of the box: the corners and a thin ring beyond it are background
_MASK_FRACTION = 0.95  # the paper: 171 of 180
_LARGEST_IN_PATCH = 0.75  # of the patch: a particle's diameter
COMPARISON_SECONDS = 40.0  # alignment, FSC and pictures at the end of a run

# Of a half's memory, measured: benchmarks/scaling.py, benchmarks/million.py.
_LIBRARIES_GIB = 0.42
_READING, _TABLE = 460.0, 250.0  # bytes a particle: while the table of both halves is read, and later


@dataclass(frozen=True)
class Plan:
    """A run: its inputs, its settings, and the numbers that follow from both."""

    settings: Settings
    particles: Path
    noise: Path | None
    data_dir: Path | None
    cropped: Path | None  # a stack of the particles at the working box, to be read in place of their files
    cropped_noise: Path | None  # the same of the background patches
    box: int
    pixel_size: float  # A, at the working box
    particle_radius: float  # A
    mask_radius: float  # A
    particle_count: int
    stages: tuple[Stage, ...]  # coarse to fine; the last has the working box
    threads: int

    @property
    def background_radius(self) -> float | None:
        """Of the circle, A, outside which a picked particle's image is background; None: patches have none."""
        return self.particle_radius if self.settings.particles_per_um2 is None else None

    @property
    def total_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def task(self) -> Task:
        """What each half learns."""
        return Task(self.settings, self.box, self.pixel_size, self.mask_radius, self.particle_count // 2)

    @cached_property
    def critic(self) -> Critic:
        """The critic that the settings name."""
        return load_critic(self.settings.critic)

    @cached_property
    def _seconds(self) -> list[float]:
        steps = ((stage, step) for stage in self.stages for step in range(stage.steps))
        return list(accumulate((self.critic.step_seconds(self.task, *each) for each in steps), initial=0.0))

    @property
    def seconds(self) -> float:
        """Of a half's training on one core like that of `Critic.step_seconds`."""
        return self._seconds[-1]

    def work(self, step: int) -> float:
        """Share, 0 to 1, of the run's work that is done after `step` volume updates."""
        return self._seconds[step] / self.seconds

    def minutes_left(self, step: int, minutes: float) -> float:
        """Of a half's training, judged from the `minutes` that its first `step` (1 or more) volume updates took."""
        done = self.work(step)
        return minutes * (1 - done) / done

    def memory(self, stage: Stage) -> Memory:
        """On the device; the factors are measured on the CPU, from 32 to 192 px (`benchmarks/scaling.py`)."""
        return self.critic.memory(self.task, stage)

    @property
    def memory_gib(self) -> float:
        """Of a half's process on the CPU, about."""
        half = self.particle_count // 2
        images = max((held for stage in self.stages if (held := 4 * half * stage.box**2) <= MEMORY_LIMIT), default=0)
        stages = max(self.memory(stage).total for stage in self.stages)
        working = images + _TABLE * self.particle_count + stages
        return _LIBRARIES_GIB + max(_READING * self.particle_count, working) / 2**30

    @property
    def uneven_views(self) -> bool:
        """Whether views are drawn from a density, and `VIEWS_FILE` is written."""
        return self.settings.learn_poses or self.settings.pose_prior is not None

    @property
    def device(self) -> torch.device:
        return torch.device(self.settings.device)

    def on(self, gpu: int) -> "Plan":
        """The same for one of this machine's GPUs.

        Raises:
            InputError: there is none.
        """
        device = f"cuda:{gpu}"
        require_device(device)
        return replace(self, settings=self.settings.model_copy(update={"device": device}))

    @property
    def machine(self) -> str:
        """A sentence on what the run computes with, and on a GPU that it leaves alone."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''} for each half"
        if self.device.type == "cuda":
            return f"Device: {self.device} ({torch.cuda.get_device_name(self.device)}), {threads}."
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        unused = f"not used: {', '.join(gpus)} (--device cuda)" if gpus else "no CUDA device is visible"
        return f"Device: {self.device}, {threads}; {unused}."

    def write(self, folder: Path) -> None:
        """Record the plan as `run.toml`: settings, inputs, resolved numbers, versions and machine."""
        plan = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items() if v is not None}
        plan.pop("settings")
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "none"
        record: dict[str, Any] = {
            "command": " ".join(sys.argv),
            "settings": self.settings.model_dump(exclude_none=True),
            "plan": plan,
            # Not from installed metadata: a checkout on PYTHONPATH has none.
            "versions": {each.__name__: str(each.__version__) for each in (cryogan, torch, np, scipy, mrcfile)}
            | {"python": platform.python_version()},
            "machine": {"system": platform.platform(), "cores": len(os.sched_getaffinity(0)), "gpu": gpu},
        }
        with replacing(folder / RUN_FILE) as temporary:
            temporary.write_text(tomli_w.dumps(record))

    def require_device(self, folder: Path) -> None:
        """That the run in this folder can go on here. Raises InputError."""
        require_device(self.settings.device, f'go on where there is one, or set device = "cpu" in {folder / RUN_FILE}.')

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """The plan of a run folder.

        Raises:
            InputError: the folder has no readable `run.toml`.
        """
        file = folder / RUN_FILE
        try:
            record = tomllib.loads(file.read_text())
            plan = record["plan"]
            names = ("particles", "noise", "data_dir", "cropped", "cropped_noise")
            paths = {name: Path(plan[name]) if name in plan else None for name in names}
            plan["stages"] = tuple(Stage(**stage) for stage in plan["stages"])
            return cls(**(plan | paths), settings=validate(record["settings"], f"{file}: "))
        except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{folder} is not the folder of a run: cannot read {file} ({error}).") from error


def make_plan(
    particles: Path,
    noise: Path | None,
    data_dir: Path | None,
    settings: Settings,
    cache: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Plan, ParticleImages, list[str]]:
    """Read and check all input, before anything is written but particles and patches cropped to the working box.

    Args:
        particles, noise, data_dir, settings: as for `cryogan.run.reconstruct.reconstruct`.
        cache: folder for cropped particles and background patches; None: they are read from their files.
        progress: is told the share of the particles that is cropped.

    Returns:
        The plan, the preprocessed particles, and what a user should know, a sentence each.

    Raises:
        InputError: anything that would stop the run later.
    """
    point_group(settings.symmetry)
    critic = load_critic(settings.critic)
    require_device(settings.device)
    if (settings.aperture_diameter is None) != (settings.focal_length is None):
        raise InputError("An objective aperture needs both --aperture-diameter and --focal-length.")
    if settings.learn_scales and settings.critic == "views":
        raise InputError("--learn-scales needs --critic convolutional: the view critic's map has the images' scale.")
    if settings.learn_poses and settings.critic == "convolutional":
        raise InputError("--learn-poses needs --critic views: it is where that critic looks from that is compared.")
    if settings.classes > 1 and settings.critic == "convolutional":
        raise InputError("--classes needs --critic views: that critic looks at each class from its own views.")
    if (settings.noise_model == "poisson") != (settings.dose is not None):
        raise InputError("--noise-model poisson and --dose need each other.")
    if settings.dose is not None and noise is not None:
        raise InputError("Give background patches (--noise) or --noise-model poisson, not both.")
    _check_convolutional(settings)
    prior = None if settings.pose_prior is None else read_view_table(settings.pose_prior)
    table = read_particles(particles, data_dir)
    if settings.particles_per_um2 is not None:
        _check_unpicked(table, noise, settings)
    even = table.box - table.box % 2
    box = parse_stages(settings.stages)[-1][0] if settings.stages else settings.box or min(_DEFAULT_BOX, even)
    width = table.pixel_size * even
    diameter = settings.particle_diameter or PARTICLE_FRACTION * width
    picked = settings.particles_per_um2 is None
    mask_diameter = settings.mask_diameter or (_MASK_FRACTION * width if picked else diameter)
    background = diameter / 2 if picked else None
    patches = read_particles(noise, data_dir, need_ctf=False) if noise else None
    if patches is not None:
        _check_patches(patches, table)
    cropped = cropped_noise = None
    if cache is not None:
        place = (box, background, settings.invert, cache.resolve())
        try:
            cropped = crop(table, *place, progress)
            cropped_noise = None if patches is None else crop(patches, *place)
        except OSError as error:
            raise InputError(
                f"Cannot keep cropped particles in {cache} ({error.strerror}); give another --cache."
            ) from error
    # They are looked at here and held by the halves.
    images = ParticleImages(table, box, background, settings.invert, memory_limit_bytes=0, cropped=cropped)

    remarks = [
        f"{len(images)} {settings.kind} of {len(np.unique(table.micrographs))} micrographs, box {table.box} px of "
        f"{table.pixel_size:.3f} A; working box {box} px of {images.pixel_size:.3f} A."
    ]
    if table.joined:
        remarks.append(f"Joined on uid with {', '.join(file.name for file in table.joined)}.")
    if images.cropped_odd:
        remarks.append(f"The box of {table.box} pixels is odd; its last row and column are left out.")
    if images.dropped:
        remarks.append(f"{images.dropped} images are constant or hold NaN and are left out.")
    if settings.free_beyond is not None and settings.free_beyond <= 2 * images.pixel_size:
        raise InputError(
            f"--free-beyond {settings.free_beyond:g}: the working box of {box} px holds nothing finer than "
            f"{2 * images.pixel_size:.2f} A; give a larger --box."
        )
    if settings.particles_per_um2 is None:
        contrast = contrast_sign(images)
        remarks.append(f"{contrast}.".capitalize())
        if contrast.sign < 0:
            remarks.append("Protein seems dark, and the map is kept positive: the run will fail; give --invert.")
    else:
        mean = settings.particles_per_um2 * (1e-4 * width) ** 2
        remarks.append(
            f"{mean:.2f} particles have their centre in a patch, on average. Their contrast is not measured: where "
            "protein is dark, give --invert."
        )
    if len(images) < 2 * settings.batch_size:
        raise InputError(
            f"{particles}: {len(images)} particles are too few for two halves of one batch of "
            f"{settings.batch_size} each; give more particles or a smaller --batch-size."
        )

    cores = len(os.sched_getaffinity(0))
    plan = Plan(
        settings=settings,
        particles=particles.resolve(),
        noise=noise.resolve() if noise else None,
        data_dir=data_dir.resolve() if data_dir else None,
        cropped=cropped,
        cropped_noise=cropped_noise,
        box=box,
        pixel_size=images.pixel_size,
        particle_radius=diameter / 2,
        mask_radius=mask_diameter / 2,
        particle_count=len(images),
        stages=critic.stages(Task(settings, box, images.pixel_size, mask_diameter / 2, len(images) // 2)),
        threads=settings.threads or max(1, cores // 2),
    )
    if patches is not None:
        remarks.append(_noise_coverage(patches, images.table))
    if prior is not None:
        remarks.append(
            f"Views are drawn as in {settings.pose_prior} ({len(prior)} rows), "
            + (
                "turned into the map's frame after the search."
                if critic.finds_frame
                else "in whose frame the map will be."
            )
        )
    remarks.append(f"About {plan.memory_gib:.1f} GiB of memory for each half.")
    if plan.device.type == "cuda":
        remarks.append(_gpu_memory(plan, torch.cuda.mem_get_info(plan.device)[0]))
    return plan, images, remarks


def needs(plan: Plan, cores: int) -> tuple[float, float]:
    """About how many minutes a run takes on cores like a Zen 4, and how many GiB each half."""
    return (plan.seconds * max(1.0, 2 / cores) + COMPARISON_SECONDS) / 60, plan.memory_gib


def require_device(name: str, remedy: str = "use --device cpu.") -> None:
    """Nothing falls back in silence.

    Raises:
        InputError: there is no such device; `remedy` ends the sentence.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"There is no device {name!r} here; {remedy}") from error


def _check_convolutional(settings: Settings) -> None:
    """Refuse what the view critic has not, and a second stage that continues nothing."""
    if settings.critic == "views":
        for name in ("smoothing", "stable_epochs", "free_beyond", "scale_clip"):
            if getattr(settings, name):
                raise InputError(f"--{name.replace('_', '-')} needs --critic convolutional.")
        if settings.stages is not None:
            raise InputError(
                "--stages needs --critic convolutional: the view critic goes from coarse to fine by itself."
            )
    if settings.stages is not None:
        last = parse_stages(settings.stages)[-1][0]
        if settings.box not in (None, last):
            raise InputError(f"--stages ends with a box of {last}, --box is {settings.box}; leave out --box.")
        if settings.stable_epochs > 0:
            raise InputError("--stages and --stable-epochs both say what goes before the last stage; give one of them.")
    if settings.free_beyond is not None and settings.stable_epochs == 0:
        raise InputError("--free-beyond needs --stable-epochs: there is no map whose frequencies could be kept.")


def _check_unpicked(table: ParticleTable, noise: Path | None, settings: Settings) -> None:
    """What patches with particles anywhere need, and what picked particles alone can have."""
    if settings.critic != "views":
        raise InputError("--particles-per-um2 needs --critic views.")
    for name in ("learn_poses", "refine"):
        if getattr(settings, name):
            raise InputError(f"--{name.replace('_', '-')} needs picked particles; leave out --particles-per-um2.")
    if settings.classes > 1:
        raise InputError("--classes needs picked particles; leave out --particles-per-um2.")
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


def _check_patches(patches: ParticleTable, particles: ParticleTable) -> None:
    """Refuse patches that are not of the particles' box."""
    width, expected = patches.box * patches.pixel_size, particles.box * particles.pixel_size
    if patches.box != particles.box or abs(width / expected - 1) > 1e-2:
        raise InputError(
            f"{patches.source}: the patches are {patches.box} px of {patches.pixel_size:.3f} A, the particles "
            f"{particles.box} px of {particles.pixel_size:.3f} A; extract both alike."
        )


def _noise_coverage(patches: ParticleTable, particles: ParticleTable) -> str:
    """A sentence on how many particles have patches of their micrograph."""
    covered = np.isin(particles.micrographs, patches.micrographs)
    if not covered.any():
        raise InputError(
            f"{patches.source}: no patch comes from a micrograph of {particles.source} (first patch: "
            f"{patches.micrographs[0]!r}, first particle: {particles.micrographs[0]!r}); check _rlnMicrographName."
        )
    return f"{len(patches)} background patches; {covered.mean():.0%} of the particles have one of their micrograph" + (
        "." if covered.all() else ", and only these lend their CTF to simulated images."
    )


def _gpu_memory(plan: Plan, free: float) -> str:
    """A sentence on what both halves take of a GPU with so many bytes free."""
    most = max((plan.memory(stage) for stage in plan.stages), key=lambda memory: memory.total)
    size = most.images_within(free / 2)
    taken = 2 * (most.fixed + size * most.per_image)
    needed = f"{taken / 2**30:.1f} GiB of {free / 2**30:.1f} GiB that are free on {plan.device}"
    if taken > free:
        return f"Both halves need about {needed}, and will probably run out of it: give a smaller --box."
    return f"Both halves take about {needed}" + (
        "." if size == most.at_once else f", with {size} images at a time, to the same result."
    )
