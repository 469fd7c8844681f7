"""The matching critic as a run sees it: a search from zero, then frequency marching, and what they cost."""

import math

import torch

from cryogan.critics.critic import SPECTRA, Critic, Memory, Stage, Task, Trainer, TrainerInputs
from cryogan.critics.matching.templates import shift_grid
from cryogan.critics.matching.trainer import (
    BANK_SHELL,
    CHUNK,
    SHIFT_SPACING,
    Search,
    Sharpening,
    held_steps,
    search_cutoff,
    sharpening_cutoff,
    sharpening_steps,
)
from cryogan.physics.symmetry import point_group
from cryogan.physics.unpicked import search_radii

SEARCH, MARCHING = "search", "sharpening"  # as run.toml has them
SEARCH_BOX = 32  # holds the search's frequencies well

# Seconds for a template of the bank and a pair of images, real and simulated: in the search, and in the marching.
_MATCHING = {"particles": (5e-8, 2.6e-8), "patches": (5e-8, 6e-8)}
_POSE_OPTIMISER = 76.0  # bytes for an image's coefficient where its best pose is refined


class Matching(Critic):
    """The critic of equation (iii) of docs/method.md: computed instead of trained."""

    batch_setting = "search_batch"
    longer_setting = "marching_steps"
    finds_frame = True

    def stages(self, task: Task) -> tuple[Stage, ...]:
        s = task.settings
        search = Stage(min(task.box, SEARCH_BOX), s.search_steps, SEARCH)
        steps = sharpening_steps(task.box, s.marching_steps, held_steps(s))
        return (*[search] * s.starts, Stage(task.box, steps, MARCHING))

    def trainer(self, inputs: TrainerInputs) -> Trainer:
        s, stage = inputs.task.settings, inputs.stage
        # The search finds a molecule without its symmetry more surely; the axes are found afterwards.
        search = stage.method == SEARCH
        volume = inputs.volume("C1" if search else s.symmetry)
        kind, batch_size = (Search, s.search_batch) if search else (Sharpening, CHUNK)
        images, simulator, signal = inputs.images, inputs.simulator, inputs.signal
        return kind(s, stage.steps, images, simulator, volume, signal, batch_size, inputs.order_seed, inputs.ranks)

    def step_seconds(self, task: Task, stage: Stage, step: int) -> float:
        """Most of it goes into matching images with the templates of the bank, each at all shifts."""
        s = task.settings
        searching, marching = (each * s.orientations * shift_count(task, stage) for each in _MATCHING[s.kind])
        if stage.method == SEARCH:
            return s.search_batch * (6e-4 + searching * (search_cutoff(step, stage.steps) / 9) ** 5)
        cutoff = sharpening_cutoff(step, stage.box, held_steps(s))
        marching /= len(point_group(s.symmetry))
        return min(task.particles, s.marching_images) * s.classes * (6e-4 + marching + 9e-6 * cutoff**2)

    def memory(self, task: Task, stage: Stage) -> Memory:
        s, box = task.settings, stage.box
        search = stage.method == SEARCH
        cutoff = search_cutoff(stage.steps, stage.steps) if search else BANK_SHELL
        templates = s.orientations / (1 if search else len(point_group(s.symmetry)))
        bank = 16 * templates * _half_disc(cutoff)
        ratios = 4 * shift_count(task, stage) * (3 * templates + 6 * _half_disc(cutoff))
        optimiser = 0.0 if search else _POSE_OPTIMISER * 8 * _half_disc(box / 2)
        batch = min(s.search_batch, CHUNK) if search else CHUNK
        return Memory(SPECTRA * 4 * (s.oversampling * box) ** 3 + bank, ratios + optimiser, batch)

    def keeps_frame(self, stage: Stage) -> bool:
        return stage.method == MARCHING


def shift_count(task: Task, stage: Stage) -> int:
    """Number of in-plane shifts at which each image is matched."""
    width, farthest = task.box * task.pixel_size, task.settings.max_shift
    if task.settings.particles_per_um2 is not None:
        farthest = search_radii(width, task.mask_radius)[stage.method == MARCHING]
    return len(shift_grid(farthest, SHIFT_SPACING * width, torch.device("cpu")))


def _half_disc(cutoff: float) -> float:
    """Number of coefficients in half of an image's transform below a shell."""
    return math.pi * cutoff**2 / 2
