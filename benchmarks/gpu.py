"""Everything that is to be known of a GPU, in one command of at most eight minutes, without network or data.

    python benchmarks/gpu.py --scratch gpu --out docs/runs/gpu.json
    python benchmarks/gpu.py --scratch gpu_quick --out gpu_quick.json --device cpu --quick
    python benchmarks/gpu_page.py

It makes its particles, runs the tests that need a GPU, times every operation beside the CPU's, runs the default critic
to its end at several working boxes and the paper's preset for two minutes. Each part has a process of its own and is
written to the record as soon as it ends. A part that fails is recorded with its error, and the next one begins; a part
for which the minutes that are left do not suffice is recorded as left. The same command goes on with the parts that are
not done. --scratch keeps particles and runs (3 GB) until it is deleted. `gpu_page.py` makes docs/gpu.md.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import torch

import gpu_data
import gpu_operations
from accuracy import measure, processor
from cryogan import __version__
from cryogan.parallel.cores import available_cores
from gpu_watch import Watch

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 7.8
LOG = 4000  # characters of what a part that failed has printed
FEW = "--starts 1 --orientations 200 --search-steps 3 --search-batch 30 --marching-steps 1 --marching-images 60"
Record = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large the parts are: those of the paper's experiment, or small ones that a CPU does in a minute.

    Attributes:
        box, pixel_size, particles, micrographs: of the data.
        operations: boxes at which operations are timed.
        samples: of slices, of a timed operation on a GPU; a CPU gets a tenth.
        rotations: of the bank.
        working: boxes at which the default critic runs.
        options: of these runs.
        paper: options of the run with the paper's preset.
    """

    box: int
    pixel_size: float
    particles: int
    micrographs: int
    operations: tuple[int, ...]
    samples: int
    rotations: int
    working: tuple[int, ...]
    options: tuple[str, ...]
    paper: tuple[str, ...]


SIZES = {
    "full": Size(180, 1.274, 41_000, 1539, (128, 64, 192), 3_000_000, 4608, (128, 180, 64), (), ("--max-minutes", "2")),
    "quick": Size(
        32, 6.0, 200, 20, (24,), 30_000, 200, (24,), (*FEW.split(), "--threads", "1"),
        ("--critic-width", "2", "--steps", "2", "--critic-warmup", "1", "--threads", "1"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        seconds: that it is expected to take where there is a GPU; of runs with the comparison with the truth.
        run: what is done; returns what is recorded.
    """

    seconds: float
    run: Callable[[], Record]


def parts(size: Size, device: torch.device, scratch: Path) -> dict[str, Part]:
    """The parts by name, in the order of their worth."""
    data = scratch / "particles"
    planned = {"particles": Part(60, lambda: make_data(data, size, device)), "tests": Part(40, run_tests)}
    boxes = {64: 75, 128: 100, 180: 130}
    for box in size.working:
        options = ["--box", str(box), *size.options]
        planned[f"default at {box} px"] = Part(
            boxes.get(box, 0),
            lambda box=box, options=options: reconstruct(data, scratch / f"box{box}", device, options),
        )
    for box in size.operations:
        planned[f"operations at {box} px"] = Part(25, lambda box=box: time_operations(box, size, device))
    paper = ["--preset", "paper", "--box", str(size.box), *size.paper]
    planned["paper preset"] = Part(215, lambda: reconstruct(data, scratch / "paper", device, paper))
    return planned


def make_data(folder: Path, size: Size, device: torch.device) -> Record:
    shutil.rmtree(folder, ignore_errors=True)
    gpu_data.make(folder, size.box, size.pixel_size, size.particles, size.micrographs, device)
    return {"bytes": sum(path.stat().st_size for path in folder.iterdir())}


def run_tests() -> Record:
    """Run `pytest -m cuda`, without collecting the files that have no such test."""
    files = [str(path) for path in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.cuda" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode:
        print(done.stdout, done.stderr)
        raise RuntimeError(lines[-1])
    return {"summary": lines[-1].strip("= ")}


def time_operations(box: int, size: Size, device: torch.device) -> Record:
    """On the CPU with all its cores, and on the GPU if that is the device."""
    cpu = torch.device("cpu")
    rows = gpu_operations.measure(box, size.samples // 10, size.rotations, cpu)
    if device != cpu:
        rows += gpu_operations.measure(box, size.samples, size.rotations, device)
    return {"rows": rows, "threads": torch.get_num_threads()}


def reconstruct(data: Path, out: Path, device: torch.device, options: list[str]) -> Record:
    """Run `cryogan reconstruct` from zero, both halves on the device, and compare the map with the truth."""
    shutil.rmtree(out, ignore_errors=True)
    with Watch(out / "progress.jsonl", device) as watch:
        measured = measure(data, 0, out, ["--symmetry", "D2", "--device", str(device), *options])
    return {name: value for name, value in measured.items() if name != "machine"} | watch.found(
        60 * measured["minutes"]
    )


def machine(device: torch.device) -> Record:
    """What the benchmark runs on; a missing device is refused."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("No CUDA device is visible. Give --device cpu --quick, or go where there is one.")
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": processor(),
        "cores": available_cores(),
        "version": f"{__version__} ({revision.stdout.strip() or 'revision unknown'})",
        "libraries": {"torch": torch.__version__, "cuda": torch.version.cuda, "numpy": np.__version__},
    }


def apart(run: Callable[[], Record], limit: float) -> Record:
    """Run a part in a process of its own, which is stopped with all of its children after `limit` seconds.

    What it prints is recorded, the end of it, if it fails.
    """
    context = multiprocessing.get_context("fork")  # this process never touches the GPU
    ours, theirs = context.Pipe(duplex=False)
    with TemporaryFile() as printed:
        process, start = context.Process(target=_run, args=(run, theirs, printed)), time.monotonic()
        process.start()
        theirs.close()
        try:
            found = ours.recv() if ours.poll(limit) else _failed(f"Stopped after {limit:.0f} s: the time was over.")
        except EOFError:
            process.join()
            found = _failed(f"The process ended with exit code {process.exitcode}.")
        finally:  # an interrupt ends it, too
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what the part has started and left
            process.kill()
            process.join()
        if found["status"] == "failed":
            printed.seek(0)
            found["printed"] = printed.read().decode(errors="replace")[-LOG:]
    return found | {"seconds": time.monotonic() - start}


def _failed(error: str) -> Record:
    return {"status": "failed", "error": error}


def _run(run: Callable[[], Record], result: Connection, printed: IO[bytes]) -> None:
    os.setsid()
    for stream in (1, 2):
        os.dup2(printed.fileno(), stream)
    try:
        found = {"status": "done"} | run()
    except Exception as error:
        traceback.print_exc()
        found = _failed(f"{type(error).__name__}: {error}"[-LOG:])
    sys.stdout.flush()
    sys.stderr.flush()
    result.send(found)


def begin(out: Path, size: str, device: torch.device) -> Record:
    """The record of an earlier call of the same size on the same machine, or a new one."""
    found = apart(lambda: machine(device), 120)
    if found["status"] == "failed":
        raise SystemExit(found["error"])
    here = {"size": size} | {name: value for name, value in found.items() if name not in ("status", "seconds")}
    if not out.exists():
        return here | {"parts": {}}
    record: Record = json.loads(out.read_text())
    different = [name for name, value in here.items() if record.get(name) != value]
    if different:
        raise SystemExit(f"{out} differs from this call in {', '.join(different)}. Give another --out, or delete it.")
    return record


def run_parts(record: Record, planned: dict[str, Part], end: float, keep: Callable[[Record], None]) -> None:
    """Run the parts that are not done, each if the time suffices until `end`; `keep` writes the record after each."""
    for name, part in planned.items():
        if record["parts"].get(name, {}).get("status") == "done":
            continue
        left = end - time.monotonic()
        enough = left >= part.seconds
        found = apart(part.run, left) if enough else {"status": "left", "error": f"{max(left, 0):.0f} s were left."}
        record["parts"][name] = found
        keep(record)
        print(f"{name}: {found['status']}", f"{found['seconds']:.0f} s" if enough else found["error"], flush=True)
        if found["status"] == "failed":
            print(found["printed"], found["error"], sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder of the particles and the runs")
    parser.add_argument("--out", type=Path, required=True, help="the record")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"of the whole command; default {MINUTES}")
    parser.add_argument("--quick", action="store_true", help="every part at a size for a CPU, to try the benchmark")
    a = parser.parse_args()
    end, size = time.monotonic() + 60 * a.minutes, "quick" if a.quick else "full"
    record = begin(a.out, size, a.device)
    if not (a.scratch / "particles" / "noise.star").exists():
        record["parts"].pop("particles", None)
    run_parts(
        record,
        parts(SIZES[size], a.device, a.scratch.resolve()),
        end,
        lambda record: a.out.write_text(json.dumps(record, indent=1) + "\n") and None,
    )
    sys.exit(any(part["status"] != "done" for part in record["parts"].values()))


if __name__ == "__main__":
    main()
