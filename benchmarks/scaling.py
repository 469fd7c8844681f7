"""How cost grows: with the box, and with the number of particles.

    python benchmarks/scaling.py --out docs/runs/scaling.json

For each box, CPU time and memory of a step of frequency marching at all frequencies, in a process of its own; for each
number of particles of a phantom, CPU time and resolution of a whole `cryogan reconstruct`; and for each number of
particles of `POSES_BOX` pixels, CPU time and memory of matching them with their map, as `cryogan poses` does.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from accuracy import measure
from cryogan.config import resolve
from cryogan.critics.matching.schedule import marching_steps
from cryogan.models.phantom import phantom
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import search_poses
from cryogan.run.build import build_trainer
from cryogan.run.inputs import read_inputs
from cryogan.simulation import simulate

BOXES = (32, 48, 64, 96, 128, 192)
PARTICLES = (500, 1000, 2000, 5000, 10000, 20000)
POSES, POSES_BOX = (500, 1000, 5000, 20000), 64
IMAGES = 512
SYMMETRY, BOX, PIXEL_SIZE, SNR, MAX_SHIFT = "D2", 48, 5.0, 0.5, 5.0


def step(box: int, folder: Path, result: "multiprocessing.Queue[dict[str, float]]") -> None:
    torch.set_num_threads(1)
    volume = phantom(box, 240.0 / box, 0)
    simulate(volume, 240.0 / box, folder, count=2 * IMAGES, snr=0.5, max_shift=5.0, seed=0)
    flags = {"symmetry": SYMMETRY, "box": box, "marching_images": IMAGES, "max_shift": 5.0}
    plan, _, _ = read_inputs(folder / "particles.star", folder / "noise.star", None, resolve("default", None, flags))
    training = build_trainer(plan, len(plan.stages) - 1, folder / "particles.star", 1)
    training.volume.start_from(torch.from_numpy(volume).to(training.volume.density))
    training.step = marching_steps(box, 1) - 1  # the cut-off is at the Nyquist frequency
    before = time.process_time()
    list(training.run(until=training.step + 1))
    seconds = time.process_time() - before
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result.put({"box": box, "cpu_seconds": seconds, "memory_gib": memory})


def poses(count: int, folder: Path, result: "multiprocessing.Queue[dict[str, float]]") -> None:
    torch.set_num_threads(1)
    pixel_size = 240.0 / POSES_BOX
    volume = phantom(POSES_BOX, pixel_size, 0)
    simulate(volume, pixel_size, folder, count=count, snr=0.5, max_shift=5.0, seed=0)
    plan, _, _ = read_inputs(folder / "particles.star", None, None, resolve("default", None, {"max_shift": 5.0}))
    density = torch.from_numpy(volume)
    halves = [HalfSet(plan, folder / "particles.star", half) for half in (1, 2)]
    before = time.process_time()
    for half in halves:
        search_poses(half, density, POSES_BOX / 2)
    seconds = time.process_time() - before
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result.put({"particles": count, "cpu_seconds": seconds, "memory_gib": memory})


def apart(function: Callable[..., None], *arguments: object) -> dict[str, float]:
    """What a function puts into its queue, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    result: multiprocessing.Queue[dict[str, float]] = context.Queue()
    process = context.Process(target=function, args=(*arguments, result))
    process.start()
    measured = result.get()
    process.join()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--boxes", type=int, nargs="*", default=BOXES)
    parser.add_argument("--particles", type=int, nargs="*", default=PARTICLES)
    parser.add_argument("--poses", type=int, nargs="*", default=POSES)
    a = parser.parse_args()
    what = f"a phantom ({SYMMETRY}, {BOX} px of {PIXEL_SIZE} A, SNR {SNR}, shifts up to {MAX_SHIFT} A)"
    record: dict[str, object] = {"images": IMAGES, "what": what, "boxes": [], "particles": [], "poses": []}
    with tempfile.TemporaryDirectory() as scratch:
        for box in a.boxes:
            record["boxes"].append(apart(step, box, Path(scratch) / f"box{box}"))
            print(record["boxes"][-1], flush=True)
            a.out.write_text(json.dumps(record, indent=1))
        for count in a.particles:
            data = Path(scratch) / f"particles{count}"
            truth = phantom(BOX, PIXEL_SIZE, 0)
            simulate(truth, PIXEL_SIZE, data, count=count, snr=SNR, max_shift=MAX_SHIFT, seed=0)
            done = measure(
                data, 0, Path(scratch) / f"run{count}", ["--symmetry", SYMMETRY, "--max-shift", str(MAX_SHIFT)]
            )
            record["particles"].append(
                {"particles": count} | {name: done[name] for name in ("cpu_minutes", "truth_05")}
            )
            print(record["particles"][-1], flush=True)
            a.out.write_text(json.dumps(record, indent=1))
        for count in a.poses:
            record["poses"].append(apart(poses, count, Path(scratch) / f"poses{count}"))
            print(record["poses"][-1], flush=True)
            a.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
