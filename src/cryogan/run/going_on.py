"""A run that goes on from the half maps of another, with more particles: the last steps of frequency marching."""

from collections.abc import Sequence
from pathlib import Path

import torch

from cryogan.particles import read_volume
from cryogan.run.build import build_trainer
from cryogan.run.checkpoint import save_checkpoint
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.plan import Plan

UPDATES = 3  # of the volume, at the full frequency


def go_on_from(folder: RunFolder, plan: Plan, half_maps: Sequence[Path]) -> None:
    """Write checkpoints from which `resume` makes the last updates of a run, beginning with the half maps of another.

    The run has the matching critic, one class and views that are not learned: its last stage depends on nothing else.
    The particles of each half have to be in that half in both runs: a map must not have seen the other half's.

    Args:
        folder: folder of a run that is prepared and has not begun.
        plan: its plan.
        half_maps: maps of both halves, at the working box of the run.
    """
    last = len(plan.stages) - 1
    for half, path in zip(HALVES, half_maps, strict=True):
        trainer = build_trainer(plan, last, folder.particles, half)
        trainer.volume.start_from(torch.from_numpy(read_volume(path)[0]).to(plan.device))
        trainer.step = max(0, trainer.steps - UPDATES)
        state = {"stage": last, "training": trainer.state_dict(), "best_stage": None, "best": None}
        save_checkpoint(folder.checkpoint(half), state)
