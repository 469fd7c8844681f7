"""The paper's convolutional critic as a run sees it: boxes from coarse to fine, and what they cost."""

import torch

from cryogan.config import parse_stages
from cryogan.critics.critic import SPECTRA, Critic, Memory, Stage, Task, TrainerInputs
from cryogan.critics.wasserstein.discriminator import build_critic
from cryogan.critics.wasserstein.trainer import WassersteinTrainer

USUAL, STABLE = "convolutional", "stable"  # as run.toml has them; the stable stage is without shifts
COARSE_BOXES = (24, 32, 48, 64, 96, 128, 192, 256)
STARTS = 2  # by default: one in two may end in a wrong map, which its critic's gap tells
_ACTIVATIONS = {"paper": 14.0, "residual": 35.0, "ctf": 14.0}  # copies of the first block's output


class Wasserstein(Critic):
    """The critic of Figure 5 of the paper, trained by Algorithm 1 with the loss (10)."""

    def stages(self, task: Task) -> tuple[Stage, ...]:
        """Return the stages, coarse to fine, the first of them once for each trial."""
        s, box = task.settings, task.box
        if s.stages is not None:
            stages = [Stage(box, steps, USUAL) for box, steps in parse_stages(s.stages)]
        else:
            boxes = [coarse for coarse in COARSE_BOXES if coarse < 0.9 * box] if s.coarse_to_fine else []
            per_epoch = task.particles / (s.batch_size * s.critic_steps)
            fine = s.steps or max(1, round(s.epochs * per_epoch))
            stages = [Stage(coarse, s.coarse_steps, USUAL) for coarse in boxes]
            if s.stable_epochs > 0:
                stages.append(Stage(box, max(1, round(fine * s.stable_epochs / s.epochs)), STABLE))
            stages.append(Stage(box, fine, USUAL))
        trials = (s.starts or STARTS) if len(stages) > 1 else 1
        return (*[stages[0]] * (trials - 1), *stages)

    def trainer(self, inputs: TrainerInputs) -> WassersteinTrainer:
        """Return the trainer of one half map at one stage, from a zero volume and a new critic."""
        s, stage, simulator = inputs.task.settings, inputs.stage, inputs.simulator
        start = torch.Generator().manual_seed(s.seed if s.shared_critic_start else inputs.critic_seed)
        critic = build_critic(s, stage.box, start).to(simulator.generator.device)
        span, free_from = stage.steps, 0.0
        if stage.method == STABLE:
            simulator.shift_width.zero_()
            span = max(stage.steps, inputs.stages[-1].steps)
        elif s.free_beyond is not None and inputs.index == len(inputs.stages) - 1:
            free_from = stage.box * simulator.pixel_size / s.free_beyond
        volume = inputs.volume(s.symmetry, free_from)
        images, signal, seed = inputs.images, inputs.signal, inputs.order_seed
        return WassersteinTrainer(s, stage.steps, images, simulator, volume, critic, signal, seed, span, inputs.ranks)

    def memory(self, task: Task, stage: Stage) -> Memory:
        """Estimate the memory of one half at a stage: the volume, and the activations of the images at once."""
        s = task.settings
        fixed = SPECTRA * 4 * (s.oversampling * stage.box) ** 3
        return Memory(fixed, _ACTIVATIONS[s.architecture] * 4 * s.critic_width * stage.box**2, s.batch_size)
