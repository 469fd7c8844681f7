"""Simulations as untidy as real stacks, and small proteins, of several seeds: how often is the map right, and said so?

    python benchmarks/disturbed.py ../shared/data/models --scratch /tmp/disturbed --seeds 0 1 2
    python benchmarks/disturbed.py ../shared/data/models --scratch /tmp/disturbed --seeds 3 --only all_06 ramp_06
    python benchmarks/disturbed.py --report

Each case and seed is a data set of its own, and a run with the default settings: 2 to 8 CPU minutes. It leaves a record
in --out; runs with a record are skipped. The truth is read after a run, for the evaluation alone.
"""

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from accuracy import measure
from cryogan.simulation import simulate
from cryogan.simulation.disturbances import Disturbances
from honesty import Molecule, density

RECORDS = Path(__file__).resolve().parents[1] / "docs" / "runs" / "disturbed"
JUNK = {"junk_empty": 0.05, "junk_contaminant": 0.05, "junk_broken": 0.025, "junk_aggregate": 0.025}
ALL = JUNK | {"neighbours": 0.15, "miscentring": 2.0, "defocus_error": 200.0, "snr_spread": 0.4, "ice_gradient": 0.6}


@dataclass(frozen=True)
class Case:
    """A kind of data set.

    Attributes:
        file: of the model.
        symmetry: point group of molecule and run.
        box: pixels.
        pixel_size: A.
        resolution: of the simulated map, A.
        snr: as of `simulate`.
        right_A: FSC 0.5 with the truth, at which the map is right.
        disturbances: fields of `Disturbances`.
        chains: of the model; empty: all.
        count: particles.
    """

    file: str
    symmetry: str
    box: int
    pixel_size: float
    resolution: float
    snr: float
    right_A: float
    disturbances: dict[str, float] = field(default_factory=dict)
    chains: tuple[str, ...] = ()
    count: int = 5000


BGAL = "5a1a", "D2", 64, 3.822, 7.0
CASES = {
    "all_20": Case(*BGAL, 0.2, 8.0, ALL),
    "all_06": Case(*BGAL, 0.06, 8.5, ALL),
    "all_c1": Case("1wcm", "C1", 64, 4.0, 8.0, 0.1, 12.0, ALL),
    "ramp_06": Case(*BGAL, 0.06, 8.5, {"ice_gradient": 0.6}),
    "ramp_twice_06": Case(*BGAL, 0.06, 8.5, {"ice_gradient": 1.2}),
    "junk_30": Case(*BGAL, 0.06, 8.5, ALL | {name: 2 * share for name, share in JUNK.items()}),
    "small_05": Case("1gyt", "C1", 48, 2.7, 5.4, 0.05, 12.0, chains=("A",), count=10_000),
    "small_02": Case("1gyt", "C1", 48, 2.7, 5.4, 0.02, 12.0, chains=("A",), count=10_000),
    "belt": Case("1k4c", "C4", 48, 3.5, 7.0, 0.1, 12.0, {"belt": 1.0}),
}


def make(case: Case, models: Path, out: Path, seed: int) -> None:
    """Write the particles of a case."""
    molecule = Molecule(case.file, case.symmetry, case.pixel_size, "set", case.chains)
    volume = density(models, molecule, case.pixel_size, case.resolution, case.box)
    disturbances = Disturbances(**case.disturbances)
    simulate(volume, case.pixel_size, out, count=case.count, snr=case.snr, seed=seed, disturbances=disturbances)


def run(name: str, models: Path, scratch: Path, seed: int) -> dict[str, object]:
    """Make one data set, reconstruct it, and compare the map with the truth."""
    case, folder = CASES[name], scratch / f"{name}_seed{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    make(case, models, folder / "data", seed)
    record = measure(folder / "data", seed, folder / "run", ["--symmetry", case.symmetry, "--threads", "1"])
    verdict = json.loads((folder / "run" / "verdict" / "verdict.json").read_text())
    said = {"verdict": verdict["verdict"], "verdict_A": verdict["verdict_A"], "sentence": verdict["sentence"]}
    return record | {"set": name, "right_A": case.right_A} | said


def report(records: Path) -> None:
    """Print a table of the cases: how many runs are right, and what is said of the others."""
    rows = [json.loads(path.read_text()) for path in sorted(records.glob("*.json"))]
    print("| case | right at (A) | seeds | right | truth, FSC 0.5 (A): each | said | CPU minutes: median |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        runs = [row for row in rows if row["set"] == name]
        if not runs:
            continue
        right = sum(row["truth_05"] <= case.right_A for row in runs)
        truth = ", ".join(f"{row['truth_05']:.1f}" for row in runs)
        said = ", ".join(f"{row['verdict_A']:.1f}" if row["verdict"] == "resolved" else row["verdict"] for row in runs)
        cpu = np.median([row["cpu_minutes"] for row in runs])
        print(f"| `{name}` | {case.right_A:g} | {len(runs)} | {right} | {truth} | {said} | {cpu:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?", help="folder of the atomic models")
    parser.add_argument("--scratch", type=Path, help="folder of particles and runs")
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--report", action="store_true", help="print the table of the records")
    a = parser.parse_args()
    if a.report:
        report(a.out)
        return
    if a.models is None or a.scratch is None:
        parser.error("give the folder of the models and --scratch")
    a.out.mkdir(parents=True, exist_ok=True)
    for seed in a.seeds:
        for name in a.only:
            path = a.out / f"{name}_seed{seed}.json"
            if not path.exists():
                record = run(name, a.models, a.scratch, seed)
                path.write_text(json.dumps(record, indent=1) + "\n")
                print(name, seed, f"{record['truth_05']:.2f}", record["sentence"], flush=True)


if __name__ == "__main__":
    main()
