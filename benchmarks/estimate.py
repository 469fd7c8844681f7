"""How near the time and memory that `cryogan check` states are to the truth: 64, 128 and 192 px, 1 and 2 threads.

    python benchmarks/estimate.py --scratch scratch --out docs/runs/estimate.json

The truth is that of short runs of real trainers on a phantom: CPU time of a few steps of each stage, at several
cut-offs and with two numbers of images, from which the plan's own steps follow by interpolation. CPU time is compared,
so that other programs on the machine hardly count: the machine's load stands beside each number.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cryogan.config import resolve
from cryogan.critics import Trainer
from cryogan.critics.matching.schedule import marching_cutoff
from cryogan.models.phantom import phantom
from cryogan.run.build import build_simulator, build_trainer
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan
from cryogan.run.speed import measure_speed
from cryogan.simulation import simulate

BOXES, THREADS = (64, 128, 192), (1, 2)
WIDTH_A, STORED, PARTICLES = 240.0, 1100, 5000  # the set that is stored, and the run that is estimated
IMAGES = (256, 512)  # of a step of frequency marching


def plan_of(folder: Path, box: int, threads: int, images: int) -> Plan:
    flags = {"box": box, "threads": threads, "marching_images": images}
    return read_inputs(folder / "particles.star", folder / "noise.star", None, resolve("default", None, flags)).plan


def timed(trainer: Trainer, step: int) -> float:
    trainer.step = step
    before = time.process_time()
    list(trainer.run(until=step + 1))
    return time.process_time() - before


def search_seconds(plan: Plan, particles: Path) -> float:
    """CPU time of the search of one half."""
    trainer, stage = build_trainer(plan, 0, particles, 1), plan.stages[0]
    timed(trainer, 0)
    steps = np.linspace(0, stage.steps - 1, 4).astype(int)
    seconds = [min(timed(trainer, int(step)) for _ in range(2)) for step in steps]
    return float(np.interp(np.arange(stage.steps), steps, seconds).sum())


def marching_seconds(plans: dict[int, Plan], particles: Path, density: np.ndarray) -> float:
    """CPU time of the frequency marching of one half with `PARTICLES` particles."""
    few, many = IMAGES
    (stage,) = {plan.stages[-1] for plan in plans.values()}
    steps = [0, (stage.steps - 4) // 2, stage.steps - 4]
    seconds = {}
    for images, plan in plans.items():
        trainer = build_trainer(plan, len(plan.stages) - 1, particles, 1)
        trainer.volume.start_from(torch.from_numpy(density).to(trainer.volume.density))
        timed(trainer, 0)
        seconds[images] = np.array([timed(trainer, step) for step in steps])
    image = (seconds[many] - seconds[few]) / (many - few)
    whole = seconds[many] + image * (PARTICLES / 2 - many)
    measured, all_steps = ([marching_cutoff(step, stage.box) for step in part] for part in (steps, range(stage.steps)))
    return float(np.interp(all_steps, measured, whole).sum())


def measure(box: int, threads: int, scratch: Path, result: "multiprocessing.Queue[dict[str, object]]") -> None:
    torch.set_num_threads(threads)
    density, folder = phantom(box, WIDTH_A / box, 0), scratch / f"box{box}"
    if not folder.exists():
        simulate(density, WIDTH_A / box, folder, count=STORED, snr=0.5, max_shift=5.0, seed=0)
    particles, load = folder / "particles.star", os.getloadavg()[0]
    plans = {images: plan_of(folder, box, threads, images) for images in IMAGES}
    plan = plan_of(folder, box, threads, PARTICLES)
    truth = search_seconds(plan, particles) + marching_seconds(plans, particles, density)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    images, simulator = build_simulator(plan, box, particles, 1, 0)
    before = time.process_time()
    speed = measure_speed(images, simulator, threads, time.process_time)
    row = {"box": box, "threads": threads, "load": load, "measurement_cpu_seconds": time.process_time() - before}
    estimate = speed.seconds(replace(plan, particle_count=PARTICLES).cost.training)
    row |= {"cpu_seconds": truth, "estimate": estimate, "memory_gib": memory, "memory_estimate": plan.cost.memory_gib}
    result.put(row | {"speed": vars(speed)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--boxes", type=int, nargs="*", default=BOXES)
    parser.add_argument("--threads", type=int, nargs="*", default=THREADS)
    a = parser.parse_args()
    a.scratch.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that wait for a core would count as work
    rows: list[dict[str, object]] = []
    context = multiprocessing.get_context("spawn")
    for box in a.boxes:
        for threads in a.threads:
            result: multiprocessing.Queue[dict[str, object]] = context.Queue()
            process = context.Process(target=measure, args=(box, threads, a.scratch, result))
            process.start()
            rows.append(result.get())
            process.join()
            print(rows[-1], flush=True)
            a.out.write_text(json.dumps({"particles": PARTICLES, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
