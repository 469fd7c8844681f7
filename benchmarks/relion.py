"""RELION's initial model, and its refinement, on the same particles: resolution against CPU time.

    python benchmarks/relion.py ../shared/data/ribo_c1 --symmetry C1 --out RELION
    python benchmarks/relion.py ../shared/data/ribo_c1 --symmetry C1 --reference MAP --out REFINED

`relion_refine` runs its stochastic gradient descent, or from a reference its auto-refinement of two half sets, with
the defaults of RELION 3.1's interface. Each map that it writes is aligned to truth.mrc afterwards, in both hands, for
the evaluation alone; `relion.json` holds the result. Ctrl-C or SIGTERM ends RELION early; the maps until then are
judged. RELION 3.1 does not read float16 stacks, so the particles are written anew in float32 first.
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


def initial_model(symmetry: str, diameter: float, iterations: int, seed: int) -> list[str]:
    """The interface's defaults, its 50 + 200 + 50 iterations scaled."""
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


def refinement(symmetry: str, diameter: float, reference: Path, seed: int) -> list[str]:
    """The interface's defaults, with the half sets in two processes beside the one that leads them."""
    options = {
        "i": "particles.star",
        "o": "run/run",
        "ref": reference.resolve(),
        "ini_high": 40,
        "particle_diameter": round(diameter),
        "oversampling": 1,
        "healpix_order": 2,
        "auto_local_healpix_order": 4,
        "offset_range": 5,
        "offset_step": 2,
        "sym": symmetry,
        "low_resol_join_halves": 40,
        "norm": "",
        "scale": "",
        "pad": 1,
        "j": 1,
        "random_seed": seed,
    }
    flags = ["--auto_refine", "--split_random_halves", "--ctf", "--zero_mask", "--flatten_solvent", "--firstiter_cc"]
    words = [text for name, value in options.items() for text in (f"--{name}", str(value)) if text]
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", "relion_refine_mpi", *flags, *words]


def cpu_seconds(pid: int) -> float:
    """User and system time of a running process and, of the processes that it runs, the half sets'.

    The first of mpirun's processes only waits for the others, which takes all of a core.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(cpu_seconds(int(child)) for child in children[1:])


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
                # Of a refinement the second half's map is the later one.
                maps = {*out.glob("run/run_it???_class001.mrc"), *out.glob("run/run_it???_half2_class001.mrc")}
                for path in sorted(maps - known):
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
    parser.add_argument("--reference", type=Path, help="refine from this map, instead of an initial model")
    parser.add_argument("--seed", type=int, default=1, help="RELION takes 0 for no random order")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    if a.out.exists() and any(a.out.iterdir()):
        parser.error(f"{a.out} is not empty: its maps would be taken for new ones")
    (a.out / "run").mkdir(parents=True)
    convert(a.data, a.out)
    truth, pixel_size = read_volume(a.data / "truth.mrc")
    diameter = 0.8 * len(truth) * pixel_size
    if a.reference is None:
        arguments = initial_model(a.symmetry, diameter, a.iterations, a.seed)
    else:
        arguments = refinement(a.symmetry, diameter, a.reference, a.seed)
    version = subprocess.run(["relion_refine", "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    record: dict[str, object] = {
        "set": a.data.name,
        "seed": a.seed,
        "version": version,
        "machine": processor(),
        "command": " ".join(arguments),
    }
    record |= run(arguments, a.out)
    for iteration in record["iterations"]:
        maps = sorted((a.out / "run").glob(f"run_it{iteration['iteration']:03d}_*class001.mrc"))
        volumes = [read_volume(path)[0] for path in maps]  # one, or those of the halves
        curve, pixel_size = judge(sum(volumes) / len(volumes), pixel_size, a.data)
        iteration["truth_05"] = resolution_at(curve, pixel_size, 0.5)
        iteration["truth_0143"] = resolution_at(curve, pixel_size, 0.143)
        iteration["truth_fsc"] = [round(float(value), 4) for value in curve]
        print({name: value for name, value in iteration.items() if name != "truth_fsc"}, flush=True)
    (a.out / "relion.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
