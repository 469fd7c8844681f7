"""What a large data set costs on a cluster: a model from measured constants, docs/scaling.md and its figure.

    python benchmarks/cluster_model.py --measure
    python benchmarks/cluster_model.py

The first times what is done with the whole volume, once a batch and once a step, into docs/runs/volume.json (a minute
of one core). The second reads that, scaling.json (CPU time by box), operations.json (speed of operations), million.json
(rates of reading) and, where it is there, distributed.json (steps of one and two processes), which checks it. What is
not measured but assumed is `Assumed`, each a flag.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from cryogan.config import Settings
from cryogan.critics import Task
from cryogan.critics.matching.method import Matching
from cryogan.critics.matching.schedule import marching_cutoff, marching_steps
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.fourier import Disc
from cryogan.parallel.work import USUAL
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.projector import FourierProjector
from cryogan.physics.volume import Volume
from operations import POSE_STEP
from report import DOCS, IMAGES, RUNS, WORDS, table

PARTICLES, BOX = 10_000_000, 384
RANKS = (1, 8, 64)
LAST = 4  # steps at all frequencies
PIXEL_SIZE = 0.8  # A
Record = dict[str, Any]


@dataclass(frozen=True)
class Assumed:
    """What this machine cannot measure: an H200's published numbers, and shares of them."""

    memory_bandwidth: float = 4.8e12  # bytes a second, published
    bandwidth_share: float = 0.2  # of it that scattered reads reach
    sample_bytes: float = 256.0  # of a trilinear sample: four rows of two planes, a sector of 32 bytes each
    link: float = 50e9  # bytes a second between GPUs of different nodes: 400 Gbit/s each
    latency: float = 20e-6  # seconds of one message
    gpu_memory: float = 141e9  # bytes


def _volume_step(projector: FourierProjector, volume: Volume, back: BackProjector, total: torch.Tensor) -> None:
    projector.transform(volume().detach())
    for _ in range(2):
        back.finish(total)


def measured_volume() -> Record:
    """CPU seconds of a back-projection of one image, which is what a batch costs beside its images, and of the rest."""
    torch.set_num_threads(1)
    boxes = []
    for box in (64, 96, 128, 192):
        projector = FourierProjector(box, device=torch.device("cpu"))
        volume = Volume(box, 0.45 * box, "D2", torch.device("cpu"))
        back, disc = BackProjector(projector, volume), Disc(box, box / 2, device=torch.device("cpu"))
        total, value = projector.transform(volume().detach()), torch.zeros(1, len(disc), dtype=torch.complex64)
        operations = {
            "batch": partial(back.add, total, disc, torch.eye(3)[None], value),
            "step": partial(_volume_step, projector, volume, back, total),
        }
        boxes.append({"box": box})
        for name, operation in operations.items():
            operation()
            start = time.process_time()
            for _ in range(3):
                operation()
            boxes[-1][name] = (time.process_time() - start) / 3
        print(boxes[-1], flush=True)
    return {"boxes": boxes}


class Cost:
    """Seconds of one core for a step of frequency marching: per image, by its coefficients; per batch; per volume."""

    def __init__(self, scaling: Record, operations: Record, volume: Record) -> None:
        cubes = np.array([(2.0 * run["box"]) ** 3 for run in volume["boxes"]])
        self.batch_voxel, self.step_voxel = (
            float(np.median([run[name] for run in volume["boxes"]] / cubes)) for name in ("batch", "step")
        )
        boxes = np.array([run["box"] for run in scaling["boxes"]], dtype=float)
        seconds, images = np.array([run["cpu_seconds"] for run in scaling["boxes"]]), scaling["images"]
        voxels = (2 * images / IMAGES_AT_ONCE * self.batch_voxel + self.step_voxel) * (2 * boxes) ** 3
        # A power of the coefficients: in a larger volume their samples lie farther apart in memory.
        self.exponent, factor = np.polyfit(np.log(coefficients(boxes / 2)), np.log((seconds - voxels) / images), 1)
        self.factor = float(np.exp(factor))
        fitted = images * self.factor * coefficients(boxes / 2) ** self.exponent + voxels
        self.error = float(np.abs(fitted / seconds - 1).max())
        refined = next(
            operation
            for operation in operations["operations"]
            if operation["name"] in ("refine a step", "climb a step")
        )
        # A second; POSE_STEP is that of four samples and what follows.
        self.samples = refined["gflop_s"] * 1e9 / POSE_STEP * 4

    def images(self, count: float, box: int, cutoff: float) -> float:
        """Seconds for `count` particles and as many simulated images, with their batches."""
        batch = self.batch_voxel * (2 * box) ** 3
        return float(count * (self.factor * coefficients(cutoff) ** self.exponent + 2 * batch / IMAGES_AT_ONCE))

    def volume(self, box: int) -> float:
        return float(self.step_voxel * (2 * box) ** 3)


def coefficients(cutoff: Any) -> Any:
    return math.pi * cutoff**2 / 2


def spectrum_bytes(box: int) -> float:
    """A padded transform of the volume, complex64."""
    padded = 2 * box
    return 8.0 * padded**2 * (padded // 2 + 1)


def summed_bytes(box: int) -> float:
    """Bytes that the ranks sum in a step of frequency marching: two unpadded transforms of the volume, complex64."""
    return 2 * 8.0 * box**2 * (box // 2 + 1)


def all_reduce(size: float, ranks: float, bandwidth: float, latency: float) -> float:
    """Seconds of a ring."""
    return 0.0 if ranks <= 1 else 2 * (ranks - 1) / ranks * size / bandwidth + 2 * (ranks - 1) * latency


def step(cost: Cost, assumed: Assumed, speed: float, images: float, box: int, cutoff: float, ranks: float) -> Record:
    """Seconds of a step of frequency marching of one half on `ranks` GPUs, each `speed` times as fast as a core."""
    arithmetic = cost.images(images, box, cutoff) / speed / ranks
    alike = cost.volume(box) / speed  # every rank does the same
    return {
        "arithmetic": arithmetic + alike,
        "communication": all_reduce(summed_bytes(box), ranks, assumed.link, assumed.latency),
    }


def run_hours(cost: Cost, assumed: Assumed, speed: float, last: float, box: int, gpus: int) -> tuple[float, float]:
    """GPU-limited hours and the share of communication: initial search, frequency marching with 10,000 images a step,
    and `last` images a step at all frequencies.

    Each half has half of the GPUs; one GPU works on one half after the other.
    """
    settings, ranks, turns = Settings(), max(1, gpus // 2), 2 if gpus == 1 else 1
    critic, task = Matching(), Task(settings, box, PIXEL_SIZE, 0.475 * box * PIXEL_SIZE, PARTICLES // 2)
    search = critic.stages(task)[0]
    seconds = sum(USUAL.seconds(critic.step_work(task, search, index)) for index in range(search.steps))
    arithmetic = seconds / speed
    communication, steps = 0.0, marching_steps(box, LAST)
    for index in range(steps):
        images = last if index >= steps - LAST else settings.marching_images
        spent = step(cost, assumed, speed, images, box, marching_cutoff(index, box), ranks)
        arithmetic, communication = arithmetic + spent["arithmetic"], communication + spent["communication"]
    return turns * (arithmetic + communication) / 3600, communication / (arithmetic + communication)


def crossing(cost: Cost, assumed: Assumed, speed: float, images: float, box: int) -> float:
    """GPUs of a half from which on communication takes longer than what they share."""
    for ranks in np.geomspace(2, 1e6, 400):
        shared = cost.images(images, box, box / 2) / speed / ranks
        if all_reduce(summed_bytes(box), ranks, assumed.link, assumed.latency) > shared:
            return float(ranks)
    return math.inf


def two_processes(cost: Cost, assumed: Assumed) -> str:
    """The model against docs/runs/distributed.json."""
    file = RUNS / "distributed.json"
    if not file.exists():
        return "The check against two processes waits for `docs/runs/distributed.json` (`benchmarks/distributed.py`)."
    runs = json.loads(file.read_text())
    alone = {(run["training"], run["box"]): run["cpu_seconds_a_step"] for run in runs if run["ranks"] == 1}
    rows: list[list[object]] = []
    for run in runs:
        one, measured = alone[run["training"], run["box"]], run["cpu_seconds_a_step"]
        if run["ranks"] > 1:
            sharpening = run["training"] == "sharpening"
            alike = min(cost.volume(run["box"]), one) if sharpening else 0.0
            modelled = alike + (one - alike) / run["ranks"]
            training = WORDS.get(run["training"], run["training"])
            rows.append([training, run["box"], run["ranks"], one, modelled, measured])
            summed = round(summed_bytes(run["box"])) if sharpening else ""
            rows[-1] += [f"{modelled / measured - 1:+.0%}", run["bytes_a_step"], summed]
    head = [
        "training",
        "box (px)",
        "processes",
        "one process (CPU s per step)",
        "predicted (CPU s)",
        "measured (CPU s)",
    ]
    head += ["off by", "bytes summed", "predicted"]
    return (
        "Two processes of a half (`benchmarks/distributed.py`), predicted from one: the work on images is "
        "halved, that on "
        "the volume is not. CPU seconds of the busier process, because of other load on the machine: the time of the "
        "messages is not included and has not been checked. The small batches of the other trainings do not halve: "
        "most of such a step is the same in both processes.\n\n" + table(head, rows)
    )


def plot(cost: Cost, assumed: Assumed, speed: float) -> None:
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    ranks = np.geomspace(1, 4096, 60)
    for index, (images, label) in enumerate(((10_000, "10,000"), (PARTICLES / 2, "5 million"))):
        steps = [step(cost, assumed, speed, images, BOX, BOX / 2, count) for count in ranks]
        left.loglog(
            ranks,
            [cost_of_step["arithmetic"] for cost_of_step in steps],
            color=f"C{index}",
            label=f"{label} images: computing",
        )
    left.loglog(ranks[1:], [cost_of_step["communication"] for cost_of_step in steps[1:]], "k--", label="communication")
    left.set(xlabel="GPUs of a half", ylabel="seconds per step", title=f"{BOX} px, all frequencies")
    left.legend(fontsize=7)
    boxes = np.array([64, 96, 128, 192, 256, 384, 512])
    for index, images in enumerate((10_000, 100_000, PARTICLES / 2)):
        many = [crossing(cost, assumed, speed, images, int(box)) for box in boxes]
        right.loglog(boxes, many, "o-", color=f"C{index}", label=f"{images:,.0f} images per step")
    right.set(xlabel="box (px)", ylabel="GPUs of a half", title="where communication overtakes computing")
    right.set_xticks(boxes, [str(box) for box in boxes])
    right.minorticks_off()
    right.legend(fontsize=7)
    for panel in (left, right):
        panel.grid(alpha=0.3)
    fig.savefig(IMAGES / "scaling_model.png", dpi=110)
    plt.close(fig)


def page(cost: Cost, assumed: Assumed, reading: Record) -> str:
    gpu = assumed.memory_bandwidth * assumed.bandwidth_share / assumed.sample_bytes
    speed = gpu / cost.samples
    plot(cost, assumed, speed)
    rows: list[list[object]] = []
    for gpus in RANKS:
        row: list[object] = [gpus]
        for last in (Settings().marching_images, PARTICLES / 2):
            hours, share = run_hours(cost, assumed, speed, last, BOX, gpus)
            row += [f"{60 * hours:.2g}" if hours < 1 else f"{60 * hours:.0f}", f"{share:.1%}"]
        pass_seconds = cost.images(PARTICLES / 2, BOX, BOX / 2) / speed / max(1, gpus // 2)
        row.append(f"{PARTICLES / 2 * 2 * BOX**2 / pass_seconds / 1e9 * (1 if gpus == 1 else 2):.2f}")
        rows.append(row)
    head = ["GPUs", "10,000 images in each step: minutes", "of which communication"]
    head += ["every particle in the last four steps: minutes", "of which communication", "read (GB/s, all GPUs)"]
    cached = 2 * BOX**2
    made, pieces = (
        reading["cache"]["cpu_seconds"] / reading["images"],
        reading["batches"]["cpu_seconds"] / reading["images"],
    )
    # A crop costs by the pixels of its file; these were of 64 px.
    crop = made * (BOX / 64) ** 2
    convolutional = 4 * 1_577_621
    crossings = [
        [box, *(f"{crossing(cost, assumed, speed, images, box):.0f}" for images in (10_000, PARTICLES / 2))]
        for box in (64, 192, BOX)
    ]
    volume = spectrum_bytes(BOX)
    parts = [
        "# From a laptop to a cluster",
        "A model, not a measurement: written by `benchmarks/cluster_model.py` from what was measured on one core of a "
        "CPU ([results](results.md)) and from assumptions on GPU and network. No run of this size has been made, and "
        "the speed of a GPU that the model assumes has not been measured.",
        f"**Measured.** A step of frequency marching takes a core {1e6 * cost.factor:.2g} us times the number of "
        f"Fourier coefficients to the power {cost.exponent:.2f} for a particle and a simulated image, and for a voxel "
        f"of the padded volume {1e9 * cost.batch_voxel:.2g} ns in each batch of {IMAGES_AT_ONCE} images and "
        f"{1e9 * cost.step_voxel:.2g} ns in each step (fit to 32 to 192 px, error at most {cost.error:.0%}; {BOX} px "
        f"is an extrapolation). Refining poses, a core computes {cost.samples / 1e6:.1f} million trilinear samples per "
        "second.",
        f"**Assumed** (flags of the script). A GPU reads scattered samples at {assumed.bandwidth_share:.0%} of an "
        f"H200's published {assumed.memory_bandwidth / 1e12:g} TB/s, {assumed.sample_bytes:g} bytes each: "
        f"{gpu / 1e9:.1f} billion per second, as many as {speed:.0f} cores, and is faster by the same factor in "
        f"everything else. GPUs are connected by {assumed.link / 1e9:g} GB/s each, {1e6 * assumed.latency:g} us per "
        "message; a ring all-reduce of b bytes over n takes 2 (n - 1) / n b / bandwidth and the latencies.",
        f"## {PARTICLES / 1e6:.0f} million particles at {BOX} px",
        f"Both halves, default settings: two initial searches at 32 px, {marching_steps(BOX, LAST)} steps of "
        "frequency marching. Each half has half of the GPUs; a single GPU works on one after the other. The last "
        "column is the rate at which the cache has to be read in steps with every particle.",
        table(head, rows),
        f"**Memory.** {7.5 * volume / 1e9:.0f} GB for {BOX} px (7.5 padded spectra of {volume / 1e9:.1f} GB) and "
        f"{76 * 8 * coefficients(BOX / 2) / 1e6:.0f} MB for each image that is processed at a time, of "
        f"{assumed.gpu_memory / 1e9:.0f} GB on an H200: both halves fit on one. It does not depend on the number of "
        "particles.",
        f"**Communication.** A step of the matching critic sums two spectra over the GPUs, "
        f"{summed_bytes(BOX) / 1e9:.2f} GB at {BOX} px ({summed_bytes(64) / 1e6:.1f} MB at 64 px), whatever the number "
        f"of images. The Wasserstein critic sums its {convolutional / 1e6:.1f} MB of gradients at each of its steps "
        f"and {4 * BOX**3 / 1e6:.0f} MB of the volume's. The number of GPUs per half beyond which communication takes "
        "longer than the computing that is shared:",
        table(["box (px)", "10,000 images in each step", "every particle of the half"], crossings),
        f"**Cache.** {PARTICLES * cached / 1e12:.1f} TB of float16. Downsampling from 64 to {reading['box']} px took a "
        f"core {1e3 * made:.2g} ms per image; in proportion to the pixels, {BOX} px take "
        f"{crop * PARTICLES / 3600:.0f} core hours for all, once. Reading and preprocessing a batch took "
        f"{1e6 * pieces:.0f} us per image of 64 px, which corresponds to {1 / (pieces * (BOX / 64) ** 2):,.0f} images "
        f"of {BOX} px per second and core, {cached / (pieces * (BOX / 64) ** 2) / 1e9:.2f} GB/s: compared with the "
        "last column of the table, the number of cores that a GPU needs.",
        "![Computing and communication](images/scaling_model.png)",
        "## Check",
        two_processes(cost, assumed),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for assumption in fields(Assumed):
        parser.add_argument(f"--{assumption.name.replace('_', '-')}", type=float, default=assumption.default)
    parser.add_argument("--measure", action="store_true", help="write docs/runs/volume.json and stop")
    flags = vars(parser.parse_args())
    if flags.pop("measure"):
        (RUNS / "volume.json").write_text(json.dumps(measured_volume(), indent=1))
        return
    scaling, operations, volume, million = (
        json.loads((RUNS / f"{name}.json").read_text()) for name in ("scaling", "operations", "volume", "million")
    )
    (DOCS / "scaling.md").write_text(page(Cost(scaling, operations, volume), Assumed(**flags), million["reading"]))


if __name__ == "__main__":
    main()
