"""How good a map is, and what it costs: run `cryogan reconstruct` on a data set whose truth is known.

    python benchmarks/accuracy.py ../shared/data/bgal_paper --seeds 0 1 2 --out RUNS -- --symmetry D2 --max-shift 0
    python benchmarks/accuracy.py --table RUNS > docs/results_table.md

Everything after `--` goes to `cryogan reconstruct`. The data set's folder holds particles.star, noise.star and
truth.mrc; the truth is read after the run, for the evaluation alone. Each run leaves `accuracy.json` beside
its map.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cryogan import __version__
from cryogan.particles import read_volume
from cryogan.validation import align, fsc, fsc_curves, resample, resolution_at

COLUMNS = {
    "set": "data set",
    "seed": "seed",
    "minutes": "minutes",
    "cpu_minutes": "CPU minutes",
    "truth_05": "map and truth, FSC 0.5 (Å)",
    "truth_0143": "map and truth, FSC 0.143 (Å)",
    "halves_unmasked": "half maps, FSC 0.143 unmasked (Å)",
    "halves_corrected": "half maps, FSC 0.143 corrected (Å)",
    "memory_gib": "memory of a half (GiB)",
}


def measure(data: Path, seed: int, out: Path, options: list[str]) -> dict[str, object]:
    """Reconstruct, then compare with the truth."""
    command = [sys.executable, "-m", "cryogan.cli", "reconstruct", str(data / "particles.star")]
    command += [] if "--noise-model" in options else ["--noise", str(data / "noise.star")]
    command += ["--seed", str(seed), "--out", str(out), *options]
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    minutes = (time.monotonic() - start) / 60
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_minutes = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
    curve, pixel_size = judge(*read_volume(out / "map.mrc"), data)
    (half1, working_pixel_size), (half2, _) = (read_volume(out / f"half{half}_map_unfil.mrc") for half in (1, 2))
    curves = fsc_curves(half1, half2, working_pixel_size, read_volume(out / "mask.mrc")[0])
    # The largest of all processes that this one waited for, kilobytes on Linux: a half.
    memory = after.ru_maxrss / 2**20
    return {
        "set": data.name,
        "seed": seed,
        "minutes": minutes,
        "cpu_minutes": cpu_minutes,
        "truth_05": resolution_at(curve, pixel_size, 0.5),
        "truth_0143": resolution_at(curve, pixel_size, 0.143),
        "halves_unmasked": resolution_at(curves.unmasked, working_pixel_size, 0.143),
        "halves_corrected": resolution_at(curves.corrected, working_pixel_size, 0.143),
        "memory_gib": memory,
        "truth_fsc": [round(float(value), 4) for value in curve],
        "options": options,
        "versions": {"cryogan": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
    }


def judge(volume: np.ndarray, pixel_size: float, data: Path) -> tuple[np.ndarray, float]:
    """FSC of a map with the truth, aligned to it in both hands; and the truth's pixel size."""
    truth, true_pixel_size = read_volume(data / "truth.mrc")
    volume = resample(volume, pixel_size, len(truth), true_pixel_size)
    return fsc(align(volume, truth, true_pixel_size).apply(volume, true_pixel_size), truth), true_pixel_size


def course(data: Path, out: Path, cpu_minutes: float) -> list[dict[str, float]]:
    """FSC 0.5 of half map 1 with the truth during the run; of the CPU time, the share that had passed by then."""
    records = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    minutes = {record["step"]: record["minutes"] for record in records if record["half"] == 1}
    points = []
    for path in sorted(out.glob("snapshots/half1_step*.mrc")):
        step = int(path.stem.split("step")[1])
        curve, pixel_size = judge(*read_volume(path), data)
        spent = cpu_minutes * minutes[step] / max(minutes.values())
        points.append({"step": step, "cpu_minutes": spent, "truth_05": resolution_at(curve, pixel_size, 0.5)})
    return points


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(runs: Path) -> str:
    """A Markdown table of all runs below a folder, and what they were made with."""
    records = [json.loads(path.read_text()) for path in sorted(runs.glob("*/accuracy.json"))]
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + " --- |" * len(COLUMNS)]
    for record in records:
        cells = [f"{v:.2f}" if isinstance(v := record[name], float) else str(v) for name in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    for made in sorted({(r["machine"], str(r["versions"]), " ".join(r["options"])) for r in records}):
        lines.append("\nMachine: {}. Versions: {}. Options: `{}`.".format(*made))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of the runs in this folder")
    arguments, options = parser.parse_known_args()
    if arguments.table:
        print(table(arguments.table))
        return
    if arguments.data is None or arguments.out is None:
        parser.error("give a data set and --out")
    for seed in arguments.seeds:
        out = arguments.out / f"{arguments.data.name}_seed{seed}"
        record = measure(arguments.data, seed, out, [option for option in options if option != "--"])
        record["course"] = course(arguments.data, out, float(record["cpu_minutes"]))
        (out / "accuracy.json").write_text(json.dumps(record, indent=1))
        print({name: record[name] for name in COLUMNS}, flush=True)


if __name__ == "__main__":
    main()
