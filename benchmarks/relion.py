"""RELION's initial model on the same particles: resolution against CPU time, on one core.

    python benchmarks/relion.py ../shared/data/ribo_c1 --symmetry C1 --out RELION

`relion_refine` runs its stochastic gradient descent with the defaults of RELION 3.1's interface. Each map that
it writes is aligned to truth.mrc afterwards, in both hands, for the evaluation alone; `relion.json` holds the
result. Ctrl-C or SIGTERM ends RELION early; the maps until then are judged. RELION 3.1 does not read float16
stacks, so the particles are written anew in float32 first.
"""

import argparse
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import mrcfile
import numpy as np

from accuracy import judge, processor
from cryogan.particles import read_volume
from cryogan.validation import resolution_at

TICKS = os.sysconf("SC_CLK_TCK")


def convert(data: Path, out: Path) -> None:
    """The particles in float32, under the names that the STAR file has for them."""
    with mrcfile.open(data / "particles.mrcs", permissive=True) as stack:
        images, voxel = np.asarray(stack.data, dtype=np.float32), stack.voxel_size.x
    with mrcfile.new(out / "particles.mrcs", overwrite=True) as stack:
        stack.set_data(images)
        stack.set_image_stack()
        stack.voxel_size = voxel
    (out / "particles.star").write_text((data / "particles.star").read_text())


def command(symmetry: str, diameter: float, iterations: int, seed: int) -> list[str]:
    """RELION's initial model: the interface's defaults, its 50 + 200 + 50 iterations scaled."""
    first, last = max(1, iterations // 6), max(1, iterations // 6)
    options = {
        "i": "particles.star",
        "o": "run/run",
        "sgd_ini_iter": first,
        "sgd_inbetween_iter": iterations - first - last,
        "sgd_fin_iter": last,
        "sgd_write_iter": 10,
        "sgd_ini_resol": 35,
        "sgd_fin_resol": 15,
        "sgd_ini_subset": 100,
        "sgd_fin_subset": 500,
        "K": 1,
        "sym": symmetry,
        "particle_diameter": round(diameter),
        "oversampling": 1,
        "healpix_order": 1,
        "offset_range": 6,
        "offset_step": 2,
        "pad": 1,
        "j": 1,
        "random_seed": seed,
    }
    flags = ["--sgd", "--denovo_3dref", "--ctf", "--zero_mask", "--flatten_solvent"]
    return ["relion_refine", *flags, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]


def cpu_seconds(pid: int) -> float:
    """User and system time of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def run(arguments: list[str], out: Path) -> dict[str, object]:
    """Run RELION to its end, and note the time spent when each map appears."""
    iterations: list[dict[str, object]] = []
    start, known, spent = time.monotonic(), set[Path](), 0.0
    with (out / "log.txt").open("w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        child = subprocess.Popen(arguments, cwd=out, env=environment, stdout=log, stderr=log)
        try:
            ended = False
            while not ended:
                ended = child.poll() is not None
                spent = spent if ended else cpu_seconds(child.pid)
                for path in sorted(set(out.glob("run/run_it*_class001.mrc")) - known):
                    known.add(path)
                    iteration = int(path.name.split("_it")[1][:3])
                    wall = time.monotonic() - start
                    iterations.append({"iteration": iteration, "cpu_seconds": spent, "wall_seconds": wall})
                time.sleep(1.0)
        except KeyboardInterrupt:
            pass  # what is there is judged
        finally:
            child.terminate()
    return {"exit_code": child.wait(), "iterations": iterations}


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1, help="RELION takes 0 for no random order")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    if a.out.exists() and any(a.out.iterdir()):
        parser.error(f"{a.out} is not empty: its maps would be taken for new ones")
    (a.out / "run").mkdir(parents=True)
    convert(a.data, a.out)
    truth, pixel_size = read_volume(a.data / "truth.mrc")
    arguments = command(a.symmetry, 0.8 * len(truth) * pixel_size, a.iterations, a.seed)
    version = subprocess.run(["relion_refine", "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    record: dict[str, object] = {
        "set": a.data.name,
        "seed": a.seed,
        "version": version,
        "machine": processor(),
        "command": " ".join(arguments),
    }
    record |= run(arguments, a.out)
    for each in record["iterations"]:
        path = a.out / f"run/run_it{each['iteration']:03d}_class001.mrc"
        curve, pixel_size = judge(*read_volume(path), a.data)
        each["truth_05"] = resolution_at(curve, pixel_size, 0.5)
        each["truth_0143"] = resolution_at(curve, pixel_size, 0.143)
        each["truth_fsc"] = [round(float(value), 4) for value in curve]
        print({name: value for name, value in each.items() if name != "truth_fsc"}, flush=True)
    (a.out / "relion.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
