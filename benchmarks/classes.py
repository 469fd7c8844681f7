"""Mixtures of conformations, and junk: what of them the classes of a run tell apart.

    python benchmarks/classes.py --out docs/runs/classes.json

Each case simulates a set of two conformations (`conformations`: a fifth of the mass moves by 24 A) in equal parts,
some with as many images of nothing but noise, and runs `cryogan reconstruct --classes K`. The truth is read for the
evaluation alone.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from accuracy import processor
from cryogan.models.phantom import conformations
from cryogan.particles import read_star, read_volume
from cryogan.simulation import simulate
from cryogan.validation import align, fsc, resolution_at

MAX_SHIFT = 0.0
QUICK = ["--orientations", "1000", "--search-steps", "120", "--search-batch", "80", "--starts", "1"]
# Box, particles, SNR, junk, seed, options.
CASES = [
    *((32, 800, 4.0, False, seed, [*QUICK, "--classes", "2", "--class-steps", "8"]) for seed in (1, 2, 3)),
    *((32, 1200, 4.0, True, seed, [*QUICK, "--classes", "3", "--class-steps", "8"]) for seed in (1, 2)),
    (48, 3000, 0.5, False, 1, ["--orientations", "2000", "--starts", "1", "--search-steps", "100", "--classes", "2"]),
]


def measure(
    box: int, count: int, snr: float, junk: bool, seed: int, options: list[str], out: Path
) -> dict[str, object]:
    """Simulate, reconstruct, compare with the truth."""
    pixel_size, data, run = 128.0 / box, out / "set", out / "run"
    truths = conformations(box, pixel_size, 1)
    shown = np.concatenate([truths, np.zeros_like(truths[:1])]) if junk else truths
    # The SNR is that of the images that show something.
    snr_of_all = snr * len(truths) / len(shown)
    simulate(shown, pixel_size, data, count=count, snr=snr_of_all, max_shift=MAX_SHIFT, micrographs=50, seed=seed)
    command = [sys.executable, "-m", "cryogan.cli", "reconstruct", str(data / "particles.star")]
    command += ["--noise", str(data / "noise.star"), "--max-shift", str(MAX_SHIFT), "--seed", str(seed)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, *options, "--out", str(run)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    true = read_star(data / "truth.star")["particles"].floats("rlnClassNumber").astype(int) - 1
    folders = sorted(run.glob("class[0-9]*"))
    counts = np.zeros((len(shown), len(folders)), dtype=int)
    for k, folder in enumerate(folders):
        names = read_star(folder / "particles.star")["particles"].texts("rlnImageName")
        np.add.at(counts[:, k], true[[int(name.split("@")[0]) - 1 for name in names]], 1)
    pairs = linear_sum_assignment(-counts)
    weights = [read_star(run / "snapshots" / f"half{half}_classes.star")["weights"] for half in (1, 2)]
    record = {
        "box": box,
        "pixel_size": pixel_size,
        "particles": count,
        "snr": snr,
        "junk": junk,
        "seed": seed,
        "options": options,
        "counts": counts.tolist(),  # of particles: what they show, by the class that they were given
        "purity": float(counts[pairs].sum() / counts.sum()),
        "weights": [[round(w, 3) for w in table.floats("cryoganClassWeight").tolist()] for table in weights],
        "cpu_minutes": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60,
    }
    for folder in (*folders, run):
        name = "mean" if folder == run else folder.name
        volume, _ = read_volume(folder / "map.mrc")
        curves = [fsc(align(volume, truth, pixel_size).apply(volume, pixel_size), truth) for truth in truths]
        record[f"{name}_truths_05"] = [round(resolution_at(curve, pixel_size, 0.5), 2) for curve in curves]
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)))
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    records = []
    for case in a.cases:
        with tempfile.TemporaryDirectory() as folder:
            records.append(measure(*CASES[case], Path(folder)))
        print(records[-1], flush=True)
        a.out.write_text(json.dumps({"machine": processor(), "cases": records}, indent=1))


if __name__ == "__main__":
    main()
