"""Particles that are none: three in ten of a data set, a third each of noise, ice and halves of molecules.

    python benchmarks/junk.py ../shared/data/ribo_c1 --symmetry C1 --out RUNS/junk

Adds the junk to the set's particles, on backgrounds from its noise patches, and runs `cryogan reconstruct --refine`.
`junk.json` in the new folder says what of it `particles_kept.star` left out, and how good the maps are. truth.mrc and
truth.star are read to make the junk, and for the evaluation.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np

from accuracy import judge
from cryogan.particles import read_star, read_volume, write_stack, write_star
from cryogan.simulation import simulate
from cryogan.validation import resolution_at

SHARE, SNR, SEED = 0.3, 0.5, 0


def images(path: Path) -> np.ndarray:
    with mrcfile.open(path, permissive=True) as stack:
        return np.array(stack.data, dtype=np.float32)


def projections(data: Path, volume: np.ndarray, pixel_size: float, count: int, out: Path) -> np.ndarray:
    """Of a volume, with the first poses, shifts and CTFs of the set, without noise."""
    simulate(volume, pixel_size, out, count=count, poses=data / "truth.star", noise="none")
    return images(out / "particles.mrcs")


def make(data: Path, out: Path) -> np.ndarray:
    """Write the set with its junk; returns which rows are junk."""
    good, patches, stars = (
        images(data / "particles.mrcs"),
        images(data / "noise.mrcs"),
        read_star(data / "particles.star"),
    )
    truth, pixel_size = read_volume(data / "truth.mrc")
    rng = np.random.default_rng(SEED)
    count = round(len(good) * SHARE / (1 - SHARE) / 3)
    box = good.shape[1]
    axis = np.arange(box) - box // 2
    circle = np.hypot(axis[:, None], axis) < 0.4375 * box

    whole = projections(data, truth, pixel_size, count, out / "whole")
    half = truth * (axis > 0)[:, None, None]
    halves = projections(data, half, pixel_size, count, out / "halves") * np.sqrt(SNR / whole[:, circle].var())
    places, radii = rng.uniform(-box / 6, box / 6, (2, count, 1, 1)), rng.uniform(box / 16, box / 6, (count, 1, 1))
    distance = (axis[:, None] - places[0]) ** 2 + (axis - places[1]) ** 2
    ice = np.exp(-distance / (2 * radii**2))
    ice *= np.sqrt(SNR / ice[:, circle].var())
    background = patches[rng.integers(len(patches), size=3 * count)]
    junk = background + np.concatenate([np.zeros_like(ice), ice, halves])
    junk -= junk[:, ~circle].mean(1)[:, None, None]
    junk /= junk[:, ~circle].std(1)[:, None, None]

    table = stars["particles"]
    rows = np.concatenate([np.arange(len(good)), np.tile(np.arange(count), 3)])
    order = rng.permutation(len(rows))
    columns = {name: np.array(table.texts(name))[rows][order].tolist() for name in table.columns}
    columns["rlnImageName"] = [f"{i + 1:06d}@particles.mrcs" for i in range(len(rows))]
    optics = {name: stars["optics"].texts(name) for name in stars["optics"].columns}
    write_stack(out / "particles.mrcs", np.concatenate([good, junk])[order].astype(np.float16), pixel_size, np.float16)
    write_star(out / "particles.star", {"optics": optics, "particles": columns})
    for name in ("noise.star", "noise.mrcs", "truth.mrc"):
        (out / name).write_bytes((data / name).read_bytes())
    kinds = np.concatenate([np.zeros(len(good), dtype=int), np.repeat([1, 2, 3], count)])
    return kinds[order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    a.out.mkdir(parents=True)
    kinds, run = make(a.data, a.out), a.out / "run"
    command = [sys.executable, "-m", "cryogan.cli", "reconstruct", str(a.out / "particles.star"), "--refine"]
    command += ["--noise", str(a.out / "noise.star"), "--symmetry", a.symmetry, "--out", str(run)]
    subprocess.run(command, check=True)
    names = read_star(run / "refined" / "particles_kept.star")["particles"].texts("rlnImageName")
    left_out = np.ones(len(kinds), dtype=bool)
    left_out[[int(name.split("@")[0]) - 1 for name in names]] = False
    record: dict[str, object] = {"set": a.data.name, "particles": len(kinds), "junk": int((kinds > 0).sum())}
    for kind, name in enumerate(("good", "noise", "ice", "halves")):
        record[f"{name}_left_out"] = float(left_out[kinds == kind].mean())
    record["junk_left_out"] = float(left_out[kinds > 0].mean())
    for name, folder in (("map", run), ("refined", run / "refined")):
        curve, pixel_size = judge(*read_volume(folder / "map.mrc"), a.data)
        record[f"{name}_05"] = resolution_at(curve, pixel_size, 0.5)
    (a.out / "junk.json").write_text(json.dumps(record, indent=1))
    print(record)


if __name__ == "__main__":
    main()
