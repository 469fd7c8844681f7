"""What each part of the view critic is good for: one half map, with one part left out at a time.

    python benchmarks/ablation.py ../shared/data/ribo_c1 --symmetry C1 --out ablation.json

Searches are judged where they end, sharpenings from the same search. One thread; the truth is read for the
evaluation alone.
"""

import argparse
import json
import time
from pathlib import Path
from unittest import mock

import torch

from accuracy import judge
from cryogan import halfmap
from cryogan.config import resolve
from cryogan.critics.matching.templates import Views
from cryogan.critics.matching.trainer import Search, Sharpening, ViewTraining
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan
from cryogan.validation import resolution_at

HALF = 1


class NothingSimulated(ViewTraining):
    """Only the mean over the real images is left of (iii)."""

    def _simulated(self, spectrum, count):
        half_planes, transfer = super()._simulated(spectrum, count)
        return torch.zeros_like(half_planes), transfer


class SearchWithoutSimulated(NothingSimulated, Search): ...


class SharpAtOnce(Search):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._sharpness = (self._sharpness[1], self._sharpness[1])


class SharpeningWithoutSimulated(NothingSimulated, Sharpening): ...


class TrustingAll(Sharpening):
    def _trust(self, first, second):
        return torch.ones_like(self._back.radius)


class Standing(Views):
    def climb(self, images, rotations, shifts, *, steps, largest, max_shift):
        return rotations, shifts, torch.zeros(len(images))


class WithoutClimbing(Sharpening):
    def _views(self, spectrum, disc):
        return Standing(self.simulator.projector, spectrum, disc, self._noise_power, self._width)


SEARCHES = {"search": Search, "no simulated images": SearchWithoutSimulated, "sharp attention at once": SharpAtOnce}
SHARPENINGS = {
    "sharpening": Sharpening,
    "no simulated images": SharpeningWithoutSimulated,
    "no trust by halves": TrustingAll,
    "no climbing": WithoutClimbing,
}


def train(plan: Plan, index: int, data: Path, kind: type[ViewTraining], start: ViewTraining | None) -> ViewTraining:
    with mock.patch.object(halfmap, "Search" if issubclass(kind, Search) else "Sharpening", kind):
        training = halfmap.build_trainer(plan, index, data / "particles.star", HALF)
    if start is not None:
        halfmap.start_from(training, start)
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
        variants = [(0, name, kind) for name, kind in SEARCHES.items()]
        variants += [(1, name, kind) for name, kind in SHARPENINGS.items()]
        found: ViewTraining | None = None
        for index, name, kind in variants:
            before = time.process_time()
            training = train(plan, index, a.data, kind, found if index else None)
            minutes = (time.process_time() - before) / 60
            found = training if kind is Search else found
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
