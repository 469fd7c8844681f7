"""The bench of honesty: runs whose truth is known, many of them wrong on purpose, and what the program says of them.

    python benchmarks/honesty.py ../shared/data/models --scratch /tmp/honesty            # all that have no record yet
    python benchmarks/honesty.py ../shared/data/models --scratch /tmp/honesty --only groel_tidy noise_d2
    python benchmarks/honesty.py --list
    python benchmarks/honesty.py --scratch /tmp/honesty --judge      # judge kept runs again
    python benchmarks/honesty.py --report docs/images/honesty.png    # the records as a table, and a picture of them

One run is 2,000 particles at 48 px, some 3 CPU minutes; all take about 150. Each leaves one JSON record in --out with
what the program printed, what its half maps agree to, and how far its map agrees with the truth. Runs with a record are
skipped, so the bench can be stopped and continued; delete a record to make it anew. Particles and maps stay in
--scratch only with --keep.

A map is right where its FSC with the truth falls to 0.5 at 20 A or finer; for hollow molecules both maps' radial
averages are removed first, because any hollow ball agrees with apoferritin to 14 A. Thresholds of a verdict are to be
set on the molecules of the group "set", and its table made of the group "table".
"""

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from cryogan import __version__
from cryogan.models.atomic_model import AtomicModel
from cryogan.particles import open_stack, read_star, read_volume, write_stack, write_star
from cryogan.refinement.verdict import judge_run
from cryogan.simulation import simulate
from cryogan.simulation.disturbances import Disturbances
from cryogan.simulation.symmetry_axes import on_symmetry_axes
from cryogan.validation import align, fsc, fsc_curves, radial_average, resample, resolution_at

BOX, COUNT, RIGHT_A, TOO_FINE, LINES = 48, 2000, 20.0, 0.87, 60
RECORDS = Path(__file__).resolve().parents[1] / "docs" / "runs" / "honesty"


@dataclass(frozen=True)
class Molecule:
    """An atomic model, its point group, and the pixel size at which it fills the box."""

    file: str
    symmetry: str
    pixel_size: float
    group: str  # "set": thresholds are set on it; "table": it is reported
    chains: tuple[str, ...] = ()
    without_chains: tuple[str, ...] = ()
    hollow: bool = False


RING = tuple(f"{letter}1" for letter in "ABCDEFG")
MOLECULES = {
    "bgal": Molecule("5a1a", "D2", 4.5, "set"),  # 435 kDa
    "groel": Molecule("1oel", "D7", 5.0, "set"),  # 714 kDa
    "kcsa_fab": Molecule("1k4c", "C4", 4.0, "set"),  # 214 kDa
    "nucleosome": Molecule("1kx5", "C1", 5.2, "set"),  # 177 kDa
    "one_aminopeptidase": Molecule("1gyt", "C1", 2.6, "set", chains=("A",)),  # 51 kDa
    "groel_ring": Molecule("1oel", "C7", 4.0, "set", chains=RING),  # 357 kDa
    "apoferritin": Molecule("4v1w", "O", 4.0, "table", hollow=True),  # 432 kDa
    "aminopeptidase": Molecule("1gyt", "D3", 3.8, "table"),  # 307 kDa
    "polymerase": Molecule("1wcm", "C1", 5.0, "table"),  # 410 kDa
    "rrna_16s": Molecule("1xnr", "C1", 6.2, "table"),  # 373 kDa
    "one_groel": Molecule("1oel", "C1", 2.4, "table", chains=("A1",)),  # 51 kDa
    "polymerase_core": Molecule("1wcm", "C1", 5.0, "table", without_chains=("D", "G")),  # 382 kDa
}
UNTIDY: dict[str, float] = {
    "junk_empty": 0.05,
    "junk_contaminant": 0.05,
    "junk_broken": 0.03,
    "junk_aggregate": 0.02,
    "neighbours": 0.15,
    "miscentring": 2.0,
    "defocus_error": 200.0,
    "snr_spread": 0.4,
    "b_factor": 50.0,
}


@dataclass(frozen=True)
class Run:
    """One line of the bench.

    Attributes:
        molecule: a key of `MOLECULES`.
        snr: as of `simulate`.
        disturbances: fields of `Disturbances`.
        fault: what is wrong on purpose; "" if nothing is.
        count: different particles.
        copies: each particle is there so many times.
        resolution_A: of the simulated map; None: two pixels.
        overfocus: the images are made with the negative of the defocus that particles.star states.
        mixed_with: another molecule, of which every second particle is.
        options: of `cryogan reconstruct`; the symmetry is the molecule's unless it is here.
    """

    molecule: str
    snr: float
    disturbances: dict[str, float] = field(default_factory=dict)
    fault: str = ""
    count: int = COUNT
    copies: int = 1
    resolution_A: float | None = None
    overfocus: bool = False
    mixed_with: str | None = None
    options: tuple[str, ...] = ()


def _symmetry(name: str) -> tuple[str, ...]:
    return ("--symmetry", name)


NOISE = {"junk_empty": 1.0}
RUNS: dict[str, Run] = {
    # Nothing wrong on purpose.
    **{f"{name}_tidy": Run(name, 0.2) for name in MOLECULES},
    **{f"{name}_untidy": Run(name, 0.1, UNTIDY) for name in MOLECULES},
    "kcsa_fab_belt": Run("kcsa_fab", 0.1, {"belt": 0.6, "belt_position": -20.0}),
    "polymerase_preferred": Run("polymerase", 0.1, {"preferred_views": 2.0}),
    "aminopeptidase_spread": Run("aminopeptidase", 0.1, {"snr_spread": 1.0, "miscentring": 4.0}),
    "nucleosome_faint": Run("nucleosome", 0.04),
    "rrna_16s_faint": Run("rrna_16s", 0.04),
    # Wrong on purpose, or by nature.
    "ramp_bgal": Run("bgal", 0.06, {"ice_gradient": 0.6}, "background ramp"),
    "ramp_polymerase": Run("polymerase", 0.06, {"ice_gradient": 0.6}, "background ramp"),
    "noise_d2": Run("bgal", 0.1, NOISE, "noise"),
    "noise_o": Run("apoferritin", 0.1, NOISE, "noise"),
    "noise_c1": Run("polymerase", 0.1, NOISE, "noise"),
    "copies_d2": Run("bgal", 0.1, NOISE, "noise with copies", count=COUNT // 4, copies=4),
    "copies_c1": Run("polymerase", 0.1, NOISE, "noise with copies", count=COUNT // 4, copies=4),
    "symmetry_groel_d6": Run("groel", 0.2, fault="wrong symmetry", options=_symmetry("D6")),
    "symmetry_kcsa_c5": Run("kcsa_fab", 0.2, fault="wrong symmetry", options=_symmetry("C5")),
    "symmetry_aminopeptidase_d2": Run("aminopeptidase", 0.2, fault="wrong symmetry", options=_symmetry("D2")),
    "symmetry_polymerase_c3": Run("polymerase", 0.2, fault="wrong symmetry", options=_symmetry("C3")),
    "symmetry_nucleosome_t": Run("nucleosome", 0.2, fault="wrong symmetry", options=_symmetry("T")),
    "contrast_bgal": Run("bgal", 0.2, fault="wrong contrast", options=("--invert",)),
    "contrast_apoferritin": Run("apoferritin", 0.2, fault="wrong contrast", options=("--invert",)),
    "overfocus_groel_ring": Run("groel_ring", 0.2, fault="wrong CTF sign", overfocus=True),
    "overfocus_rrna_16s": Run("rrna_16s", 0.2, fault="wrong CTF sign", overfocus=True),
    "cut_apoferritin": Run("apoferritin", 0.2, fault="cut to 20 A", resolution_A=20.0),
    "cut_apoferritin_untidy": Run("apoferritin", 0.1, UNTIDY, "cut to 20 A", resolution_A=20.0),
    "contaminants_bgal": Run("bgal", 0.1, {"junk_contaminant": 0.6}, "contaminants"),
    "contaminants_polymerase": Run("polymerase", 0.1, {"junk_contaminant": 0.6}, "contaminants"),
    "few_kcsa_fab": Run("kcsa_fab", 0.05, fault="too few particles", count=100),
    "few_polymerase": Run("polymerase", 0.05, fault="too few particles", count=150),
    "few_one_groel": Run("one_groel", 0.05, fault="too few particles", count=200),
    "mixture_polymerase": Run("polymerase", 0.1, fault="two molecules", mixed_with="nucleosome"),
}


def density(
    models: Path, molecule: Molecule, pixel_size: float, resolution_A: float, box: int = BOX
) -> NDArray[np.float32]:
    """The molecule's map, in RELION's setting of its point group."""
    path = models / f"{molecule.file}.cif.gz"
    model = AtomicModel.read(path, molecule.chains, molecule.without_chains).on_principal_axes()
    if molecule.symmetry != "C1":
        model = on_symmetry_axes(model, molecule.symmetry, box, pixel_size)
    return model.density(resolution_A, box, pixel_size)


def make(name: str, run: Run, models: Path, out: Path) -> None:
    """Write the particles of a run, and reference.mrc: the molecule at two pixels."""
    molecule, seed = MOLECULES[run.molecule], list(RUNS).index(name)
    pixel_size = molecule.pixel_size if run.mixed_with is None else MOLECULES[run.mixed_with].pixel_size
    volume = density(models, molecule, pixel_size, run.resolution_A or 2 * pixel_size)
    if run.mixed_with is not None:
        other = density(models, MOLECULES[run.mixed_with], pixel_size, 2 * pixel_size)
        volume = np.stack([volume, other])
    disturbances = Disturbances(**run.disturbances)
    simulate(volume, pixel_size, out, count=run.count, snr=run.snr, seed=seed, disturbances=disturbances)
    if run.overfocus:
        _defocus_the_other_way(volume, pixel_size, out, run, seed)
    if run.copies > 1:
        _copy_images(out, run.copies, pixel_size, seed)


def _defocus_the_other_way(volume: NDArray[np.float32], pixel_size: float, out: Path, run: Run, seed: int) -> None:
    """Put images of the negative defocus in the place of those that particles.star describes."""
    negative = {
        name: {key: list(table.texts(key)) for key in table.columns}
        for name, table in read_star(out / "truth.star").items()
    }
    for key in ("rlnDefocusU", "rlnDefocusV"):
        negative["particles"][key] = [f"{-float(value):.6f}" for value in negative["particles"][key]]
    write_star(out / "negative.star", negative)
    simulate(volume, pixel_size, out / "negative", poses=out / "negative.star", snr=run.snr, seed=seed)
    (out / "negative" / "particles.mrcs").replace(out / "particles.mrcs")


def _copy_images(out: Path, copies: int, pixel_size: float, seed: int) -> None:
    """Write each image and its row several times, in random order, as different images of the stack."""
    images, blocks = np.array(open_stack(out / "particles.mrcs")), read_star(out / "particles.star")
    order = np.random.default_rng(seed).permutation(np.tile(np.arange(len(images)), copies))
    table = blocks["particles"]
    columns = {key: [table.texts(key)[row] for row in order] for key in table.columns}
    columns["rlnImageName"] = [f"{i:06d}@particles.mrcs" for i in range(1, len(order) + 1)]
    optics = {key: blocks["optics"].texts(key) for key in blocks["optics"].columns}
    write_stack(out / "particles.mrcs", images[order], pixel_size, np.float16)
    write_star(out / "particles.star", {"optics": optics, "particles": columns})


def reconstruct(name: str, run: Run, data: Path, out: Path) -> dict[str, object]:
    """Run the program as a user would; returns what it printed and what it cost."""
    symmetry = () if "--symmetry" in run.options else _symmetry(MOLECULES[run.molecule].symmetry)
    options = [*symmetry, *run.options, "--seed", str(list(RUNS).index(name)), "--threads", "1", "--starts", "1"]
    command = [sys.executable, "-m", "cryogan.cli", "reconstruct", str(data / "particles.star")]
    command += ["--noise", str(data / "noise.star"), "--out", str(out), *options]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "command": ["cryogan", "reconstruct", "particles.star", "--noise", "noise.star", *options],
        "exit_code": done.returncode,
        "printed": _lines(done.stdout, data.parent),
        "said_while_running": _lines(done.stderr, data.parent),
        "minutes": (time.monotonic() - start) / 60,
        "cpu_minutes": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60,
    }


def _lines(text: str, folder: Path) -> list[str]:
    """The last lines of what was printed, without the scratch folder's path."""
    return [line.rstrip() for line in text.replace(f"{folder}/", "").splitlines() if line.strip()][-LINES:]


def compare(run: Run, data: Path, out: Path) -> dict[str, object]:
    """What the half maps agree to, and the map's FSC with the truth, with and without radial averages."""
    truth, pixel_size = read_volume(data / ("truth1.mrc" if run.mixed_with else "truth.mrc"))
    found, found_pixel_size = read_volume(out / "map.mrc")
    volume = resample(found, found_pixel_size, len(truth), pixel_size)
    aligned = align(volume, truth, pixel_size).apply(volume, pixel_size)
    curve = fsc(aligned, truth)
    structure = fsc(aligned - radial_average(aligned), truth - radial_average(truth))
    (half1, half_pixel_size), (half2, _) = (read_volume(out / f"half{half}_map_unfil.mrc") for half in (1, 2))
    halves = fsc_curves(half1, half2, half_pixel_size, read_volume(out / "mask.mrc")[0])
    counts = structure if MOLECULES[run.molecule].hollow else curve
    return {
        "halves_unmasked_0143": resolution_at(halves.unmasked, half_pixel_size, 0.143),
        "halves_corrected_0143": resolution_at(halves.corrected, half_pixel_size, 0.143),
        "truth_05": resolution_at(curve, pixel_size, 0.5),
        "truth_05_without_radial_averages": resolution_at(structure, pixel_size, 0.5),
        "right": bool(resolution_at(counts, pixel_size, 0.5) <= RIGHT_A),
        "halves_fsc": _rounded(halves.unmasked),
        "truth_fsc": _rounded(curve),
        "truth_fsc_without_radial_averages": _rounded(structure),
    }


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in np.nan_to_num(values)]


def measure(name: str, models: Path, scratch: Path, keep: bool) -> dict[str, object]:
    """Make one run and compare it with the truth."""
    run, folder = RUNS[name], scratch / name
    shutil.rmtree(folder, ignore_errors=True)  # of a bench that was stopped
    make(name, run, models, folder / "data")
    record: dict[str, object] = {"name": name, "group": MOLECULES[run.molecule].group, "run": asdict(run)}
    record |= reconstruct(name, run, folder / "data", folder / "run")
    if (folder / "run" / "map.mrc").exists():
        record |= compare(run, folder / "data", folder / "run")
        record["verdict"] = json.loads((folder / "run" / "verdict" / "verdict.json").read_text())
    versions = {"cryogan": __version__, "torch": torch.__version__, "python": platform.python_version()}
    if not keep:
        shutil.rmtree(folder)
    return record | {"versions": versions}


def judge_again(record: Path, scratch: Path) -> None:
    """Judge a kept run again; the half maps' correlation with one of them mirrored stays."""
    values, run = json.loads(record.read_text()), scratch / record.stem / "run"
    other_hand = values["verdict"]["evidence"]["correlation_other_hand"]
    start = time.process_time()
    judge_run(run, correlation_other_hand=other_hand, console=Console(quiet=True))
    values["verdict"] = json.loads((run / "verdict" / "verdict.json").read_text())
    values["verdict_cpu_minutes"] = (time.process_time() - start) / 60
    record.write_text(json.dumps(values, indent=1) + "\n")


def judged(record: dict[str, Any]) -> dict[str, Any]:
    """What a run says, beside the truth."""
    hollow = MOLECULES[record["run"]["molecule"]].hollow
    true_A = record["truth_05_without_radial_averages" if hollow else "truth_05"]
    verdict = record["verdict"]
    resolved = verdict["verdict"] == "resolved"
    ratio = verdict["verdict_A"] / true_A if resolved else None
    return {
        "run": record["name"],
        "group": record["group"],
        "fault": record["run"]["fault"] or "-",
        "halves_A": record["halves_corrected_0143"],
        "held_out_A": verdict["held_out_A"],
        "verdict": verdict["verdict"],
        "says_A": verdict["verdict_A"] if resolved else None,
        "true_A": true_A,
        "right": record["right"],
        "ratio": ratio,
        "confidently_wrong": resolved and (not record["right"] or ratio < TOO_FINE),
        "one_half": record["verdict"]["verdict"] == "one-half",  # whose mean with the other may still be right
        "false_alarm": record["right"] and not resolved and record["verdict"]["verdict"] != "one-half",
    }


def report(records: Path, picture: Path) -> None:
    """Print the runs as a Markdown table with its sums, and draw what is reported against the truth."""
    rows = [judged(json.loads(path.read_text())) for path in sorted(records.glob("*.json"))]
    rows = [row for group in ("set", "table") for row in rows if row["group"] == group]
    names = ("run", "group", "fault", "halves_A", "held_out_A", "verdict", "true_A", "ratio")
    print("| " + " | ".join(names) + " | |\n|" + " --- |" * (len(names) + 1))
    for row in rows:
        cells = [f"{v:.2f}" if isinstance(v := row[name], float) else str(v or "-") for name in names]
        remarks = {"confidently_wrong": "**confidently wrong**", "false_alarm": "false alarm", "one_half": "one half"}
        remark = next((text for name, text in remarks.items() if row[name]), "")
        print("| " + " | ".join(cells) + f" | {remark} |")
    for group in ("set", "table"):
        of_group = [row for row in rows if row["group"] == group]
        right = [row for row in of_group if row["right"]]
        ratios = [row["ratio"] for row in right if row["ratio"] is not None]
        print(
            f"\nGroup {group}: {len(of_group)} runs, {len(right)} right; confidently wrong "
            f"{sum(row['confidently_wrong'] for row in of_group)}, false alarms "
            f"{sum(row['false_alarm'] for row in right)}; reported over true d: "
            f"{min(ratios, default=0):.2f} to {max(ratios, default=0):.2f}, median {np.median(ratios or [0]):.2f}."
        )
    draw(rows, picture)


def draw(rows: Sequence[dict[str, Any]], picture: Path) -> None:
    """Draw the resolution that half maps and verdict report against the true one."""
    figure = Figure(figsize=(9.6, 4.8), dpi=130, layout="constrained")
    panels = zip(figure.subplots(1, 2, sharex=True, sharey=True), ("halves_A", "says_A"), strict=True)
    for axes, said in panels:
        for group, colour in (("set", "#56B4E9"), ("table", "#0072B2")):
            for right, marker in ((True, "o"), (False, "X")):
                chosen = [r for r in rows if r["group"] == group and r["right"] is right and r[said] is not None]
                x, y = ([1 / row[name] for row in chosen] for name in ("true_A", said))
                label = f"{'right' if right else 'wrong'}, group {group}"
                axes.scatter(x, y, marker=marker, color=colour if right else "#D55E00", label=label)
        axes.plot([0, 0.19], [0, 0.19], color="0.5", linewidth=0.9)
        axes.axvline(1 / RIGHT_A, color="0.8", linewidth=0.9)
        axes.set_xlabel("True resolution, FSC 0.5 with the truth (1/Å)")
    axes.set_title("Verdict: resolved to", loc="left")
    figure.axes[0].set_title("Half maps agree to (FSC 0.143, corrected)", loc="left")
    figure.axes[0].set_ylabel("Reported resolution (1/Å)")
    figure.axes[0].legend(loc="lower right", fontsize=8)
    figure.savefig(picture)


def main() -> None:
    """Make the runs that have no record yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?", help="folder of the atomic models")
    parser.add_argument("--scratch", type=Path, help="folder for particles and runs")
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder of the records")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), metavar="RUN")
    parser.add_argument("--keep", action="store_true", help="leave particles and maps in --scratch")
    parser.add_argument("--judge", action="store_true", help="judge the runs in --scratch again")
    parser.add_argument("--report", type=Path, metavar="PNG", help="print the records as a table, and draw them")
    parser.add_argument("--list", action="store_true", help="print the runs, and which have a record")
    a = parser.parse_args()
    if a.list:
        for name, run in RUNS.items():
            done = "done" if (a.out / f"{name}.json").exists() else ""
            print(f"{name:28} {MOLECULES[run.molecule].group:6} {run.snr:5} {run.fault:20} {done}")
        return
    if a.judge:
        for path in sorted(a.out.glob("*.json")):
            if (a.scratch / path.stem / "run").exists() and path.stem in (a.only or RUNS):
                judge_again(path, a.scratch)
        return
    if a.report:
        report(a.out, a.report)
        return
    if a.models is None or a.scratch is None:
        parser.error("give the folder of the models and --scratch")
    a.out.mkdir(parents=True, exist_ok=True)
    for name in a.only or RUNS:
        if not (a.out / f"{name}.json").exists():
            record = measure(name, a.models, a.scratch, a.keep)
            (a.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
            print(
                {key: record.get(key) for key in ("name", "exit_code", "halves_unmasked_0143", "truth_05")}, flush=True
            )


if __name__ == "__main__":
    main()
