"""Particles that prefer two views, with and without --learn-poses.

    python benchmarks/preferred_views.py ../shared/data/ribo_c1 --out RUNS/preferred_views

Simulates particles of the set's truth with its CTFs, four in five seen from within 20 degrees of two axes, and
reconstructs them with uniform and with learned views. `preferred_views.json` in the new folder has the resolutions,
and the correlation of the learned density with the true one. truth.mrc and truth.star are read to make the particles,
and for the evaluation.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from accuracy import measure
from cryogan.particles import read_star, read_volume, write_star
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.symmetry import point_group
from cryogan.rotations import euler_to_rotations
from cryogan.simulation import simulate
from cryogan.validation import align

AXES = np.array([[0.3, 0.5, 0.81], [-0.8, 0.55, -0.24]])
SHARE, DEGREES, SNR, SEED = 0.8, 20.0, 0.5, 0
CPU = torch.device("cpu")
KEPT = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnMicrographName", "rlnOriginXAngst", "rlnOriginYAngst")


def make(data: Path, out: Path) -> None:
    """Write the particles to `out`."""
    stars, rng = read_star(data / "truth.star"), np.random.default_rng(SEED)
    count = len(stars["particles"])
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    axes = AXES / np.linalg.norm(AXES, axis=1, keepdims=True)
    for row in np.flatnonzero(rng.random(count) < SHARE):
        axis = axes[rng.integers(2)]
        first = np.cross(axis, [1.0, 0.0, 0.0]) / np.linalg.norm(np.cross(axis, [1.0, 0.0, 0.0]))
        cosine = 1 - rng.random() * (1 - np.cos(np.radians(DEGREES)))
        turn = 2 * np.pi * rng.random()
        aside = np.cos(turn) * first + np.sin(turn) * np.cross(axis, first)
        directions[row] = cosine * axis + np.sqrt(1 - cosine**2) * aside
    columns = {name: list(stars["particles"].texts(name)) for name in KEPT}
    columns["rlnAngleRot"] = np.degrees(np.arctan2(directions[:, 1], directions[:, 0])).tolist()
    columns["rlnAngleTilt"] = np.degrees(np.arccos(directions[:, 2])).tolist()
    columns["rlnAnglePsi"] = (360 * rng.random(count)).tolist()
    columns["rlnOpticsGroup"] = [1] * count
    optics = {name: stars["optics"].texts(name)[:1] for name in stars["optics"].columns}
    write_star(out.with_suffix(".star"), {"optics": optics | {"rlnOpticsGroup": [1]}, "particles": columns})
    simulate(*read_volume(data / "truth.mrc"), out, poses=out.with_suffix(".star"), snr=SNR, seed=SEED)


def correlation(data: Path, run: Path, symmetry: str) -> float:
    """Of the density that half 1 learned with the true views, in the map's frame."""
    truth, pixel_size = read_volume(data / "truth.mrc")
    alignment = align(read_volume(run / "map.mrc")[0], truth, pixel_size)
    table = read_star(data / "truth.star")["particles"]
    true = euler_to_rotations(*(table.floats(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi"))).numpy()
    # truth(r) = map(M R^T r): a slice of the truth at Q is one of the map at M R^T Q, if mirrored, seen in a mirror.
    mirror = np.diag([-1.0, 1.0, 1.0]) if alignment.mirrored else np.eye(3)
    flip = np.diag([1.0, 1.0, -1.0]) if alignment.mirrored else np.eye(3)
    in_map = torch.from_numpy(mirror @ alignment.rotation.T @ true @ flip).float()
    counts = PoseDistribution(CPU).counts(in_map, torch.from_numpy(point_group(symmetry)).float())
    learned = read_star(run / "views.star")["views"].floats("cryoganViewDensity")
    return float(np.corrcoef(counts.numpy(), learned)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    a.out.mkdir(parents=True)
    make(a.data, a.out / "data")
    records = []
    for name, options in {"uniform": [], "learned": ["--learn-poses"]}.items():
        record = measure(a.out / "data", SEED, a.out / name, ["--symmetry", a.symmetry, *options])
        record = {
            key: record[key] for key in ("cpu_minutes", "truth_05", "truth_0143", "halves_corrected", "truth_fsc")
        }
        records.append({"set": a.data.name, "views": name, "correlation": None} | record)
    records[1]["correlation"] = correlation(a.out / "data", a.out / "learned", a.symmetry)
    (a.out / "preferred_views.json").write_text(json.dumps(records, indent=1))
    print(records)


if __name__ == "__main__":
    main()
