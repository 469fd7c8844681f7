"""Whether the program suggests the right symmetry: C1 maps from zero of molecules whose point group is known.

    python benchmarks/symmetry.py ../shared/data --scratch /tmp/symmetry                  # all that have no record yet
    python benchmarks/symmetry.py ../shared/data --scratch /tmp/symmetry --only bgal groel
    python benchmarks/symmetry.py --report                                                # the records as a table

One run is 2,000 particles at 48 px (`ribo_c1`: that set), some 2 to 4 CPU minutes. Each leaves one JSON record in --out
with the command, the resolution, the verdict, what was suggested, and every group's score. Particles and runs stay in
--scratch; runs that are finished there are not made again, and those with a record are skipped.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryogan.run.folder import RunFolder
from cryogan.run.verdict import read_verdict
from honesty import RUNS, Run, compare, make
from honesty import reconstruct as reconstruct_run

RECORDS = Path(__file__).resolve().parents[1] / "docs" / "runs" / "symmetry"
# Particles of each molecule, as the bench of honesty has them: by the kind of its particles.
KINDS = ("tidy", "untidy")
EXPECTED = {
    "aminopeptidase": "D3",
    "kcsa_fab": "C4",
    "bgal": "D2",
    "polymerase": "none",
    "nucleosome": "near C2",
    "groel": "D7",
    "apoferritin": "O",
}
NAMES = [f"{molecule}_{kind}" for kind in KINDS for molecule in EXPECTED]
RIBOSOME = "ribo_c1"


def measure(name: str, data: Path, scratch: Path) -> dict[str, Any]:
    """Make one run in C1, unless it is there, and ask what symmetry it has."""
    folder = scratch / name
    run, record = folder / "run", folder / "made.json"
    if not (RunFolder(run).is_finished and record.exists()):
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(_ribosome(data, folder) if name == RIBOSOME else _molecule(name, data, folder)))
    before = json.loads(record.read_text())
    verdict = read_verdict(RunFolder(run))
    before_search = resource.getrusage(resource.RUSAGE_CHILDREN)
    asked = [sys.executable, "-m", "cryogan.cli", "symmetry", str(run), "--json"]
    symmetry = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_search.ru_utime
    symmetry.pop("command")  # names the scratch folder
    expected = EXPECTED.get(name.rsplit("_", 1)[0], "none")
    return {
        "name": name,
        "expected": expected,
        "says": symmetry["suggested"] or ("near " + symmetry["near"][0] if symmetry["near"] else "none"),
        "verdict": verdict.finding.code if verdict else None,
        "cpu_seconds_of_command": seconds,
        "symmetry": symmetry,
        **before,
    }


def _molecule(name: str, data: Path, folder: Path) -> dict[str, Any]:
    """Simulate a molecule's particles as the bench of honesty does, and reconstruct them in C1."""
    like = RUNS[name]
    run = Run(like.molecule, like.snr, like.disturbances, options=("--symmetry", "C1"))
    make(name, run, data / "models", folder / "data")
    made = reconstruct_run(name, run, folder / "data", folder / "run")
    compared = compare(run, folder / "data", folder / "run")
    numbers = {key: compared[key] for key in ("halves_corrected_0143", "truth_05", "truth_05_without_radial_averages")}
    return {key: made[key] for key in ("command", "exit_code", "cpu_minutes")} | numbers


def _ribosome(data: Path, folder: Path) -> dict[str, Any]:
    """Reconstruct the set `ribo_c1`."""
    files = [str(data / RIBOSOME / "particles.star"), "--noise", str(data / RIBOSOME / "noise.star")]
    options = ["--symmetry", "C1", "--seed", "0", "--threads", "1", "--starts", "1"]
    command = [sys.executable, "-m", "cryogan.cli", "reconstruct", *files, "--out", str(folder / "run"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return {
        "command": ["cryogan", "reconstruct", "particles.star", "--noise", "noise.star", *options],
        "exit_code": done.returncode,
    }


def report(records: Path) -> None:
    """Print the records as a table."""
    print(
        "| run | verdict | to A | expected | says | best: score | chance |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for record in (json.loads(path.read_text()) for path in sorted(records.glob("*.json"))):
        found = record["symmetry"]
        said = record["says"].removeprefix("near ")
        best = next(
            (g for g in found["groups"] if g["symmetry"] == said),
            max(found["groups"], key=lambda g: g["score"], default=None),
        )
        shown = f"{best['symmetry']} {best['score']:.2f} | {best['chance'] or 0:.2f}" if best else " | "
        finest = f"{found['finest_A']:.1f}" if found["finest_A"] else ""
        print(
            f"| {record['name']} | {record['verdict']} | {finest} | {record['expected']} | {record['says']}"
            f"{' (near: ' + ', '.join(found['near']) + ')' if found['suggested'] and found['near'] else ''} | {shown} |"
        )


def main() -> None:
    """Make the runs that have no record yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with models and ribo_c1")
    parser.add_argument("--scratch", type=Path, help="folder for particles and runs")
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder of the records")
    parser.add_argument("--only", nargs="+", choices=[*NAMES, RIBOSOME], metavar="RUN")
    parser.add_argument("--report", action="store_true", help="print the records as a table")
    a = parser.parse_args()
    if a.report:
        report(a.out)
        return
    if a.data is None or a.scratch is None:
        parser.error("give the folder of the data and --scratch")
    a.out.mkdir(parents=True, exist_ok=True)
    for name in a.only or [*NAMES[: len(EXPECTED)], RIBOSOME, *NAMES[len(EXPECTED) :]]:
        if not (a.out / f"{name}.json").exists():
            record = measure(name, a.data, a.scratch)
            (a.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
            print({key: record.get(key) for key in ("name", "verdict", "expected", "says")}, flush=True)


if __name__ == "__main__":
    main()
