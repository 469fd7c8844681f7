"""CryoGAN as an External job in a project of RELION 3.1, and 3D auto-refine from its nodes: resolution and CPU time.

    python benchmarks/relion_job.py ../shared/data/bgal_paper --symmetry D2 --diameter 200 --out PROJECT
    python benchmarks/relion.py ../shared/data/bgal_paper --symmetry D2 --out RELION    # relion_refine --denovo_3dref

`relion_pipeliner` starts both jobs, as its interface does; nothing is changed by hand between them. The map node is
compared with truth.mrc, for the evaluation alone. RELION 3.1 does not read float16 stacks, so the particles are
written anew in float32 first. `relion_job.json` in the project holds the result.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from accuracy import judge, processor
from cryogan.particles import read_volume
from cryogan.validation import resolution_at
from relion import convert

ITERATIONS = 2  # of 3D auto-refine
WRAPPER = """\
import json, pathlib, resource, subprocess, sys
code = subprocess.call([sys.executable, "-m", "cryogan.cli.relion", *sys.argv[1:]])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
pathlib.Path("cpu.json").write_text(json.dumps(used.ru_utime + used.ru_stime))
sys.exit(code)
"""


def make_project(data: Path, project: Path) -> None:
    """Make a project with the particles in the folder of an Extract job, named from the project."""
    job = project / "Extract" / "job001"
    job.mkdir(parents=True)
    convert(data, job)
    star = job / "particles.star"
    star.write_text(star.read_text().replace("@particles.mrcs", "@Extract/job001/particles.mrcs"))
    (project / "default_pipeline.star").write_text("\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 2\n\n")
    (project / "wrapper.py").write_text(WRAPPER)
    (project / "cryogan").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} wrapper.py "$@"\n')
    (project / "cryogan").chmod(0o755)


def run_job(project: Path, kind: str, name: str, form: dict[str, str]) -> None:
    """Add a job with this form to the project, and run it to its end."""
    options = ";".join(f"{label} == {value}" for label, value in form.items())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
    for arguments in (["--addJob", kind, "--addJobOptions", options], ["--RunJobs", name, "--sec_wait_after", "1"]):
        subprocess.run(["relion_pipeliner", *arguments], cwd=project, env=environment, check=True)
    if not (project / name / "RELION_JOB_EXIT_SUCCESS").exists():
        sys.exit((project / name / "run.err").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--diameter", default="200", help="of the mask of 3D auto-refine, A")
    parser.add_argument("--out", type=Path, required=True, help="folder of the project; new")
    a = parser.parse_args()
    make_project(a.data, a.out)
    made, refined = "External/job002/", "Refine3D/job003/"
    form = {
        "External executable:": "./cryogan",
        "Input particles: ": "Extract/job001/particles.star",
        "Param1 - label:": "symmetry",
        "Param1 - value:": a.symmetry,
        "Param2 - label:": "noise",
        "Param2 - value:": str((a.data / "noise.star").resolve()),
    }
    run_job(a.out, "External", made, form)
    form = {
        "Input images STAR file:": f"{made}run/particles.star",
        "Reference map:": f"{made}map.mrc",
        "Reference mask (optional):": f"{made}mask.mrc",
        "Ref. map is on absolute greyscale?": "No",
        "Initial low-pass filter (A):": "20",
        "Symmetry:": a.symmetry,
        "Mask diameter (A):": a.diameter,
        "Number of MPI procs:": "3",
        "Additional arguments:": f"--auto_iter_max {ITERATIONS}",
    }
    run_job(a.out, "Refine3D", refined, form)
    curve, pixel_size = judge(*read_volume(a.out / made / "map.mrc"), a.data)
    record = {
        "set": a.data.name,
        "machine": processor(),
        "cpu_minutes": json.loads((a.out / "cpu.json").read_text()) / 60,
        "truth_05": resolution_at(curve, pixel_size, 0.5),
        "truth_0143": resolution_at(curve, pixel_size, 0.143),
        "refined": sorted(path.name for path in (a.out / refined).glob("run_it*_class001.mrc")),
    }
    (a.out / "relion_job.json").write_text(json.dumps(record, indent=1))
    print(record)


if __name__ == "__main__":
    main()
