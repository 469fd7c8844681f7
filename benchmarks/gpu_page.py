"""Write docs/gpu.md from docs/runs/gpu_first.json and, where it is, the record of `gpu.py`, docs/runs/gpu.json.

python benchmarks/gpu_page.py
"""

import json

from report import DOCS, RUNS, Record, table

COMMAND = "python benchmarks/gpu.py --scratch gpu --out docs/runs/gpu.json"
HEAD = ["run", "whole command (s)", "before the first step (s)", "steps (s)", "after the last step (s)"]
TIMES = ("before_s", "steps_s", "after_s")


def page(first: Record, record: Record | None) -> str:
    """docs/gpu.md."""
    parts = [
        "# GPUs",
        "Written by `benchmarks/gpu_page.py` from its records. A run on a GPU is `cryogan reconstruct ... --device "
        "cuda`; both halves share the card unless each is [given its own](cluster.md).",
        *(measured(record) if record else ["**The benchmark below has not been run on a GPU yet.**"]),
        *first_runs(first),
        *how_to(),
    ]
    return "\n\n".join(parts) + "\n"


def first_runs(first: Record) -> list[str]:
    rows = [
        [f"`cryogan reconstruct ... {run['options']}`", run["seconds"], *(run[name] for name in TIMES),
         run["nyquist"], f"{run['truth_05']:g} A; {run['note']}"]
        for run in first["runs"]
    ]  # fmt: skip
    return [
        f"## The first runs, of version {first['version']}",
        f"One run each, on one {first['device']} with {first['cores']} CPU cores; {first['libraries']}. Tests: "
        f"{first['tests']}. 41,000 simulated particles of the paper's synthetic experiment at its own size: 180 px of "
        "1.274 A, beta-galactosidase at 5 A, CTFs and backgrounds of EMPIAR-10061, SNR 0.55, no shifts, projected in "
        "real space, which is another projector than the program's. `cryogan reconstruct --symmetry D2 --device cuda`, "
        "two half maps from zero, everything else default. The program has changed since; these numbers have not been "
        "measured again.",
        table([*HEAD, "Nyquist (A)", "FSC 0.5 with the truth"], rows),
        "At 128 px the card was idle in two thirds of the 185 s: before the first step the CPU reads, checks, "
        "normalises and crops the images, once for each half; after the last it compares, masks and draws. The "
        "search, 290 steps in 12 s, is bound by the launches of small kernels. The program's estimate of the memory "
        "that both halves take at 128 px was 1.9 GiB. The paper reports half maps that agree to 7.58 A after 160 "
        "minutes of a P100. The `paper` preset was stopped after 7 % of its updates, and has never been seen to its "
        "end at this size; at that rate it takes an hour.",
    ]


def how_to() -> list[str]:
    return [
        "## The benchmark",
        f"    {COMMAND}",
        "At most eight minutes on one data-centre GPU, without network or data: it makes 41,000 particles of 180 px "
        "of a phantom with D2 symmetry (another molecule than above, simulated CTFs and noise), runs the tests that "
        "need a GPU, times each operation at 64, 128 and 192 px on the GPU and on all cores of the CPU, runs the "
        "default critic to its end at working boxes of 128, 180 and 64 px, and the `paper` preset for two minutes. "
        "It notes the times before the first step, of the steps and after the last, the memory of the GPU and of "
        "the processes, the share of time in which the GPU was busy (where `nvidia-smi` is there), and the FSC with "
        "the truth. 3 GB of disk.",
        "A part that fails is recorded with its error, and the next one begins. A part for which the minutes that are "
        "left do not suffice is recorded as left; the same command, given again, goes on with what is not done. At the "
        "speed of the first runs all parts together take about 15 minutes, so two or three calls; if the program is "
        "twice as fast by now, one.",
        "Everything runs on a CPU, too, at a reduced size (a test does that, marked as slow):",
        "    python benchmarks/gpu.py --scratch gpu_quick --out gpu_quick.json --device cpu --quick",
        "## With a quarter of an hour on a GPU",
        "One script, the most telling parts first (particles, tests, 128 px, 180 px, 64 px, operations, `paper`). "
        "What is done stays in the record, whatever happens afterwards:",
        "    python -c 'import torch; print(torch.cuda.get_device_name())' || exit 1\n"
        f"    {COMMAND} --minutes 6.7\n"
        f"    {COMMAND} --minutes 6.7\n"
        "    python benchmarks/gpu_page.py",
        "Install the package with a PyTorch for CUDA beforehand, and try the reduced size on the CPU of that "
        "machine: it compiles the loops, too.",
    ]


def measured(record: Record) -> list[str]:
    """What `gpu.py` found."""
    parts = record["parts"]
    cores = f"{record['cores']} CPU cores ({record['processor']})"
    return [
        f"## Version {record['version']}",
        f"`benchmarks/gpu.py`, one run each, on one {record['device']} with {cores}; "
        f"{', '.join(f'{name} {version}' for name, version in record['libraries'].items())}.",
        table(["part", "how it ended", "seconds"], [outcome(name, part) for name, part in parts.items()]),
        *runs(parts),
        *operations(parts),
        *(record.get("remarks", [])),
    ]


def outcome(name: str, part: Record) -> list[object]:
    last = part.get("error", "").strip().splitlines()[-1:]
    ended = ": ".join([part["status"], *last, *([part["summary"]] if "summary" in part else [])])
    return [name, ended.replace("|", "\\|"), f"{part['seconds']:.0f}" if "seconds" in part else ""]


def runs(parts: Record) -> list[str]:
    rows = [
        [name, f"{60 * part['minutes']:.0f}", *(f"{part[time]:.0f}" for time in TIMES), f"{part['cpu_minutes']:.1f}",
         f"{part['gpu_gib']:.1f}" if "gpu_gib" in part else "",
         f"{100 * part['gpu_busy']:.0f} %" if part.get("gpu_busy") is not None else "",
         part["memory_gib"], part["truth_05"], part["halves_corrected"]]
        for name, part in parts.items()
        if "truth_05" in part
    ]  # fmt: skip
    head = [*HEAD, "CPU minutes", "GPU memory (GiB)", "GPU busy", "largest process (GiB)"]
    return [table([*head, "FSC 0.5 with the truth (A)", "half maps, FSC 0.143 (A)"], rows)] if rows else []


def operations(parts: Record) -> list[str]:
    found = [row for part in parts.values() for row in part.get("rows", [])]
    if not found:
        return []
    rate = {(row["operation"], row["box"], row["device"]): row["items"] / row["seconds"] / 1e6 for row in found}
    memory = {(row["operation"], row["box"]): row["peak_gib"] for row in found if "peak_gib" in row}
    rows: list[list[object]] = []
    for name, box, device in rate:
        if device == "cpu":
            cpu, gpu = rate[name, box, "cpu"], rate.get((name, box, "cuda"))
            beside = ["", "", ""] if gpu is None else [f"{gpu:,.1f}", f"{gpu / cpu:.1f}", memory[name, box]]
            rows.append([name, box, f"{cpu:,.1f}", *beside])
    head = ["operation", "box", "CPU, all cores", "GPU", "GPU over CPU", "GPU's memory (GiB)"]
    return [
        "Operations, million items a second. Items are samples of slices (samples, adjoint, normal equations, "
        "Gauss-Newton step), pairs of an image and a template (bank), coefficients (CTF) or voxels. The FSC is "
        "computed on the CPU in any run.",
        table(head, rows),
    ]


def main() -> None:
    path = RUNS / "gpu.json"
    record = json.loads(path.read_text()) if path.exists() else None
    if record and (record["size"] != "full" or record["device"] == "cpu"):
        raise SystemExit(f"{path} is not of a GPU at the full size. Delete it.")
    first = json.loads((RUNS / "gpu_first.json").read_text())
    (DOCS / "gpu.md").write_text(page(first, record))


if __name__ == "__main__":
    main()
