"""What the choices that are off by default do to a map: whole runs that differ in one of them, judged with the truth.

    python benchmarks/choices.py critics ../shared/data/bgal_paper --out choices
    python benchmarks/choices.py poisson --out choices

Leaves `<experiment>.json` in the folder, beside the runs.
"""

import argparse
import json
from pathlib import Path

from accuracy import measure
from cryogan.models.phantom import phantom
from cryogan.simulation import simulate

D2 = ["--symmetry", "D2"]
CONVOLUTIONAL = [*D2, "--critic", "wasserstein", "--critic-width", "8", "--max-shift", "0", "--starts", "1"]
COARSE = ["--box", "32", "--stages", "24:500,32:300"]
FINE = ["--box", "32", "--stages", "32:580"]  # as many pixels
DOSE = 0.2  # electrons per square A
COUNTED = [*D2, "--max-shift", "4"]
Choices = dict[str, list[str]]
CHOICES: dict[str, Choices] = {
    "critics": {name: [*CONVOLUTIONAL, *COARSE, "--architecture", name] for name in ("paper", "residual", "ctf")}
    | {
        "paper, not coarse to fine": [*CONVOLUTIONAL, *FINE],
        "no network: views": [*D2, "--max-shift", "0", "--box", "32"],
    },
    "poisson": {
        "poisson": [*COUNTED, "--noise-model", "poisson", "--dose", str(DOSE)],
        "white": [*COUNTED, "--noise-model", "white"],
    },
}
KEPT = ("options", "seed", "cpu_minutes", "truth_05", "truth_0143", "halves_corrected", "truth_fsc")


def counted(folder: Path) -> Path:
    """1,000 particles of a phantom at 3.2 electrons in a pixel: 32 px of 4 A, D2, SNR 0.1."""
    simulate(phantom(32, 4.0, 0), 4.0, folder, count=1000, noise="poisson", dose=DOSE, snr=0.1, max_shift=4.0)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=CHOICES)
    parser.add_argument("data", type=Path, nargs="?", help="a set with truth.mrc; poisson makes its own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    data = counted(a.out / "counted") if a.experiment == "poisson" else a.data
    if data is None:
        parser.error("give a data set")
    records = []
    for seed in a.seeds:
        for choice, options in CHOICES[a.experiment].items():
            run = a.out / f"{a.experiment}_seed{seed}" / "".join(filter(str.isalnum, choice))
            record = measure(data, seed, run, options)
            records.append({"set": data.name, "choice": choice} | {name: record[name] for name in KEPT})
            print({name: value for name, value in records[-1].items() if name != "truth_fsc"}, flush=True)
            (a.out / f"{a.experiment}.json").write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
