"""A run that goes on from half maps: what its halves begin with."""

from pathlib import Path

import numpy as np
import torch

from builders import finished, prepared, tiny
from cryogan.models.phantom import phantom
from cryogan.run.build import build_trainer
from cryogan.run.checkpoint import load_checkpoint
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.going_on import UPDATES, go_on_from
from cryogan.run.plan import Plan


def test_the_last_updates_are_left_and_begin_with_the_map(particles: Path, tmp_path: Path) -> None:
    density = phantom(32, 4.0, 1)
    before = RunFolder(finished(tmp_path / "before", particles, density))
    run = RunFolder(prepared(tmp_path / "run", particles, tiny(marching_steps=4)))
    plan = Plan.read(run.path)
    go_on_from(run, plan, before.half_maps)
    last = len(plan.stages) - 1
    for half in HALVES:
        saved = load_checkpoint(run.checkpoint(half), plan.device)
        assert (saved["stage"], saved["best"]) == (last, None)
        trainer = build_trainer(plan, last, run.particles, half)
        trainer.load_state_dict(saved["training"])
        assert trainer.steps - trainer.step == UPDATES
        assert trainer.cutoff == plan.box / 2  # type: ignore[attr-defined]
        with torch.no_grad():
            found = trainer.volume().numpy()
        assert np.corrcoef(found.ravel(), density.ravel())[0, 1] > 0.98
