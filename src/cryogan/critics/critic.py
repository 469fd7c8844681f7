"""What a run needs to know of a critic: its stages, what they cost, and a trainer for each.

A critic of your own is one class in one file: derive from `Critic`, give `stages` and `trainer`, and name it with
`--critic module:Class`. The two that come with the program are in the registry of `cryogan.critics`.
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
from cryogan.physics.simulator import Simulator
from cryogan.physics.volume import Volume


@dataclass(frozen=True)
class Stage:
    """A part of a run. Stages equal to the first are trials of it; the others go on from the best map so far.

    Attributes:
        box: pixels.
        steps: volume updates.
        method: which of the critic's trainers runs.
    """

    box: int
    steps: int
    method: str = ""


@dataclass(frozen=True)
class Task:
    """What is to be learned: the settings and the sizes on which stages and costs depend.

    Attributes:
        settings: of the run.
        box: the working box, pixels.
        pixel_size: at the working box, A.
        mask_radius: of the spherical mask, A.
        particles: number of particles of one half.
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
        fixed: what does not depend on the number of images that are processed at once.
        each: for each of these images.
        at_once: number of these images where there is enough memory.
    """

    fixed: float
    each: float
    at_once: int

    @property
    def total(self) -> float:
        return self.fixed + self.each * self.at_once

    def images_within(self, free: float) -> int:
        """Number of images that can be processed at once in `free` bytes; 1 at least."""
        return int(min(max((free - self.fixed) / self.each, 1), self.at_once))


@dataclass(frozen=True)
class TrainerInputs:
    """One half map's stage, ready to be trained.

    Attributes:
        task: what is to be learned.
        stages: all stages of the run.
        index: of the stage to train.
        images: the real particles of this half, at the stage's box.
        simulator: of images like them; its particles are the rows of `images`.
        signal: s.d. of the particles' signal over that of their noise.
        critic_seed: of the critic's initial weights.
        order_seed: of the order of the particles.
        ranks: the processes that train this half together.
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

    @property
    def stage(self) -> Stage:
        return self.stages[self.index]

    def volume(self, symmetry: str, free_from: float = 0.0) -> Volume:
        """A zero volume at the stage's box, under the spherical mask; arguments as of `Volume`."""
        radius = self.task.mask_radius / self.simulator.pixel_size
        return Volume(self.stage.box, radius, symmetry, self.simulator.generator.device, free_from)


@dataclass(frozen=True)
class ClassMaps:
    """The classes into which a trained half has divided its particles, in no order.

    Attributes:
        maps: K maps, each as `Trainer.result`.
        weights: shares of the classes, (K,), sum 1.
        probabilities: of each class for each of the half's particles, in their order, (N, K).
    """

    maps: list[Tensor]
    weights: Tensor
    probabilities: Tensor


class Trainer(Protocol):
    """The training of one half map at one stage.

    `distance` estimates how far the simulated images' distribution is from the real ones': of several trials of the
    first stage the one with the smallest goes on.
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
        """The map so far, (D, D, D): masked, symmetric, in the unit of the images."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        ...

    def class_result(self) -> ClassMaps | None:
        """Return the classes of the particles; None where there is one map."""
        return None


class Critic(ABC):
    """How a volume is learned by comparing real with simulated images.

    Attributes:
        batch_setting: name of the setting that says how many images of either stream a volume update takes.
        longer_setting: name of the setting that gives the map more updates.
        finds_frame: whether the map's frame is found on the way, so that a prior of view directions is turned into it
            and symmetry axes are found late; otherwise the map is learned in the frame of the prior and of the axes.
    """

    batch_setting = "batch_size"
    longer_setting = "steps"
    finds_frame = False

    @abstractmethod
    def stages(self, task: Task) -> tuple[Stage, ...]:
        """The stages of a run, coarse to fine; the last has the working box."""

    @abstractmethod
    def trainer(self, inputs: TrainerInputs) -> Trainer:
        """The trainer of one half map at one stage, from a zero volume."""

    def step_seconds(self, task: Task, stage: Stage, step: int) -> float:
        """Estimated time of a step on one core (Zen 4), seconds; used for shares of a run."""
        return 1.3e-4 * stage.box**2

    def memory(self, task: Task, stage: Stage) -> Memory:
        """Estimated memory of one half at a stage, on its device."""
        s = task.settings
        return Memory(SPECTRA * 4 * (s.oversampling * stage.box) ** 3, 64.0 * stage.box**2, s.batch_size)

    def keeps_frame(self, stage: Stage) -> bool:
        """Whether the maps of a stage are in the frame of the final map."""
        return True


SPECTRA = 7.5  # padded transforms of the volume that a half holds, measured: benchmarks/scaling.py
