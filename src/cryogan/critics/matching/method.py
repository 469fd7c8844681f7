"""The matching critic as a run sees it: an initial search, then frequency marching, and what they cost."""

import math
from collections.abc import Callable
from functools import partial

import torch

from cryogan.critics.critic import SPECTRA, Critic, Memory, Stage, Task, TrainerInputs
from cryogan.critics.matching import schedule
from cryogan.critics.matching.marching import FrequencyMarching
from cryogan.critics.matching.search import InitialSearch
from cryogan.critics.matching.symmetric_search import TRIAL_IMAGES, SymmetricSearch
from cryogan.critics.matching.templates import SHIFT_SPACING, shift_grid
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE, MatchingTrainer
from cryogan.physics.symmetry import point_group
from cryogan.physics.unpicked import search_radii

# As run.toml has them.
SEARCH, SYMMETRIC, RISE, MARCHING = "search", "symmetric search", "symmetric rise", "sharpening"
SEARCH_BOX, SYMMETRIC_BOX, RISE_BOX = 32, 40, 48  # hold the searches' frequencies well
SYMMETRIC_STEPS, RISE_STEPS = 0.36, 0.12  # of those of a search without symmetry
SYMMETRIC_STARTS = 4  # for each start of a search without symmetry: one in three fails

# Seconds for a template of the bank and a pair of images, real and simulated: in the search, and in the marching.
_MATCHING = {"particles": (5e-8, 2.6e-8), "patches": (5e-8, 6e-8)}
_POSE_OPTIMISER = 76.0  # bytes for an image's coefficient where its best pose is refined


class Matching(Critic):
    """The critic of equation (iii) of docs/method.md: computed instead of trained."""

    batch_setting = "search_batch"
    longer_setting = "marching_steps"
    finds_frame = True

    def stages(self, task: Task) -> tuple[Stage, ...]:
        """Return the trials of the search, and frequency marching at the working box."""
        s = task.settings
        found = schedule.found_shell(s)
        marching = schedule.marching_steps(task.box, s.marching_steps, schedule.held_steps(s), found)
        searches = [Stage(min(task.box, SEARCH_BOX), s.search_steps, SEARCH)] * s.starts
        if schedule.is_symmetric(s):
            steps, rise = (max(1, round(share * s.search_steps)) for share in (SYMMETRIC_STEPS, RISE_STEPS))
            trials = [Stage(min(task.box, SYMMETRIC_BOX), steps, SYMMETRIC)] * (SYMMETRIC_STARTS * s.starts)
            searches = [*trials, Stage(min(task.box, RISE_BOX), rise, RISE)]
        return (*searches, Stage(task.box, marching, MARCHING))

    def trainer(self, inputs: TrainerInputs) -> MatchingTrainer:
        """Return the trainer of one half map at one stage, from a zero volume."""
        trainers: dict[str, Callable[[TrainerInputs], MatchingTrainer]] = {
            SEARCH: InitialSearch,
            SYMMETRIC: SymmetricSearch,
            RISE: partial(SymmetricSearch, rises=True),
            MARCHING: FrequencyMarching,
        }
        return trainers[inputs.stage.method](inputs)

    def step_seconds(self, task: Task, stage: Stage, step: int) -> float:
        """Estimate the time of a step on one core: most goes into the match of images with a bank of templates."""
        s = task.settings
        search, marching = (seconds * s.orientations * shift_count(task, stage) for seconds in _MATCHING[s.kind])
        if stage.method == SEARCH:
            return s.search_batch * (6e-4 + search * (schedule.search_cutoff(step, stage.steps) / 9) ** 5)
        search, marching = (seconds / len(point_group(s.symmetry)) for seconds in (search, marching))
        if stage.method in (SYMMETRIC, RISE):
            growth = (schedule.symmetric_cutoff(step, stage.steps, stage.box, rises=stage.method == RISE) / 9) ** 5
            images = s.marching_images if stage.method == RISE else TRIAL_IMAGES
            return min(task.particles, images) * (3e-4 + 0.75 * search * growth)
        cutoff = schedule.marching_cutoff(step, stage.box, schedule.held_steps(s), schedule.found_shell(s))
        marching *= (schedule.bank_shell(s) / schedule.BANK_SHELL) ** 5
        return min(task.particles, s.marching_images) * s.classes * (6e-4 + marching + 9e-6 * cutoff**2)

    def memory(self, task: Task, stage: Stage) -> Memory:
        """Estimate the memory of one half at a stage: the volume, the bank, and the images processed at once."""
        s, box = task.settings, stage.box
        search = stage.method == SEARCH
        cutoff = min(box / 2, schedule.SEARCH_SHELLS[1] if search else schedule.bank_shell(s))
        templates = s.orientations / (1 if search else len(point_group(s.symmetry)))
        if stage.method in (SYMMETRIC, RISE):
            templates *= schedule.symmetric_share(cutoff)
        elif stage.method == MARCHING:
            templates *= schedule.bank_share(s)
        bank = 16 * templates * half_disc(cutoff)
        ratios = 4 * shift_count(task, stage) * (3 * templates + 6 * half_disc(cutoff))
        optimiser = 0.0 if search else _POSE_OPTIMISER * 8 * half_disc(box / 2)
        batch = min(s.search_batch, IMAGES_AT_ONCE) if search else IMAGES_AT_ONCE
        return Memory(SPECTRA * 4 * (s.oversampling * box) ** 3 + bank, ratios + optimiser, batch)

    def keeps_frame(self, stage: Stage) -> bool:
        """Return whether the maps of a stage are in the frame of the final map: those of the search are not."""
        return stage.method != SEARCH


def shift_count(task: Task, stage: Stage) -> int:
    """Return the number of in-plane shifts at which each image is matched."""
    width, farthest = task.box * task.pixel_size, task.settings.max_shift
    if task.settings.particles_per_um2 is not None:
        farthest = search_radii(width, task.mask_radius)[stage.method == MARCHING]
    return len(shift_grid(farthest, SHIFT_SPACING * width, torch.device("cpu")))


def half_disc(cutoff: float) -> float:
    """Return the number of coefficients in half of an image's transform below a shell."""
    return math.pi * cutoff**2 / 2
