"""What a step costs on one and on two processes of a half map, and how much they tell each other.

One thread a process, gloo. CPU seconds are the process's own (getrusage), of the busiest process; they do not count
waiting for the other. Bytes are those that a process hands to all-reduce; a ring of R sends 2 (R - 1) / R of them. The
difference of the maps is that from one process's, over its maximum: rounding, which bfloat16 and Adam, from the first
convolutional steps on, make much of.

    python benchmarks/distributed.py --boxes 32 48 --out distributed.json
"""

import argparse
import json
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from cryogan.config import Settings
from cryogan.models.phantom import phantom
from cryogan.parallel.ranks import Ranks
from cryogan.particles import read_volume
from cryogan.run.build import build_trainer
from cryogan.run.inputs import read_inputs
from cryogan.simulation import simulate

WIDTH = 192.0  # of the box, A
STEPS = {"convolutional": 6, "search": 4, "sharpening": 2}  # measured, after one that is not


class Counting(Ranks):
    """Counts what is summed."""

    bytes = 0

    def sum(self, *tensors: Tensor) -> None:
        self.bytes += sum(tensor.nbytes for tensor in tensors) if self.count > 1 else 0
        super().sum(*tensors)


def measure(name: str, box: int, folder: Path, ranks: Counting) -> dict[str, Any]:
    """Seconds and bytes of a step of one training; and its map."""
    torch.set_num_threads(1)
    critic = "wasserstein" if name == "convolutional" else "matching"
    settings = Settings(critic=critic, box=box, coarse_to_fine=False, starts=1, critic_warmup=2)  # type: ignore[arg-type]
    plan, images, _ = read_inputs(folder / "particles.star", folder / "noise.star", None, settings)
    index = {"convolutional": 0, "search": 0, "sharpening": len(plan.stages) - 1}[name]
    training = build_trainer(plan, index, folder / "particles.star", 1, ranks)
    if name == "sharpening":
        training.volume.start_from(torch.from_numpy(read_volume(folder / "truth.mrc")[0]))
    list(training.run(until=1))
    first, ranks.bytes = (time.perf_counter(), _cpu()), 0
    list(training.run(until=1 + STEPS[name]))
    wall, cpu = (now - then for now, then in zip((time.perf_counter(), _cpu()), first, strict=True))
    return {
        "box": plan.stages[index].box,
        "particles": len(images) // 2,
        "cpu_seconds": cpu / STEPS[name],
        "wall_seconds": wall / STEPS[name],
        "bytes": ranks.bytes // STEPS[name],
        "map": training.result().numpy(),
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def process(index: int, count: int, name: str, box: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / f"{name}{count}"), count)
    dist.init_process_group("gloo", store=store, rank=index, world_size=count)
    torch.save(measure(name, box, folder, Counting(dist.group.WORLD)), folder / f"{name}{count}_{index}.pt")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[32, 48])
    parser.add_argument("--particles", type=int, default=2000, help="of both halves")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="processes of the half; the first is 1")
    parser.add_argument("--out", type=Path, help="file for what is printed")
    a = parser.parse_args()
    rows = []
    for box in a.boxes:
        with TemporaryDirectory() as scratch:
            folder = Path(scratch) / "set"
            simulate(
                phantom(box, WIDTH / box, 0), WIDTH / box, folder, count=a.particles, snr=0.5, max_shift=5.0, seed=0
            )
            for name, steps in STEPS.items():
                maps = []
                for count in a.ranks:
                    torch.multiprocessing.spawn(process, (count, name, box, folder), nprocs=count)
                    saved = [torch.load(folder / f"{name}{count}_{i}.pt", weights_only=False) for i in range(count)]
                    maps.append(saved[0]["map"])
                    rows.append(
                        {
                            "training": name,
                            "box": saved[0]["box"],
                            "particles": saved[0]["particles"],
                            "steps": steps,
                            "ranks": count,
                            "cpu_seconds_a_step": round(max(one["cpu_seconds"] for one in saved), 4),
                            "wall_seconds_a_step": round(max(one["wall_seconds"] for one in saved), 4),
                            "bytes_a_step": saved[0]["bytes"],
                            "map_difference": float(np.abs(maps[-1] - maps[0]).max() / np.abs(maps[0]).max()),
                        }
                    )
                    print(json.dumps(rows[-1]), flush=True)
    if a.out is not None:
        a.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
