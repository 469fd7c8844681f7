"""What a refinement adds to finished runs: resolution, poses, CPU time.

    python benchmarks/refinement.py ../shared/data/ribo_c1 RUNS/ribo_c1_seed0 RUNS/ribo_c1_seed1
    python benchmarks/refinement.py ../shared/data/ribo_c1 RUNS/ribo_c1_seed0 --true-poses

Runs `cryogan refine` on each and leaves `refinement.json` beside its maps. truth.mrc and truth.star are read
afterwards, for the evaluation alone. With `--true-poses` it leaves `true_poses.json` instead: what the same least
squares make of the poses of truth.star, a bound of what a refinement can reach.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from accuracy import judge
from cryogan.particles import read_star, read_volume
from cryogan.particles.halves import half_rows
from cryogan.physics.symmetry import point_group
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.least_squares import least_squares_map
from cryogan.refinement.posterior import Posterior
from cryogan.refinement.refine import STEPS
from cryogan.rotations import euler_to_rotations
from cryogan.run.folder import HALVES
from cryogan.run.plan import Plan
from cryogan.validation import align, fsc_curves, resolution_at, soft_mask


def poses(star: Path) -> np.ndarray:
    table = read_star(star)["particles"]
    return euler_to_rotations(*(table.floats(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi"))).numpy()


def angular_errors(run: Path, data: Path) -> np.ndarray:
    """Degrees between found and true poses, up to the point group, after aligning the map with the truth."""
    truth, pixel_size = read_volume(data / "truth.mrc")
    alignment = align(read_volume(run / "refined" / "map.mrc")[0], truth, pixel_size)
    # truth(r) = map(M R^T r): a slice of the map at Q is one of the truth at R M Q, if mirrored, seen in a mirror.
    mirror = np.diag([-1.0, 1.0, 1.0]) if alignment.mirrored else np.eye(3)
    flip = np.diag([1.0, 1.0, -1.0]) if alignment.mirrored else np.eye(3)
    found = alignment.rotation @ mirror @ poses(run / "refined" / "particles.star") @ flip
    group = point_group(Plan.read(run).settings.symmetry)
    traces = np.einsum("gij,njk,nik->gn", group, found, poses(data / "truth.star")).max(axis=0)
    return np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def measure(data: Path, run: Path) -> dict[str, object]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-m", "cryogan.cli", "refine", str(run)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = run / "refined"
    curve, pixel_size = judge(*read_volume(out / "map.mrc"), data)
    halves = (read_volume(out / f"half{half}_map_unfil.mrc")[0] for half in (1, 2))
    curves = fsc_curves(*halves, pixel_size, read_volume(out / "mask.mrc")[0])
    errors = angular_errors(run, data)
    return {
        "set": data.name,
        "seed": Plan.read(run).settings.seed,
        "minutes": (time.monotonic() - start) / 60,
        "cpu_minutes": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60,
        "truth_05": resolution_at(curve, pixel_size, 0.5),
        "truth_0143": resolution_at(curve, pixel_size, 0.143),
        "halves_unmasked": resolution_at(curves.unmasked, pixel_size, 0.143),
        "halves_corrected": resolution_at(curves.corrected, pixel_size, 0.143),
        "angle_median": float(np.median(errors)),
        "angle_within_10": float((errors < 10).mean()),
        "memory_gib": after.ru_maxrss / 2**20,
        "truth_fsc": [round(float(value), 4) for value in curve],
    }


def bound(data: Path, run: Path) -> dict[str, object]:
    plan, table = Plan.read(run), read_star(data / "truth.star")["particles"]
    rotations = torch.from_numpy(poses(data / "truth.star")).float()
    shifts = torch.from_numpy(np.stack([table.floats(f"rlnOrigin{axis}Angst") for axis in "XY"], axis=1)).float()
    maps = []
    for half in HALVES:
        rows = half_rows(len(table), half, plan.settings.seed)
        known = Posterior.certain(rotations[rows], shifts[rows])
        empty = torch.zeros(plan.box, plan.box, plan.box)
        half_set = HalfSet(plan, run / "particles.star", half)
        maps.append(least_squares_map(half_set, empty, known, plan.box / 2, STEPS).numpy())
    mean = (maps[0] + maps[1]) / 2
    curves = fsc_curves(*maps, plan.pixel_size, soft_mask(mean, plan.pixel_size), seed=plan.settings.seed)
    curve, pixel_size = judge(mean, plan.pixel_size, data)
    return {
        "set": data.name,
        "seed": plan.settings.seed,
        "truth_05": resolution_at(curve, pixel_size, 0.5),
        "halves_unmasked": resolution_at(curves.unmasked, pixel_size, 0.143),
        "halves_corrected": resolution_at(curves.corrected, pixel_size, 0.143),
        "truth_fsc": [round(float(value), 4) for value in curve],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--true-poses", action="store_true")
    a = parser.parse_args()
    task, name = (bound, "true_poses.json") if a.true_poses else (measure, "refinement.json")
    for run in a.runs:
        record = task(a.data, run)
        (run / name).write_text(json.dumps(record, indent=1))
        print({name: value for name, value in record.items() if name != "truth_fsc"}, flush=True)


if __name__ == "__main__":
    main()
