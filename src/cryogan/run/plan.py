"""What a run is: its settings, its inputs and the numbers that follow from both, as `run.toml` records them."""

import platform
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from cryogan.config import Settings, validate
from cryogan.errors import InputError
from cryogan.files import replacing
from cryogan.parallel.cores import available_cores
from cryogan.run.cost import Cost
from cryogan.run.folder import RunFolder

if TYPE_CHECKING:
    import torch

    from cryogan.critics import Critic, Stage, Task
    from cryogan.particles import ParticleTable

_PATHS = ("particles", "noise", "data_dir", "cropped", "cropped_noise")


@dataclass(frozen=True)
class ImageFiles:
    """What other programs have to know of the images of a run's particle file; the defaults: nothing is known.

    Attributes:
        box: pixels, of the first image; 0 if unknown.
        pixel_size: A, of the first image.
        half_precision: whether any are stored as float16.
        phase_flipped: whether any were multiplied by the sign of their CTF.
        relative_names: whether the file names them from a folder, not from the root.
    """

    box: int = 0
    pixel_size: float = 0.0
    half_precision: bool = False
    phase_flipped: bool = False
    relative_names: bool = False

    @classmethod
    def of(cls, table: "ParticleTable") -> "ImageFiles":
        """Return what there is to know of a run's particles."""
        sizes, flipped = table.pixel_sizes, table.ctf.get("phase_flipped")
        return cls(
            box=table.headers[table.stack_index[0]].shape[2],
            pixel_size=table.pixel_size if sizes is None else float(sizes[0]),
            half_precision=any(header.dtype.kind == "f" and header.dtype.itemsize == 2 for header in table.headers),
            phase_flipped=flipped is not None and bool(flipped.any()),
            # Of a .cs file, particles.star names them from the root.
            relative_names=table.star is not None and not all(Path(name).is_absolute() for name in table.stack_names),
        )


@dataclass(frozen=True)
class Plan:
    """A run, with every number resolved.

    Attributes:
        settings: settings of the run.
        particles: the user's particle file.
        noise: the user's file of background patches.
        data_dir: where else image stacks are looked for.
        cropped: a stack of the particles at the working box, read in place of their files.
        cropped_noise: a stack of the background patches at the working box.
        box: the working box, pixels.
        pixel_size: pixel size at the working box, A.
        particle_radius: radius of the circle that holds a particle, A.
        mask_radius: radius of the map's spherical mask, A.
        particle_count: number of particles of both halves.
        stages: coarse to fine; the last has the working box.
        threads: CPU threads of each half.
        halves: how the particles were divided, for the report; empty in runs of older versions.
        image_folders: where the stacks were found that `particles.star` names.
        image_files: what other programs have to know of them; unknown in runs of older versions.
        mask: map that bounds the volume in place of the sphere; a run's folder has a copy.
        tries: how often half 1 and half 2 were begun, each time with other random numbers.
    """

    settings: Settings
    particles: Path
    noise: Path | None
    data_dir: Path | None
    cropped: Path | None
    cropped_noise: Path | None
    box: int
    pixel_size: float
    particle_radius: float
    mask_radius: float
    particle_count: int
    stages: "tuple[Stage, ...]"
    threads: int
    halves: str = ""
    image_folders: tuple[Path, ...] = ()
    image_files: ImageFiles = ImageFiles()
    mask: Path | None = None
    tries: tuple[int, int] = (1, 1)

    @property
    def is_picked(self) -> bool:
        """Whether each image was cut around a particle; otherwise particles are anywhere in the patches."""
        return self.settings.kind == "particles"

    @property
    def background_radius(self) -> float | None:
        """Radius, A, of the circle outside which a picked particle's image is background; None for patches."""
        return self.particle_radius if self.is_picked else None

    @property
    def uneven_views(self) -> bool:
        """Whether view directions are drawn from a density, which `views.star` then records."""
        return self.settings.learn_poses or self.settings.pose_prior is not None

    @property
    def total_steps(self) -> int:
        """Number of volume updates of all stages."""
        return sum(stage.steps for stage in self.stages)

    def steps_before(self, index: int) -> int:
        """Return the number of volume updates of the stages before stage `index`."""
        return sum(stage.steps for stage in self.stages[:index])

    def is_trial(self, index: int) -> bool:
        """Return whether stage `index` is one of the trials of the first stage, which all begin from zero."""
        return self.stages[index] == self.stages[0]

    @property
    def search_steps(self) -> int:
        """Number of volume updates of the trials of the first stage, where others follow: before, no map is found."""
        trials = [stage.steps for index, stage in enumerate(self.stages) if self.is_trial(index)]
        return sum(trials) if len(trials) < len(self.stages) else 0

    @property
    def task(self) -> "Task":
        """What each half learns."""
        from cryogan.critics import Task

        return Task(self.settings, self.box, self.pixel_size, self.mask_radius, self.particle_count // 2)

    @cached_property
    def critic(self) -> "Critic":
        """The critic that the settings name."""
        from cryogan.critics import load_critic

        return load_critic(self.settings.critic)

    @cached_property
    def cost(self) -> Cost:
        """Estimated time and memory."""
        return Cost(self.critic, self.task, self.stages)

    @property
    def device(self) -> "torch.device":
        """The device on which the halves are trained."""
        import torch

        return torch.device(self.settings.device)

    def on(self, gpu: int) -> "Plan":
        """Return this plan for one of the machine's GPUs.

        Raises:
            InputError: there is no such GPU.
        """
        device = f"cuda:{gpu}"
        require_device(device)
        return replace(self, settings=self.settings.model_copy(update={"device": device}))

    @property
    def machine(self) -> str:
        """A sentence on the device and threads of the run, and on a GPU that is left unused."""
        return f"Device: {self.hardware}."

    @property
    def hardware(self) -> str:
        """The device and threads of the run, and a GPU that is left unused, as a part of a sentence."""
        import torch

        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''} for each half"
        if self.device.type == "cuda":
            return f"{self.device} ({torch.cuda.get_device_name(self.device)}), {threads}"
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        unused = f"not used: {', '.join(gpus)} (--device cuda)" if gpus else "no CUDA device is visible"
        return f"{self.device}, {threads}; {unused}"

    def require_device(self, folder: Path) -> None:
        """Refuse to go on with the run in a folder where its device is missing.

        Raises:
            InputError: there is no such device.
        """
        require_device(
            self.settings.device, f'Go on where there is one, or set device = "cpu" in {RunFolder(folder).record}.'
        )

    def with_another_try(self, half: int) -> "Plan":
        """Return this plan with other random numbers for half 1 or 2."""
        tries = [count + (number == half) for number, count in enumerate(self.tries, 1)]
        return replace(self, tries=(tries[0], tries[1]))

    def write(self, folder: Path, checksums: Mapping[str, str] | None = None) -> None:
        """Record the plan in a folder as `run.toml`: settings, inputs, resolved numbers, versions and machine.

        Args:
            folder: of the run.
            checksums: of the input files, see `cryogan.run.checksums`; None: those that the folder's record has.
        """
        path = RunFolder(folder).record
        if checksums is None and path.exists():
            checksums = tomllib.loads(path.read_text()).get("checksums")
        numbers = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items() if v is not None}
        numbers.pop("settings")
        numbers["image_folders"] = [str(folder) for folder in self.image_folders]
        record: dict[str, Any] = {
            "command": " ".join(sys.argv),
            "settings": self.settings.model_dump(exclude_none=True),
            "plan": numbers,
            "checksums": dict(checksums or {}),
            "versions": _versions(),
            "machine": _machine(self.device),
        }
        with replacing(path) as temporary:
            temporary.write_text(tomli_w.dumps(record))

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """Return the plan of the run in a folder.

        Raises:
            InputError: the folder has no readable `run.toml`.
        """
        from cryogan.critics import Stage

        file = RunFolder(folder).record
        try:
            record = tomllib.loads(file.read_text())
            numbers = record["plan"]
            paths = {name: Path(numbers[name]) if name in numbers else None for name in _PATHS}
            if "mask" in numbers:  # the folder may have been moved
                numbers["mask"] = RunFolder(folder).given_mask
            numbers["image_folders"] = tuple(map(Path, numbers.get("image_folders", ())))
            numbers["tries"] = tuple(numbers.get("tries", (1, 1)))
            numbers["image_files"] = ImageFiles(**numbers.get("image_files", {}))
            numbers["stages"] = tuple(Stage(**stage) for stage in numbers["stages"])
            # Runs of versions that subtracted no plane go on without.
            settings = {"keep_gradient": True} | record["settings"]
            return cls(**(numbers | paths), settings=validate(settings, f"{file}: "))
        except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
            raise InputError(
                f"{folder} is not the folder of a run: cannot read {file} ({error}). Give the folder that was --out of "
                "cryogan reconstruct."
            ) from error


def require_device(name: str, remedy: str = "Use --device cpu.") -> None:
    """Refuse a device that is missing: no run falls back to another in silence.

    Args:
        name: as PyTorch takes it, such as `cuda:1`.
        remedy: ends the message.

    Raises:
        InputError: there is no such device.
    """
    import torch

    try:
        torch.empty(1, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"There is no device {name!r} here. {remedy}") from error


def _versions() -> dict[str, str]:
    """Versions of what computes; not from installed metadata, which a checkout on PYTHONPATH lacks."""
    import mrcfile
    import numpy
    import scipy
    import torch

    import cryogan

    modules = (cryogan, torch, numpy, scipy, mrcfile)
    return {module.__name__: str(module.__version__) for module in modules} | {"python": platform.python_version()}


def _machine(device: "torch.device") -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {"system": platform.platform(), "cores": available_cores(), "gpu": gpu}
