"""What each part of the matching critic is good for: one half map, with one part left out at a time.

    python benchmarks/ablation.py ../shared/data/ribo_c1 --symmetry C1 --out ablation.json

Searches are judged where they end, frequency marching from the same search. One thread; the truth is read for the
evaluation alone.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from accuracy import judge
from cryogan.config import resolve
from cryogan.critics import Trainer
from cryogan.critics.matching import best_poses, marching, search
from cryogan.critics.matching.pose_optimiser import RefinedPoses
from cryogan.critics.matching.trainer import MatchingTrainer
from cryogan.run.build import build_trainer, start_from
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan
from cryogan.validation import resolution_at

HALF = 1
Change = tuple[object, str, Callable[..., Any]]
simulated, inverse_temperature = MatchingTrainer.simulated, search.inverse_temperature


def nothing_simulated(*arguments):
    """Only the mean over the real images is left of (iii)."""
    half_planes, transfer = simulated(*arguments)
    return torch.zeros_like(half_planes), transfer


def sharp_at_once(step, steps, flat, sharp):
    return inverse_temperature(step, steps, sharp, sharp)


def no_weight(first, second, back):
    return torch.ones_like(back.radius)


def not_refined(templates, images, rotations, shifts, **how):
    return RefinedPoses(rotations, shifts, torch.zeros(len(images)))


NO_SIMULATED: Change = (MatchingTrainer, "simulated", nothing_simulated)
# What is put in the place of which part.
VARIANTS: list[tuple[int, str, list[Change]]] = [
    (0, "search", []),
    (0, "no simulated images", [NO_SIMULATED]),
    (0, "sharp attention at once", [(search, "inverse_temperature", sharp_at_once)]),
    (1, "marching", []),
    (1, "no simulated images", [NO_SIMULATED]),
    (1, "no FSC weight", [(marching, "fsc_weight", no_weight)]),
    (1, "no refined poses", [(best_poses, "refine_poses", not_refined)]),
]


def train(plan: Plan, index: int, data: Path, changes: list[Change], start: Trainer | None) -> Trainer:
    training = build_trainer(plan, index, data / "particles.star", HALF)
    if start is not None:
        start_from(training, start)
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(mock.patch.object(*change))
        list(training.run())
    return training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    torch.set_num_threads(1)
    records = []
    for seed in a.seeds:
        settings = resolve("default", None, {"symmetry": a.symmetry, "seed": seed, "starts": 1})
        plan, _, _ = read_inputs(a.data / "particles.star", a.data / "noise.star", None, settings)
        found: Trainer | None = None
        for index, name, changes in VARIANTS:
            before = time.process_time()
            training = train(plan, index, a.data, changes, found if index else None)
            minutes = (time.process_time() - before) / 60
            found = training if name == "search" else found
            curve, pixel_size = judge(training.result().numpy(), training.simulator.pixel_size, a.data)
            record = {
                "set": a.data.name,
                "seed": seed,
                "stage": plan.stages[index].method,
                "variant": name,
                "cpu_minutes": minutes,
                "truth_05": resolution_at(curve, pixel_size, 0.5),
                "truth_0143": resolution_at(curve, pixel_size, 0.143),
                "agreement": -float(training.distance),
                "truth_fsc": [round(float(value), 4) for value in curve],
            }
            records.append(record)
            print({name: value for name, value in record.items() if name != "truth_fsc"}, flush=True)
            a.out.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
