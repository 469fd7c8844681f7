"""Images that show no particle: how many of them, and of the particles, `cryogan poses` rejects.

    python benchmarks/junk.py ../shared/data/models --scratch /tmp/junk                     # both molecules
    python benchmarks/junk.py ../shared/data/models --scratch /tmp/junk --only bgal

2,000 images of 48 px at SNR 0.1, of which 15 % are junk: empty boxes, contaminants, broken molecules and aggregates, as
many of each, as `cryogan simulate` makes them. A run is some 5 CPU minutes. Each leaves a JSON record in --out. What is
in --scratch is not made again. truth.star is read for the evaluation only.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.particles import read_star, read_volume
from cryogan.run.folder import MapFolder, RunFolder
from cryogan.simulation import simulate
from cryogan.simulation.disturbances import JUNK_KINDS, PARTICLE, Disturbances
from cryogan.validation import align, fsc, resample, resolution_at
from honesty import MOLECULES, density

SEEDS = {"bgal": 11, "aminopeptidase": 12}
COUNT, SNR, SHARE = 2000, 0.1, 0.15
RECORDS = Path(__file__).resolve().parents[1] / "docs" / "runs" / "junk"


def make(name: str, models: Path, out: Path) -> None:
    """Write the particles and the junk."""
    molecule = MOLECULES[name]
    volume = density(models, molecule, molecule.pixel_size, 2 * molecule.pixel_size)
    junk = Disturbances(**{f"junk_{kind}": SHARE / len(JUNK_KINDS) for kind in JUNK_KINDS})
    simulate(volume, molecule.pixel_size, out, count=COUNT, snr=SNR, seed=SEEDS[name], disturbances=junk)


def cryogan(*arguments: str | Path) -> None:
    """Run the program as a user would."""
    subprocess.run([sys.executable, "-m", "cryogan.cli", *map(str, arguments)], check=True)


def numbers(star: Path) -> NDArray[np.int64]:
    """The numbers of the images that a STAR file lists, from 0."""
    names = read_star(star)["particles"].texts("rlnImageName")
    return np.array([int(name.split("@")[0]) - 1 for name in names])


def measure(name: str, models: Path, data: Path) -> dict[str, object]:
    """Make one set, reconstruct it, find its junk, and compare with the truth."""
    molecule, run = MOLECULES[name], RunFolder(data / "run")
    if not (data / "truth.star").exists():
        make(name, models, data)
    if not run.map.exists():
        options = ("--symmetry", molecule.symmetry, "--threads", "1", "--seed", "0")
        cryogan("reconstruct", data / "particles.star", "--noise", data / "noise.star", *options, "--out", run.path)
    if not run.poses.report.exists():
        cryogan("poses", run.path)
    kinds = np.array(read_star(data / "truth.star")["particles"].texts("cryoganParticleKind"))
    rejected = np.zeros(len(kinds), dtype=bool)
    rejected[numbers(run.poses.rejected_particles)] = True
    weights = np.zeros(len(kinds))
    listed = read_star(run.poses.particles)["particles"].floats("rlnParticleFigureOfMerit")
    weights[numbers(run.poses.particles)] = listed
    by_kind = {
        kind: {
            "images": int((kinds == kind).sum()),
            "rejected": float(rejected[kinds == kind].mean()),
            "mean_weight": float(weights[kinds == kind].mean()),
        }
        for kind in (PARTICLE, *JUNK_KINDS)
    }
    record = {"molecule": name, "symmetry": molecule.symmetry, "images": COUNT, "snr": SNR}
    return record | {"sum_of_weights": float(weights.sum()), "truth_05": truth_05(run, data), "kinds": by_kind}


def truth_05(folder: MapFolder, data: Path) -> float:
    """Resolution, A, where the FSC of a map with the truth falls to 0.5."""
    (truth, pixel_size), (found, found_pixel_size) = read_volume(data / "truth.mrc"), read_volume(folder.map)
    volume = resample(found, found_pixel_size, len(truth), pixel_size)
    aligned = align(volume, truth, pixel_size).apply(volume, pixel_size)
    return resolution_at(fsc(aligned, truth), pixel_size, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of the atomic models")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for particles and runs")
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder of the records")
    parser.add_argument("--only", nargs="+", choices=list(SEEDS), default=list(SEEDS))
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for name in a.only:
        record = measure(name, a.models, a.scratch / name)
        (a.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(record, flush=True)


if __name__ == "__main__":
    main()
