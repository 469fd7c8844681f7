"""A million particles: time and memory of a half's process, against 5,000 that are held in memory.

    python benchmarks/million.py DATA --scratch DIR --out docs/runs/million.json

DATA is a set at 64 px with particles.star and noise.star, such as bgal_paper. Its images are repeated with fresh noise,
its CTFs and micrographs with them, in a stack of float16 in DIR (8 GB, deleted at the end, unless --keep). Each has a
process of its own, on one thread: seconds, CPU seconds (the reading thread's too), and the largest resident memory.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch

from cryogan.config import resolve
from cryogan.particles import ParticleImages, crop, read_particles, write_particles
from cryogan.run.build import build_trainer
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan

COUNTS = (5_000, 1_000_000)
PIECE = 5_000  # images written at once
SPARE = 10 << 30  # bytes that stay free on the disk
FLAGS = {"symmetry": "D2", "search_steps": 20, "starts": 1, "marching_steps": 1, "marching_images": 2048, "threads": 1}
CROPPED, CROPPED_BOX = 50_000, 48  # images of the timed cache, and their box
TIMED = {"search": 19, "sharpening": 4}  # steps of each stage
Record = dict[str, Any]


class Meter:
    """Seconds, CPU seconds of all threads, and the process's largest resident memory so far."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Record:
        gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
            "peak_gib": gib,
        }


def write_in_pieces(path: Path, pieces: Iterable[np.ndarray], shape: tuple[int, int, int], pixel_size: float) -> None:
    """Write a stack (N, D, D) of float16 that need not fit into memory."""
    with mrcfile.new_mmap(path, shape, mrc_mode=12, overwrite=True) as out:
        out.set_image_stack()
        out.voxel_size = pixel_size
    with path.open("r+b") as file:
        file.seek(1024)
        for piece in pieces:
            file.write(piece.astype("<f2").tobytes())


def make(data: Path, folder: Path, count: int) -> None:
    """`count` particles in `folder`, from those of `data`."""
    folder.mkdir(parents=True, exist_ok=True)
    table = read_particles(data / "particles.star")
    images = ParticleImages(table, table.box, 0.4375 * table.box * table.pixel_size).batch(np.arange(len(table)))
    if shutil.disk_usage(folder).free < 2 * images[0].size * count + SPARE:
        raise SystemExit(f"{folder}: not enough room for {2 * images[0].size * count / 1e9:.0f} GB and 10 GiB to spare")
    random = np.random.default_rng(0)

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, count, PIECE):
            piece = images[np.arange(start, min(start + PIECE, count)) % len(images)]
            yield piece + random.standard_normal(piece.shape, dtype=np.float32)

    write_in_pieces(folder / "particles.mrcs", pieces(), (count, *images.shape[1:]), table.pixel_size)
    lines = (data / "particles.star").read_text().splitlines()
    rows = [line.split() for line in lines if "@" in line]
    with (folder / "particles.star").open("w") as out:
        out.writelines(line + "\n" for line in lines[: next(i for i, line in enumerate(lines) if "@" in line)])
        for number in range(count):
            _, *rest = rows[number % len(rows)]
            out.write("\t".join([f"{number + 1:07d}@particles.mrcs", *rest]) + "\n")


def planned(folder: Path, noise: Path) -> Record:
    """What `cryogan reconstruct` does before it starts the halves."""
    meter = Meter()
    plan, images, _ = read_inputs(folder / "particles.star", noise, None, resolve("default", None, FLAGS))
    (folder / "run").mkdir(exist_ok=True)
    write_particles(folder / "run" / "particles.star", images.table)
    plan.write(folder / "run")
    return meter.read()


def acts(folder: Path) -> Iterator[Record]:
    """Of a half's process: it reads its particles, searches, and sharpens; each building, and each step."""
    torch.set_num_threads(1)
    plan, particles = Plan.read(folder / "run"), folder / "run" / "particles.star"
    for index, steps in enumerate(TIMED.values()):
        meter = Meter()
        training = build_trainer(plan, index, particles, 1)
        yield meter.read()
        run = training.run()
        next(run)  # the first step finds cold caches
        for _ in range(steps):
            meter = Meter()
            next(run)
            yield meter.read()


def half(folder: Path, asked: Any) -> None:
    measurements = acts(folder)
    while asked.recv():
        asked.send(next(measurements))


def in_turns(folders: Sequence[Path]) -> list[Record]:
    """For each set the sums of what `acts` measured, in processes of which one runs at a time, a step each in turn.

    So other work on the machine slows all of them alike. Who is not on is stopped, with its reading ahead.
    """
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in folders]
    pairs = list(zip(folders, pipes, strict=True))
    processes = [context.Process(target=half, args=(folder, there), daemon=True) for folder, (_, there) in pairs]
    for process in processes:
        process.start()
    records: list[Record] = [{} for _ in folders]
    names = [name for stage, steps in TIMED.items() for name in (f"build_{stage}", *[stage] * steps)]
    for name in names:
        for process, (here, _), record in zip(processes, pipes, records, strict=True):
            os.kill(process.pid or 0, signal.SIGCONT)
            here.send(True)
            measured = here.recv()
            os.kill(process.pid or 0, signal.SIGSTOP)
            sums = record.setdefault(name, {"seconds": 0.0, "cpu_seconds": 0.0, "steps": 0})
            sums["seconds"] += measured["seconds"]
            sums["cpu_seconds"] += measured["cpu_seconds"]
            sums["steps"] += 1
            sums["peak_gib"] = measured["peak_gib"]
    for process in processes:
        process.kill()
    return records


def reading(folder: Path, noise: Path) -> Record:
    """Images a second: as they are in the file, preprocessed, and through the making of a cache."""
    table = read_particles(folder / "particles.star")
    rows = np.random.default_rng(0).permutation(len(table))[:CROPPED]
    radius = 0.4375 * table.box * table.pixel_size
    record: Record = {"images": len(rows), "box": CROPPED_BOX}
    meter = Meter()
    with (folder / "particles.mrcs").open("rb", buffering=0) as file:
        for row in np.sort(rows):
            file.seek(1024 + 2 * table.box**2 * int(row))
            file.read(2 * table.box**2)
    record["file"] = meter.read()
    images = ParticleImages(table.select(rows), CROPPED_BOX, radius, memory_limit_bytes=0)
    meter = Meter()
    for part in np.array_split(np.arange(len(rows)), len(rows) // 200):
        images.batch(part)
    record["batches"] = meter.read()
    meter = Meter()
    crop(table.select(rows), CROPPED_BOX, radius, False, folder / "cache", lambda _: None)
    record["cache"] = meter.read()
    return record


def _put(function: Callable[..., Record], arguments: tuple[Any, ...], result: Any) -> None:
    result.put(function(*arguments))


def apart(function: Callable[..., Record], *arguments: Any) -> Record:
    """What a function returns in a process of its own."""
    context = multiprocessing.get_context("spawn")
    result: Any = context.Queue()
    process = context.Process(target=_put, args=(function, arguments, result))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)
    found: Record = result.get()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS)
    parser.add_argument("--keep", action="store_true", help="leave the sets in the scratch folder")
    a = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    record: Record = {"set": a.data.name, "flags": FLAGS, "sizes": []}
    for count in a.counts:
        folder = a.scratch / f"particles{count}"
        if not (folder / "particles.star").exists():
            make(a.data, folder, count)
        size = (folder / "particles.mrcs").stat().st_size
        entry: Record = {"particles": count, "gigabytes": size / 1e9}
        entry["plan"] = apart(planned, folder, a.data / "noise.star")
        print(count, entry["plan"], flush=True)
        record["sizes"].append(entry)
    folders = [a.scratch / f"particles{count}" for count in a.counts]
    for entry, measured in zip(record["sizes"], in_turns(folders), strict=True):
        entry |= measured
        print(entry, flush=True)
    record["reading"] = apart(reading, folder, a.data / "noise.star") | {"particles": count}
    print(record["reading"], flush=True)
    a.out.write_text(json.dumps(record, indent=1))
    if not a.keep:
        shutil.rmtree(a.scratch)


if __name__ == "__main__":
    main()
