"""Runs on a cluster: a batch script for Slurm, an array task for each seed."""

import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from cryogan import __version__
from cryogan.config import Settings
from cryogan.errors import InputError
from cryogan.files import require_new
from cryogan.run.folder import RunFolder
from cryogan.run.inputs import read_inputs, require_images

SCRIPT = "job.sh"
TIME_MARGIN = 3.0  # of the estimate: other cores, a busy file system
MEMORY_MARGIN = 1.5
SPARE_MINUTES = 15.0
SRUN = "--kill-on-bad-exit=1 --wait=0"  # a run is over when a process fails, and not before the last has ended
WARNING_SECONDS = 180  # before the time limit; a step and the checkpoint fit


@dataclass(frozen=True)
class Resources:
    """What each run asks of Slurm, or each process of a run; None: from the estimate, or the cluster's default."""

    cpus: int = 2
    gpus: int = 0
    memory: str | None = None  # as sbatch --mem takes it
    time: str | None = None  # as sbatch --time takes it
    partition: str | None = None
    account: str | None = None
    options: tuple[str, ...] = ()  # other options of sbatch, each as it stands after #SBATCH
    processes: int | None = None  # that srun starts for a run; None: it needs no srun


def batch_script(
    particles: Path,
    out: Path,
    settings: Settings,
    *,
    seeds: Sequence[int],
    resources: Resources,
    noise: Path | None = None,
    data_dir: Path | None = None,
    cache: Path | None = None,
) -> str:
    """A script for sbatch that reconstructs with each of the seeds, in the folders seedN of `out`.

    All input is checked as `cryogan.reconstruct` would, but for the device, which this machine may not have. The
    `cache` is made by the first task; the others wait for it.

    Raises:
        InputError: input that would stop a run; seeds that repeat; GPUs without --device cuda, or the reverse;
            processes that cannot share a run.
    """
    _require_consistent(settings, seeds, resources)
    processes = resources.processes
    threads = max(1, resources.cpus // 2) if processes is None else resources.cpus
    chosen = settings.model_copy(update={"threads": settings.threads or threads})
    plan = read_inputs(particles, noise, data_dir, chosen.model_copy(update={"device": "cpu"})).plan
    if processes is not None:
        require_images(plan, processes)
    minutes, gib = plan.cost.minutes(resources.cpus * (processes or 1)), plan.cost.memory_gib
    minutes = settings.max_minutes or TIME_MARGIN * minutes * (2 if settings.refine else 1)
    folder = out.resolve()
    inputs = [str(particles.resolve())]
    for flag, path in (("--noise", noise), ("--data-dir", data_dir), ("--cache", cache)):
        inputs += [flag, str(path.resolve())] if path else []
    return _template("job.sh.j2").render(
        version=__version__,
        options=(*_requests(resources, out, len(seeds), minutes, gib), "--requeue", *resources.options),
        seeds=" ".join(map(str, seeds)),
        out=shlex.quote(str(folder)),
        launcher="" if processes is None else f"srun --cpus-per-task={resources.cpus} {SRUN} ",
        python=shlex.quote(sys.executable),
        cpus=resources.cpus,
        run_file=RunFolder(folder).record.name,
        inputs=shlex.join(inputs + chosen.flags()),
    )


def _requests(resources: Resources, out: Path, tasks: int, minutes: float, gib_of_half: float) -> list[str]:
    """Options of sbatch for an array job, from what was asked for and the estimated time and memory of a run."""
    asked = {
        "job-name": f"cryogan-{out.name}",
        "array": f"0-{tasks - 1}",
        "output": f"{out.resolve()}/slurm-%A_%a.out",
        "open-mode": "append",
        "ntasks": resources.processes or 1,
        "cpus-per-task": resources.cpus,
        "gpus-per-task": resources.gpus or None,
        **_memory(resources, MEMORY_MARGIN * gib_of_half),
        "time": resources.time or math.ceil(minutes + SPARE_MINUTES),
        "partition": resources.partition,
        "account": resources.account,
        "signal": f"B:USR1@{WARNING_SECONDS}",
    }
    return [f"--{name}={shlex.quote(str(value))}" for name, value in asked.items() if value is not None]


def _require_consistent(settings: Settings, seeds: Sequence[int], resources: Resources) -> None:
    """Refuse seeds that repeat, and resources that no run can use."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError("--seeds needs different numbers from 0, such as --seeds 0 1 2.")
    if (resources.gpus > 0) != settings.device.startswith("cuda"):
        raise InputError("--gpus and --device cuda go together. Give both or neither.")
    if resources.cpus < 1:
        raise InputError("--cpus needs at least 1.")
    processes = resources.processes
    if processes is not None and (processes < 2 or processes % 2):
        raise InputError(f"--processes {processes} cannot be shared out to two half maps. Give an even number.")
    if processes is not None and resources.gpus > 1:
        raise InputError("With --processes each process has one GPU. Give --gpus 1.")


def _template(name: str) -> Template:
    """A template of this package; text is not escaped, as it is not HTML."""
    loader = PackageLoader("cryogan.run", ".")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.get_template(name)


def submit(script: str, out: Path) -> str:
    """Write the script as job.sh into the new folder `out`, and submit it.

    Returns:
        The number of the job.

    Raises:
        InputError: the folder is not empty, there is no Slurm here, or sbatch refuses; nothing is written then.
    """
    require_new(out)
    if shutil.which("sbatch") is None:
        raise InputError("There is no sbatch here. Log in where Slurm is, or give --print for the script alone.")
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    job = out / SCRIPT
    job.write_text(script)
    done = subprocess.run(["sbatch", "--parsable", str(job.resolve())], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        job.unlink()
        if not existed:
            out.rmdir()
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise InputError(f"sbatch refuses the job ({reason}). Change the request, or give --print for the script.")
    return done.stdout.strip().split(";")[0]


def _memory(resources: Resources, gib_of_half: float) -> dict[str, str]:
    """Memory to request: of a node, for both halves; or of each core, for processes that may be on any nodes."""
    if resources.processes is None:
        return {"mem": resources.memory or f"{math.ceil(2 * gib_of_half)}G"}
    mib = 1024 * gib_of_half
    if resources.memory is not None:
        given = re.fullmatch(r"([1-9]\d*)([KMGT]?)", resources.memory, re.IGNORECASE)
        if given is None:
            raise InputError(f"--mem {resources.memory} is no size that --processes can share. Give one such as 8G.")
        mib = int(given[1]) * 1024 ** ("KMGT".index(given[2].upper() or "M") - 1)
    return {"mem-per-cpu": f"{math.ceil(mib / resources.cpus)}M"}
