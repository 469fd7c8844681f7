"""Write docs/results.md, its figures and docs/theorem.md from the records of the other benchmarks.

    python benchmarks/report.py

Reads docs/runs as `make benchmarks` leaves it: `<set>_seed<n>/accuracy.json` and `refinement.json`,
`<set>_relion/relion.json`, `<set>_relion_refined/relion.json`, `ablation_<set>.json`, `junk/<molecule>.json`,
`preferred_views/preferred_views.json`, `pose_prior.json`, `classes.json`, `choices/<experiment>.json`, `theorem1.json`,
`poisson.json`, `scaling.json`, `million.json` and `operations.json`. No number in the pages is typed by hand.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parents[1] / "docs"
RUNS, IMAGES = DOCS / "runs", DOCS / "images"
SETS = {
    "bgal_paper": "the paper's synthetic experiment at 64 px of 3.822 A: beta-galactosidase, D2, SNR 4.45, no shifts",
    "bgal_hard": "the same molecule, SNR 0.2, shifts up to 10 A",
    "ribo_c1": "a ribosome, 64 px of 5.0 A, C1, SNR 0.5, shifts up to 10 A",
}
# FSC 0.5 with the truth, half-map FSC 0.143, minutes, GiB.
TARGETS = {"bgal_paper": (8.0, 7.65, 20, 2), "bgal_hard": (12.0, 10.0, 60, 2), "ribo_c1": (15.0, 12.0, 60, 2)}
RIGHT_A = 20.0  # a run that ends in a coarser map than this found a wrong one
# How the pages call what the records name.
WORDS = {
    "search": "initial search",
    "sharpening": "frequency marching",
    "convolutional": "Wasserstein critic",
    "sharp attention at once": "sharp weights from the start",
    "no trust by halves": "no FSC weighting",
    "no climbing": "no refinement of the poses",
    "agreements with a bank": "log-likelihood ratios with a bank of templates",
    "climb a step": "a Gauss-Newton step of the poses",
    "convolutional critic step": "a step of the Wasserstein critic",
    "no network: views": "no network: matching",
}
Record = dict[str, Any]


def accuracy(name: str) -> list[Record]:
    return [json.loads(path.read_text()) for path in sorted(RUNS.glob(f"{name}_seed*/accuracy.json"))]


def relion(name: str) -> Record | None:
    """Of RELION's run `name`, such as "ribo_c1_relion"."""
    path = RUNS / name / "relion.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(head: list[str], rows: list[list[object]]) -> str:
    cells = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *cells])


def summary() -> str:
    head = ["set", "seeds", "wrong maps", "map and truth, FSC 0.5 (A): median, worst", "target"]
    head += ["half maps, FSC 0.143 (A): median, worst", "target", "minutes: median, worst", "target"]
    head += ["GiB a half, worst", "target"]
    rows: list[list[object]] = []
    for name, target in TARGETS.items():
        records = accuracy(name)
        if not records:
            continue
        truth, halves, minutes = ([r[key] for r in records] for key in ("truth_05", "halves_corrected", "minutes"))
        wrong = sum(value > RIGHT_A for value in truth)
        row: list[object] = [f"`{name}`", len(records), wrong]
        for values, bound in zip((truth, halves, minutes), target[:3], strict=True):
            row += [f"{median(values):.2f}, {max(values):.2f}", bound]
        rows.append([*row, max(r["memory_gib"] for r in records), target[3]])
    return table(head, rows)


def seeds() -> str:
    head = ["set", "seed", "minutes", "CPU minutes", "map and truth, FSC 0.5 (A)", "FSC 0.143 (A)"]
    head += ["half maps, FSC 0.143, unmasked (A)", "corrected (A)"]
    keys = ("set", "seed", "minutes", "cpu_minutes", "truth_05", "truth_0143", "halves_unmasked", "halves_corrected")
    return table(head, [[record[key] for key in keys] for name in SETS for record in accuracy(name)])


def beside_relion() -> str:
    """The last map of RELION, and the best that it had within twice our CPU time."""
    head = ["set", "CryoGAN, median: FSC 0.5 (A)", "CPU minutes"]
    head += ["RELION, last map: FSC 0.5 (A)", "iterations", "CPU minutes"]
    head += ["RELION, best map within twice CryoGAN's CPU time: FSC 0.5 (A)"]
    rows: list[list[object]] = []
    for name in SETS:
        other, records = relion(f"{name}_relion"), accuracy(name)
        if other is None or not records:
            continue
        spent = median(record["cpu_minutes"] for record in records)
        last = other["iterations"][-1]
        early = [iteration["truth_05"] for iteration in other["iterations"] if iteration["cpu_seconds"] <= 120 * spent]
        row: list[object] = [f"`{name}`", median(record["truth_05"] for record in records), spent]
        words = other["command"].split()
        planned = sum(int(words[words.index(f"--sgd_{part}_iter") + 1]) for part in ("ini", "inbetween", "fin"))
        row += [last["truth_05"], f"{last['iteration']} of {planned}", last["cpu_seconds"] / 60]
        row.append(min(early, default=float("nan")))
        rows.append(row)
    return table(head, rows)


def beside_relion_refined() -> str:
    """Both programs' initial map and refinement together, CPU minutes of all processes."""
    head = ["set", "CryoGAN, refined, median: FSC 0.5 (A)", "CPU minutes, from the particles"]
    head += ["RELION, refined: FSC 0.5 (A)", "first in iteration", "of", "CPU minutes, from the particles until then"]
    rows: list[list[object]] = []
    for name in SETS:
        first, second = relion(f"{name}_relion"), relion(f"{name}_relion_refined")
        ours = [(run, fine) for run in accuracy(name) if (fine := refinement(run)) is not None]
        if first is None or second is None or not ours:
            continue
        best = min(iteration["truth_05"] for iteration in second["iterations"])
        last = next(iteration for iteration in second["iterations"] if iteration["truth_05"] < best + 0.01)
        spent = median(run["cpu_minutes"] + fine["cpu_minutes"] for run, fine in ours)
        row: list[object] = [f"`{name}`", median(fine["truth_05"] for _, fine in ours), spent]
        seconds = first["iterations"][-1]["cpu_seconds"] + last["cpu_seconds"]
        ended = f"{second['iterations'][-1]['iteration']}" + (", stopped by hand" if second["exit_code"] else "")
        rows.append([*row, last["truth_05"], last["iteration"], ended, seconds / 60])
    return table(head, rows) if rows else ""


def refinement(record: Record) -> Record | None:
    path = RUNS / f"{record['set']}_seed{record['seed']}" / "refinement.json"
    return json.loads(path.read_text()) if path.exists() else None


def refinements() -> str:
    head = ["set", "seed", "minutes", "CPU minutes", "map and truth, FSC 0.5 (A): before", "after"]
    head += ["half maps, FSC 0.143, unmasked (A)", "corrected (A)"]
    head += ["angular error: median (degrees)", "within 10 degrees", "GiB"]
    keys = ("halves_unmasked", "halves_corrected", "angle_median", "angle_within_10", "memory_gib")
    rows: list[list[object]] = []
    for name in SETS:
        for record in accuracy(name):
            refined = refinement(record)
            if refined is not None:
                row = [f"`{name}`", refined["seed"], refined["minutes"], refined["cpu_minutes"], record["truth_05"]]
                rows.append([*row, refined["truth_05"], *(refined[key] for key in keys)])
        for path in sorted(RUNS.glob(f"{name}_seed*/true_poses.json")):
            bound = json.loads(path.read_text())
            row = [f"`{name}`, true poses", bound["seed"], "", "", "", bound["truth_05"]]
            rows.append([*row, bound["halves_unmasked"], bound["halves_corrected"], 0.0, 1.0, ""])
    return table(head, rows)


def preferred(records: list[Record]) -> str:
    head = [
        "orientations",
        "CPU minutes",
        "map and truth, FSC 0.5 (A)",
        "FSC 0.143 (A)",
        "FSC in shell 4",
        "8",
        "12",
        "16",
    ]
    head += ["half maps, FSC 0.143, corrected (A)", "correlation of learned and true density"]
    rows: list[list[object]] = []
    for run in records:
        row = [run["views"], run["cpu_minutes"], run["truth_05"], run["truth_0143"]]
        row += [run["truth_fsc"][shell] for shell in (4, 8, 12, 16)]
        rows.append([*row, run["halves_corrected"], "" if run["correlation"] is None else run["correlation"]])
    return table(head, rows)


def junk_found(records: list[Record]) -> str:
    kinds = {
        "particle": "particles",
        "empty": "empty boxes",
        "contaminant": "contaminants",
        "aggregate": "aggregates",
        "broken": "broken molecules",
    }
    head = [
        "molecule",
        "map and truth, FSC 0.5 (A)",
        "sum of the weights",
        *(f"{text} rejected" for text in kinds.values()),
    ]
    rows: list[list[object]] = []
    for record in records:
        found = [record["kinds"][kind] for kind in kinds]
        shares = [f"{one['rejected']:.1%} of {one['images']}" for one in found]
        rows.append(
            [f"{record['molecule']} ({record['symmetry']})", record["truth_05"], record["sum_of_weights"], *shares]
        )
    text = (
        f"{records[0]['images']} images of 48 px at SNR {records[0]['snr']}, 15 % of them junk of four kinds "
        "([simulated particles](simulate.md)); a map from zero, then `cryogan poses`, which knows nothing of the truth "
        "(`benchmarks/junk.py`; [the page](roadmap/outliers.md))."
    )
    return text + "\n\n" + table(head, rows)


def plot_course() -> None:
    """FSC 0.5 with the truth over CPU minutes, both programs."""
    fig, panels = plt.subplots(1, len(SETS), figsize=(12, 3.6), constrained_layout=True)
    for panel, name in zip(panels, SETS, strict=True):
        for index, record in enumerate(accuracy(name)):
            points = [(point["cpu_minutes"], point["truth_05"]) for point in record["course"]]
            points.append((record["cpu_minutes"], record["truth_05"]))
            label = "CryoGAN, half 1; last point: the map" if index == 0 else None
            panel.plot(*zip(*points, strict=True), "o-", color="C0", ms=3, lw=1, alpha=0.7, label=label)
        other = relion(f"{name}_relion")
        if other is not None:
            points = [(iteration["cpu_seconds"] / 60, iteration["truth_05"]) for iteration in other["iterations"]]
            panel.plot(*zip(*points, strict=True), "s-", color="C1", ms=3, lw=1, label="RELION, initial model")
        panel.set(title=name, xlabel="CPU minutes", ylabel="FSC 0.5 with the truth (A)", yscale="log", xscale="log")
        panel.set_yticks([8, 10, 15, 20, 30, 50, 100], ["8", "10", "15", "20", "30", "50", "100"])
        panel.set_xlim(0.5, 100)
        panel.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8, loc="upper right")
    fig.savefig(IMAGES / "course.png", dpi=110)
    plt.close(fig)


def plot_fsc_curves() -> None:
    """The last map's FSC with the truth, both programs."""
    fig, panels = plt.subplots(1, len(SETS), figsize=(12, 3.2), sharey=True, constrained_layout=True)
    for panel, name in zip(panels, SETS, strict=True):
        for index, record in enumerate(accuracy(name)):
            panel.plot(record["truth_fsc"], color="C0", lw=1, alpha=0.7, label="CryoGAN" if index == 0 else None)
        other = relion(f"{name}_relion")
        if other is not None:
            panel.plot(other["iterations"][-1]["truth_fsc"], color="C1", label="RELION, initial model")
        panel.axhline(0.5, color="grey", lw=0.7)
        panel.set(title=name, xlabel="shell (32 is the Nyquist frequency)", ylim=(-0.1, 1.05))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("FSC with the truth")
    panels[0].legend(fontsize=8)
    fig.savefig(IMAGES / "truth_fsc.png", dpi=110)
    plt.close(fig)


def ablation() -> str:
    head = ["set", "seed", "stage", "left out", "CPU minutes", "FSC 0.5 (A)", "FSC 0.143 (A)"]
    head.append("log-likelihood ratio (nats)")
    rows: list[list[object]] = []
    for path in sorted(RUNS.glob("ablation_*.json")):
        for record in json.loads(path.read_text()):
            variant = "nothing" if record["variant"] in ("search", "sharpening", "marching") else record["variant"]
            variant, stage = WORDS.get(variant, variant), WORDS.get(record["stage"], record["stage"])
            row = [record["set"], record["seed"], stage, variant, record["cpu_minutes"]]
            rows.append([*row, record["truth_05"], record["truth_0143"], record["agreement"]])
    return table(head, rows)


def with_prior(record: Record) -> str:
    shells = range(2, 16, 2)
    head = ["simulated orientations", "correlation", *(f"shell {shell}" for shell in shells)]
    rows: list[list[object]] = []
    for run in record["records"]:
        correlation = "-" if run["correlation"] is None else f"{run['correlation']:.2f}"
        rows.append(
            [WORDS.get(run["views"], run["views"]), correlation, *(float(run["fsc"][shell]) for shell in shells)]
        )
    return table(head, rows)


def come_apart(cases: list[Record]) -> str:
    head = ["box (px)", "SNR", "particles", "junk", "classes", "seed", "purity", "weights of half 1", "of half 2"]
    rows: list[list[object]] = []
    for case in cases:
        weights = [", ".join(f"{weight:.2f}" for weight in half) for half in case["weights"]]
        row = [case["box"], case["snr"], case["particles"], "yes" if case["junk"] else "no", len(case["weights"][0])]
        rows.append([*row, case["seed"], case["purity"], *weights])
    return table(head, rows)


def choices() -> str:
    head = ["experiment", "choice", "seeds", "map and truth, FSC 0.5 (A)", "FSC 0.143 (A)"]
    head += ["half maps, FSC 0.143, corrected (A)", "CPU minutes, median"]
    rows: list[list[object]] = []
    for path in sorted(RUNS.glob("choices/*.json")):
        records = json.loads(path.read_text())
        for choice in dict.fromkeys(record["choice"] for record in records):
            runs = [record for record in records if record["choice"] == choice]
            row = [path.stem, WORDS.get(choice, choice), len(runs)]
            row += [", ".join(f"{r[key]:.1f}" for r in runs) for key in ("truth_05", "truth_0143", "halves_corrected")]
            rows.append([*row, median(record["cpu_minutes"] for record in runs)])
    return table(head, rows)


def large(record: Record) -> list[str]:
    """A half's process with sets of several sizes."""
    head = ["particles", "checked and planned: CPU seconds", "GiB", "read, first stage: CPU seconds", "second stage"]
    head += ["initial search: CPU seconds per step", "seconds"]
    head += ["frequency marching: CPU seconds per step", "seconds", "GiB, largest"]
    rows: list[list[object]] = []
    for size in record["sizes"]:
        row: list[object] = [f"{size['particles']:,}", size["plan"]["cpu_seconds"], size["plan"]["peak_gib"]]
        row += [size[f"build_{name}"]["cpu_seconds"] for name in ("search", "sharpening")]
        for name in ("search", "sharpening"):
            row += [size[name][unit] / size[name]["steps"] for unit in ("cpu_seconds", "seconds")]
        rows.append([*row, size["sharpening"]["peak_gib"]])
    small, large = record["sizes"][0], record["sizes"][-1]
    rates = [
        f"{WORDS[name]} at {small[name][unit] / small[name]['steps'] / (large[name][unit] / large[name]['steps']):.0%} "
        f"({what})"
        for name in ("search", "sharpening")
        for unit, what in (("cpu_seconds", "CPU time"), ("seconds", "by the clock"))
    ]
    reading = record["reading"]
    count = reading["images"]
    speeds = ", ".join(
        f"{what} {count / reading[key]['cpu_seconds']:,.0f} ({count / reading[key]['seconds']:,.0f} by the clock)"
        for key, what in (("file", "as they lie in the file"), ("batches", "preprocessed"), ("cache", "into a cache"))
    )
    return [
        f"`{record['set']}` repeated with fresh noise, float16, 64 px ({large['gigabytes']:.1f} GB): one half of it, "
        "in a process of its own, one thread. Up to 2 GiB of images are held in memory: the 5,000 always, a "
        "half of the "
        "million at the initial search's 32 px (hence most of its memory), but not at the 64 px of frequency marching, "
        "where every batch is read ahead of the step that needs it (`benchmarks/million.py`). The target: 90 % of the "
        "step rate, 3 GiB.",
        table(head, rows),
        f"Step rate relative to that with {small['particles']:,}, steps of both in turn: " + "; ".join(rates) + ".",
        f"Images per CPU second, 64 px to {reading['box']} px: {speeds}. " + record.get("note", ""),
    ]


def plot_scaling(record: Record) -> None:
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    boxes = record["boxes"]
    left.loglog([run["box"] for run in boxes], [run["cpu_seconds"] for run in boxes], "o-", label="CPU seconds")
    left.loglog([run["box"] for run in boxes], [run["memory_gib"] for run in boxes], "s-", label="memory, GiB")
    left.set(xlabel="box (px)", title=f"a step of frequency marching, {record['images']} images")
    left.set_xticks([run["box"] for run in boxes], [str(run["box"]) for run in boxes])
    left.minorticks_off()
    left.legend()
    for run in record["particles"]:
        right.plot(run["particles"], run["truth_05"], "o", color="C0")
        right.annotate(f"{run['cpu_minutes']:.1f} min", (run["particles"], run["truth_05"]), fontsize=7)
    right.set(xlabel="particles", ylabel="FSC 0.5 with the truth (A)", xscale="log", title="CPU time beside each point")
    for panel in (left, right):
        panel.grid(alpha=0.3)
    fig.savefig(IMAGES / "scaling.png", dpi=110)
    plt.close(fig)


def opening() -> list[str]:
    everything = [record for name in SETS for record in accuracy(name)]
    made = sorted({(r["machine"], json.dumps(r["versions"])) for r in everything})
    return [
        "# Results",
        "Written by `benchmarks/report.py` from the records in `docs/runs`, which `make benchmarks` measures again. "
        "The truth is read after a run, for the evaluation only. Each command is `cryogan reconstruct particles.star "
        "--noise noise.star --symmetry ...` with the default settings, both half maps from zero. FSC with the truth is "
        "that of `map.mrc`, the mean of the half maps, after `cryogan align`.",
        "\n".join(f"- `{name}`: {what}." for name, what in SETS.items()),
        "Each has 5,000 particles, with CTFs and background of EMPIAR-10061. 7.64 A and 10.0 A are the Nyquist "
        "frequencies.",
        "\n".join(f"Machine: {machine}. Versions: {versions}." for machine, versions in made),
        "The records are of the versions of 22 to 25 November 2026, whose search was shorter; the README has today's "
        "numbers. RELION ran on one core while CryoGAN's two halves shared both cores, so minutes are longer than on "
        "an idle machine. "
        f"A map is called wrong if its FSC with the truth falls to 0.5 before {RIGHT_A:.0f} A.",
        "## Against the targets",
        summary(),
        "![FSC with the truth](images/truth_fsc.png)",
        "## Each run",
        seeds(),
        "## Comparison with RELION's initial model",
        "`relion_refine --sgd --denovo_3dref`, version 3.1.3, the interface's defaults (300 iterations; where 100 are "
        "planned, 17 + 66 + 17 instead of the interface's 50 + 200 + 50), one thread, "
        "the same particles in float32; `benchmarks/relion.py` has the command. CPU time of both is user and system "
        "time of all processes.",
        beside_relion(),
        "![Resolution over CPU time](images/course.png)",
    ]


def refinement_part() -> list[str]:
    if not any(RUNS.glob("*/refinement.json")):
        return []
    return [
        "## What refinement adds",
        "`cryogan refine` on the runs above: poses of each half's particles against its own map, then a "
        "least-squares map, until the FSC of the half maps stops increasing. The minutes are added to those of the "
        "run (`benchmarks/refinement.py`). With true poses: the least-squares map of the poses of truth.star, the "
        "limit for any refinement.",
        refinements(),
    ]


def relion_refinement_part() -> list[str]:
    beside = beside_relion_refined()
    if not beside:
        return []
    return [
        "`relion_refine_mpi --auto_refine`, the interface's defaults, from the last map of RELION's initial model "
        "in the table above, two half sets; the leading process, which only coordinates the two others, is not "
        "counted. "
        "The FSC is that of the mean of its half maps.",
        beside,
    ]


def preferred_part() -> list[str]:
    views = RUNS / "preferred_views" / "preferred_views.json"
    if not views.exists():
        return []
    records = json.loads(views.read_text())
    return [
        "## Preferred orientations",
        f"Particles of the map of `{records[0]['set']}`, four in five seen from within 20 degrees of two axes; "
        "simulated noise, SNR 0.5; default settings, without and with `--learn-poses` "
        "(`benchmarks/preferred_views.py`). Half maps that share a bias agree better than they should.",
        preferred(records),
    ]


def prior_part() -> list[str]:
    prior = RUNS / "pose_prior.json"
    if not prior.exists():
        return []
    record = json.loads(prior.read_text())
    return [
        "## A prior of the orientations",
        f"{record['images']} images of a 32 px phantom with preferred views, one half, frequency marching from one "
        f"initial search, seed {record['seed']}: FSC with the truth by shell, and the correlation of the simulator's "
        "density of views with the true one (`benchmarks/pose_prior.py`; [the "
        "page](roadmap/pose-distribution.md)).",
        with_prior(record),
    ]


def classes_part() -> list[str]:
    mixed = RUNS / "classes.json"
    if not mixed.exists():
        return []
    return [
        "## Several classes",
        "Two conformations in equal parts, from zero, both halves; junk: half as many images of noise beside them. "
        "Purity: the share of particles in the class of the conformation that they show (`benchmarks/classes.py`; "
        "[the page](roadmap/classes.md)).",
        come_apart(json.loads(mixed.read_text())["cases"]),
    ]


def choices_part() -> list[str]:
    if not any(RUNS.glob("choices/*.json")):
        return []
    return [
        "## Choices that are off by default",
        "Whole runs that differ in one choice, seed by seed (`benchmarks/choices.py`). Critics: `bgal_paper` "
        "at 32 px (Nyquist 15.3 A), width 8, 500 updates at 24 px and 300 at 32. Poisson: 1,000 particles of a "
        "32 px phantom (Nyquist 8 A), SNR 0.1, 3.2 electrons per pixel; the matching critic.",
        choices(),
    ]


def junk_part() -> list[str]:
    records = [json.loads(path.read_text()) for path in sorted((RUNS / "junk").glob("*.json"))]
    return ["## Junk", junk_found(records)] if records else []


def ablation_part() -> list[str]:
    if not any(RUNS.glob("ablation_*.json")):
        return []
    return [
        "## The effect of each part",
        "One half, one thread, one initial search; FSC of the half map with the truth. All runs of frequency marching "
        "start from the same initial search. (`benchmarks/ablation.py`)",
        ablation(),
    ]


def scaling_part() -> list[str]:
    scaling = RUNS / "scaling.json"
    if not scaling.exists():
        return []
    record = json.loads(scaling.read_text())
    plot_scaling(record)
    boxes = [[run["box"], run["cpu_seconds"], run["memory_gib"]] for run in record["boxes"]]
    sizes = [[run["particles"], run["cpu_minutes"], run["truth_05"]] for run in record["particles"]]
    matched = [
        [run["particles"], run["cpu_seconds"], run["particles"] / run["cpu_seconds"], run["memory_gib"]]
        for run in record["poses"]
    ]
    return [
        "## How the cost grows",
        f"One thread. A step of frequency marching with {record['images']} real and as many simulated images, all "
        "frequencies; "
        f"and whole runs with {record['what']}. (`benchmarks/scaling.py`)",
        table(["box (px)", "CPU seconds per step", "memory (GiB)"], boxes),
        table(["particles", "CPU minutes", "map and truth, FSC 0.5 (A)"], sizes),
        "![Scaling](images/scaling.png)",
        "Poses of particles with a C1 map at 64 px, all frequencies; both half sets in one process:",
        table(["particles", "CPU seconds", "particles per second", "memory (GiB)"], matched),
    ]


def million_part() -> list[str]:
    million = RUNS / "million.json"
    if not million.exists():
        return []
    record = json.loads(million.read_text())
    return ["## A million particles", *large(record)]


def operations_part() -> list[str]:
    operations = RUNS / "operations.json"
    if not operations.exists():
        return []
    record = json.loads(operations.read_text())
    rows = [
        [
            WORDS.get(operation["name"], operation["name"]),
            operation["milliseconds"],
            operation["gflop_s"],
            operation["share"],
        ]
        for operation in record["operations"]
    ]
    return [
        "## Operations",
        f"One thread, 64 px; peak: {record['peak_gflop_s']:.0f} GFlop/s of a float32 matrix product in the same "
        "run (`benchmarks/operations.py`).",
        table(["operation", "milliseconds", "GFlop/s", "share of the peak"], rows),
    ]


def poisson_part() -> list[str]:
    counted = RUNS / "poisson.json"
    if not counted.exists():
        return []
    record = json.loads(counted.read_text())
    return [
        "## Counted electrons and Gaussian noise",
        "Images of a molecule with Poisson noise, and simulated images of the same molecule with either noise "
        "model: AUC of a classifier (that of [Theorem 1 on simulated images](theorem.md); 0.5: not "
        "distinguished), median of "
        f"{len(record['seeds'])} seeds, and in how many p < 0.05. Pixels of {record['pixel_size']:g} A, SNR "
        f"{record['snr']:g} (`benchmarks/poisson.py`).",
        table(
            ["electrons per square A", "per pixel", "Poisson: AUC", "p < 0.05", "white: AUC", "p < 0.05"],
            [[f"{row['dose']:g}", f"{row['electrons']:g}", *row["cells"]] for row in record["doses"]],
        ),
    ]


SECTIONS = (
    opening,
    refinement_part,
    relion_refinement_part,
    preferred_part,
    prior_part,
    classes_part,
    choices_part,
    junk_part,
    ablation_part,
    scaling_part,
    million_part,
    operations_part,
    poisson_part,
)


def page() -> str:
    """Return docs/results.md."""
    parts = [part for section in SECTIONS for part in section()]
    parts.append("What was tried during development, and what did not help: [experiments](experiments.md).")
    return "\n\n".join(parts) + "\n"


def theorem(record: Record) -> str:
    """docs/theorem.md."""
    head = ["second volume", "Theorem 1", "AUC: median", "smallest", "largest", "p < 0.05", "smallest p"]
    rows: list[list[object]] = []
    for name, found in record["pairs"].items():
        values, chances = found["auc"], found["p"]
        told = f"{sum(p < 0.05 for p in chances)} of {len(chances)}"
        says = "equal" if found["equal"] else "different"
        rows.append([name, says, median(values), min(values), max(values), told, f"{min(chances):.4f}"])
    equal = [p for found in record["pairs"].values() if found["equal"] for p in found["p"]]
    different = [p for found in record["pairs"].values() if not found["equal"] for p in found["p"]]
    parts = [
        "# Theorem 1 on simulated images",
        "The theorem says that the images of two volumes have the same distribution if and only if one volume is the "
        "other rotated or mirrored. Therefore a map can be learned by matching distributions, and therefore its hand "
        "stays unknown. Here it is tested on simulated images (`benchmarks/theorem1.py`; written by "
        "`benchmarks/report.py` from its record).",
        f"For each of {len(record['seeds'])} seeds a molecule of Gaussians in three domains is made, and "
        f"{record['images']} images of it and of a second volume: {record['box']} px of {record['pixel_size']:g} A, "
        f"SNR {record['snr']:g}, uniform poses, triangular shifts up to {record['max_shift']:g} A, CTFs from the same "
        "100 micrographs, white noise; independent random numbers for every image. A linear classifier of fixed "
        "features (power in each shell; mean and s.d. of the channels of a convolutional network with random weights) "
        "is trained to distinguish the two sets on half of the images and tested on the others. An AUC of 0.5 "
        "is chance; p is the "
        f"share of {record['permutations']:,} permutations of the labels with at least that AUC.",
        table(head, rows),
        f"Where the theorem says equal, p is below 0.05 in {sum(p < 0.05 for p in equal)} of {len(equal)} tests; by "
        f"chance {0.05 * len(equal):.0f} are expected. Where it says different, in "
        f"{sum(p < 0.05 for p in different)} of {len(different)}. "
        f"{record['cpu_seconds']} s of one core.",
        "- **Rotated, and moved by 12 A** is distinguished: shifts are bounded, and the images of a molecule away from "
        "the centre have other bounds. Only rotations and reflections about the centre are free.\n"
        "- **Noise 5 % stronger** is distinguished: the noise model belongs to the distribution that is matched.\n"
        "- **Same preferred views** (of both volumes, in the frame of the box) distinguish the rotated volume: with "
        "poses that are not uniform, fewer rotations are free. The paper's proof says so (Theorem 2); its statement "
        "(22) does not.\n"
        "- A test that does not distinguish two sets does not prove them equal. The smallest move of a domain "
        "shows the "
        "sensitivity of this one.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    plot_course()
    plot_fsc_curves()
    (DOCS / "results.md").write_text(page())
    (DOCS / "theorem.md").write_text(theorem(json.loads((RUNS / "theorem1.json").read_text())))
