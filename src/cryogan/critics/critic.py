"""What a run needs to know of a critic: its stages, what they cost, and a trainer for each.

A critic of your own is one class in one file: derive from `Critic`, give `stages` and `trainer`, and name it with
`--critic module:Class`. Its trainer derives from `cryogan.critics.trainer.IterativeTrainer`, or has the methods of
`Trainer`. The critics that come with the program are in the registry of `cryogan.critics`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from cryogan.config import Settings
from cryogan.critics.micro_batch import MicroBatch
from cryogan.critics.read_ahead import Images
from cryogan.critics.records import Record
from cryogan.critics.sampler import Sampler
from cryogan.parallel.ranks import ALONE, Ranks
from cryogan.parallel.work import Work
from cryogan.physics.simulator import Simulator
from cryogan.physics.volume import Volume


@dataclass(frozen=True)
class Stage:
    """A part of a run. Stages equal to the first are trials of it; the others go on from the best map so far.

    Attributes:
        box: Box, pixels.
        steps: Number of volume updates.
        method: Which of the critic's trainers runs.
    """

    box: int
    steps: int
    method: str = ""


@dataclass(frozen=True)
class Task:
    """What is to be learned: the settings, and the sizes on which stages and costs depend.

    Attributes:
        settings: Settings of the run.
        box: Working box, pixels.
        pixel_size: Pixel size at the working box, A.
        mask_radius: Radius of the spherical mask, A.
        particles: Number of particles of one half.
    """

    settings: Settings
    box: int
    pixel_size: float
    mask_radius: float
    particles: int


@dataclass(frozen=True)
class Memory:
    """Estimated memory of one half at a stage, bytes.

    Attributes:
        fixed: What does not depend on the number of images that are processed at once.
        per_image: For each of these images.
        at_once: Number of these images where there is enough memory.
    """

    fixed: float
    per_image: float
    at_once: int

    @property
    def total(self) -> float:
        """Memory with `at_once` images, bytes."""
        return self.fixed + self.per_image * self.at_once

    def images_within(self, free: float) -> int:
        """Return the number of images that can be processed at once in `free` bytes; 1 at least."""
        return int(min(max((free - self.fixed) / self.per_image, 1), self.at_once))


@dataclass(frozen=True)
class TrainerInputs:
    """One half map's stage, ready to be trained.

    Attributes:
        task: What is to be learned.
        stages: All stages of the run.
        index: Index of the stage to train.
        images: Real particles of this half, at the stage's box.
        simulator: Simulator of images like them; its particles are the rows of `images`.
        signal: Standard deviation of the particles' signal over that of their noise.
        critic_seed: Seed of the critic's initial weights.
        order_seed: Seed of the order of the particles.
        ranks: Processes that train this half together.
        mask: Mask (D, D, D) at the stage's box that bounds the volume in place of the sphere.
    """

    task: Task
    stages: tuple[Stage, ...]
    index: int
    images: Images
    simulator: Simulator
    signal: float
    critic_seed: int
    order_seed: int
    ranks: Ranks = ALONE
    mask: Tensor | None = None

    @property
    def stage(self) -> Stage:
        """The stage to train."""
        return self.stages[self.index]

    def volume(self, symmetry: str, free_from: float = 0.0) -> Volume:
        """Return a zero volume at the stage's box, under its mask; arguments as of `Volume`."""
        radius = self.task.mask_radius / self.simulator.pixel_size
        return Volume(self.stage.box, radius, symmetry, self.simulator.generator.device, free_from, self.mask)


@dataclass(frozen=True)
class ClassMaps:
    """The classes into which a trained half has divided its particles, in no order.

    Attributes:
        maps: K maps, each as `Trainer.result`.
        weights: Shares of the classes, (K,), sum 1.
        probabilities: Probabilities (N, K) of the classes for the half's particles, in their order.
    """

    maps: list[Tensor]
    weights: Tensor
    probabilities: Tensor


class Trainer(Protocol):
    """Training of one half map at one stage.

    Attributes:
        settings: Settings of the run.
        simulator: Simulator of the images.
        volume: Volume that is learned.
        signal: Standard deviation of the particles' signal over that of their noise.
        particles: Real particles, in the order in which they are learned from.
        micro_batch: Number of images that are processed at once.
        steps: Number of volume updates of the stage.
        step: Number of volume updates so far.
        seconds: Time of the training so far.
        distance: Estimate of how far the simulated images' distribution is from the real ones': of several trials of
            the first stage the one with the smallest goes on.
    """

    settings: Settings
    simulator: Simulator
    volume: Volume
    signal: float
    particles: Sampler
    micro_batch: MicroBatch
    steps: int
    step: int
    seconds: float
    distance: float | Tensor

    def run(self, until: int | None = None) -> Iterator[Record]:
        """Train to step `until` (default: the end), yielding a record after each volume update."""
        ...

    def result(self) -> Tensor:
        """Return the current map (D, D, D): masked, symmetric, in the unit of the images."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        ...

    def class_result(self) -> ClassMaps | None:
        """Return the classes of the particles; None where there is one map."""
        return None


class Critic(ABC):
    """How a volume is learned by comparing real with simulated images.

    Attributes:
        batch_setting: Name of the setting that gives the number of images of each stream in a volume update.
        longer_setting: Name of the setting that gives the map more updates.
        finds_frame: Whether the map's frame is found on the way, so that a prior of view directions is turned into it
            and symmetry axes are found late; otherwise the map is learned in the frame of the prior and of the axes.
    """

    batch_setting = "batch_size"
    longer_setting = "steps"
    finds_frame = False

    @abstractmethod
    def stages(self, task: Task) -> tuple[Stage, ...]:
        """Return the stages of a run, coarse to fine; the last has the working box."""

    @abstractmethod
    def trainer(self, inputs: TrainerInputs) -> Trainer:
        """Return the trainer of one half map at one stage, from a zero volume."""

    def step_work(self, task: Task, stage: Stage, step: int) -> Work:
        """Estimate the work of a step, for shares of a run and its time."""
        return Work(pixels=1700.0 * stage.box**2)

    def memory(self, task: Task, stage: Stage) -> Memory:
        """Estimate the memory of one half at a stage, on its device."""
        s = task.settings
        return Memory(SPECTRA * 4 * (s.oversampling * stage.box) ** 3, 64.0 * stage.box**2, s.batch_size)

    def keeps_frame(self, stage: Stage) -> bool:
        """Return whether the maps of a stage are in the frame of the final map."""
        return True


SPECTRA = 7.5  # padded transforms of the volume that a half holds, measured: benchmarks/scaling.py
