"""The matching critic as a run sees it: an initial search, then frequency marching, and what they cost."""

from collections.abc import Callable
from functools import partial

from cryogan.critics.critic import SPECTRA, Critic, Memory, Stage, Task, TrainerInputs
from cryogan.critics.matching import schedule
from cryogan.critics.matching.marching import FrequencyMarching
from cryogan.critics.matching.search import InitialSearch
from cryogan.critics.matching.symmetric_search import TRIAL_IMAGES, SymmetricSearch
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE, MatchingTrainer
from cryogan.critics.matching.work import (
    MARCHING,
    RISE,
    SEARCH,
    SYMMETRIC,
    half_disc,
    marching_work,
    search_work,
    shift_count,
    template_count,
)
from cryogan.parallel.work import Work

SEARCH_BOX, SYMMETRIC_BOX, RISE_BOX = 32, 40, 48  # hold the searches' frequencies well
SYMMETRIC_STEPS, RISE_STEPS = 0.135, 0.045  # of those of a search without symmetry
SYMMETRIC_STARTS = 8  # for each start of a search without symmetry: one in three fails

_POSE_OPTIMISER = 76.0  # bytes for an image's coefficient where its best pose is refined


class Matching(Critic):
    """The critic of equation (iii) of docs/method.md: computed instead of trained."""

    batch_setting = "search_batch"
    longer_setting = "marching_steps"
    finds_frame = True

    def stages(self, task: Task) -> tuple[Stage, ...]:
        """Return the trials of the search, and frequency marching at the working box."""
        s = task.settings
        starts, found = s.starts or 1, schedule.found_shell(s)
        marching = schedule.marching_steps(task.box, s.marching_steps, schedule.held_steps(s), found)
        searches = [Stage(min(task.box, SEARCH_BOX), s.search_steps, SEARCH)] * starts
        if schedule.is_symmetric(s):
            steps, rise = (max(1, round(share * s.search_steps)) for share in (SYMMETRIC_STEPS, RISE_STEPS))
            trials = [Stage(min(task.box, SYMMETRIC_BOX), steps, SYMMETRIC)] * (SYMMETRIC_STARTS * starts)
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

    def step_work(self, task: Task, stage: Stage, step: int) -> Work:
        """Count the work of a step: most goes into the match of images with a bank of templates."""
        s = task.settings
        if stage.method == SEARCH:
            return search_work(task, stage, s.search_batch, schedule.search_cutoff(step, stage.steps))
        if stage.method in (SYMMETRIC, RISE):
            cutoff = schedule.symmetric_cutoff(step, stage.steps, stage.box, rises=stage.method == RISE)
            images = s.marching_images if stage.method == RISE else TRIAL_IMAGES
            return search_work(task, stage, min(task.particles, images), cutoff)
        cutoff = schedule.marching_cutoff(step, stage.box, schedule.held_steps(s), schedule.found_shell(s))
        return marching_work(task, stage, cutoff)

    def memory(self, task: Task, stage: Stage) -> Memory:
        """Estimate the memory of one half at a stage: the volume, the bank, and the images processed at once."""
        s, box = task.settings, stage.box
        search = stage.method == SEARCH
        cutoff = min(box / 2, schedule.SEARCH_SHELLS[1] if search else schedule.bank_shell(s))
        templates = template_count(task, stage, cutoff)
        bank = 16 * templates * half_disc(cutoff)
        ratios = 4 * shift_count(task, stage) * (3 * templates + 6 * half_disc(cutoff))
        optimiser = 0.0 if search else _POSE_OPTIMISER * 8 * half_disc(box / 2)
        batch = min(s.search_batch, IMAGES_AT_ONCE) if search else IMAGES_AT_ONCE
        return Memory(SPECTRA * 4 * (s.oversampling * box) ** 3 + bank, ratios + optimiser, batch)

    def keeps_frame(self, stage: Stage) -> bool:
        """Return whether the maps of a stage are in the frame of the final map: those of the search are not."""
        return stage.method != SEARCH
