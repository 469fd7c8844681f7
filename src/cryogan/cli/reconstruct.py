"""Commands that make or show a run: reconstruct, submit, figures, watch."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from cryogan.cli.app import NOT_RESOLVED, Answer, DataDir, Noise, Say, Strict, app, examples
from cryogan.cli.flags import Config, Flags, Preset, chosen_settings, given
from cryogan.cli.help import RARE
from cryogan.cli.poses import of_refinement
from cryogan.errors import InputError

Cache = Annotated[
    Path | None,
    Parameter(
        help="Folder where particles and background patches are kept, downsampled once to the working box, for this "
        "run and later ones; for large sets, or large boxes.",
        group=RARE,
    ),
]

if TYPE_CHECKING:
    from cryogan.config import Settings
    from cryogan.run.postprocess import Result
    from cryogan.run.repeats import Repeats
    from cryogan.run.verdict import Verdict


@app.command(
    name="reconstruct",
    help_epilogue=examples(
        "cryogan reconstruct particles.star --out run",
        "cryogan reconstruct --resume run",
        "cryogan reconstruct particles.star --repeats 3 --out repeats",
        more=True,
    ),
)
def reconstruct_command(
    particles: Path | None = None,
    *,
    out: Path | None = None,
    noise: Noise = None,
    data_dir: DataDir = None,
    cache: Cache = None,
    preset: Preset = None,
    config: Config = None,
    resume_from: Annotated[Path | None, Parameter(name="--resume")] = None,
    repeats: int | None = None,
    strict: Strict = False,
    settings: Flags = None,
    console: Say = None,
) -> Answer | None:
    """Reconstruct two half maps from particles, their FSC, and one map.

    Args:
        particles: RELION STAR (3.0 or 3.1) or cryoSPARC .cs, with CTF.
        out: Folder for the results; new or empty.
        resume_from: Continue the run, or the repeats, in this folder.
        repeats: Make this many runs from different seeds, and compare them; best in --out is the best of them.
    """
    from cryogan.parallel.job import joined
    from cryogan.run.plan import Plan
    from cryogan.run.processes import follow
    from cryogan.run.reconstruct import reconstruct, resume
    from cryogan.run.repeats import Repeats, RepeatsFolder

    with joined() as job:
        if job is not None and repeats is not None:
            raise InputError(
                "--repeats makes its runs in one process. Give each launcher a --seed; cryogan compare then."
            )
        if job is not None and job.rank > 0:
            follow(resume_from or out, job)
            return None
        if resume_from is not None:
            if particles or out or noise or data_dir or cache or preset or config or repeats or given(settings):
                raise InputError("--resume takes its particles and settings from the run's folder. Give nothing else.")
            if RepeatsFolder(resume_from).is_repeats and job is None:
                return _repeated(RepeatsFolder(resume_from).read(), resume_from, strict, console)
            result = resume(resume_from, console=console, job=job)
            chosen = Plan.read(resume_from).settings
        elif particles is None or out is None:
            raise InputError("Give the particles and a folder: cryogan reconstruct particles.star --out DIR.")
        else:
            chosen = chosen_settings(preset, config, settings)
            if repeats is not None:
                return _repeated(Repeats(repeats, chosen, particles, noise, data_dir, cache), out, strict, console)
            result = reconstruct(
                particles, out, chosen, noise=noise, data_dir=data_dir, cache=cache, console=console, job=job
            )
    return _finished(result, chosen, strict, console, alone=job is None)


def _finished(result: "Result", chosen: "Settings", strict: bool, console: Console | None, *, alone: bool) -> Answer:
    """Judge a run, and refine it, if that is wished."""
    from cryogan.refinement.finish import finish
    from cryogan.refinement.refine import refine

    result, verdict = finish(result, chosen, console, alone=alone)
    values = _of_run(result)
    text = [f"What came out, and what to do next: {values['report']}", *_with_symmetry(result)]
    if chosen.refine:
        values["refined"] = of_refinement(refine(result.folder, console=console))
    elif chosen.kind == "particles":
        text.append(f"Orientations, and a sharper map: cryogan refine {shlex.quote(str(result.folder))}")
    return Answer(values, text, _exit_code(verdict, strict))


def _with_symmetry(result: "Result") -> list[str]:
    """Return the command that uses the suggested symmetry, if there is one."""
    from cryogan.run.folder import RunFolder
    from cryogan.run.handover import with_symmetry
    from cryogan.run.plan import Plan
    from cryogan.run.symmetry import read_symmetry

    folder = RunFolder(result.folder)
    found = read_symmetry(folder)
    if found is None or found.suggested is None:
        return []
    command = with_symmetry(folder, Plan.read(folder.path), found.suggested)
    return [f"With the symmetry {found.suggested}, if it is that of the molecule: {command}"]


def _exit_code(verdict: "Verdict | None", strict: bool) -> int:
    return NOT_RESOLVED if strict and not (verdict and verdict.is_resolved) else 0


def _repeated(repeats: "Repeats", out: Path, strict: bool, console: Console | None) -> Answer:
    """Make repeats of a run, or go on with them, and refine the best, if that is wished."""
    from cryogan.cli.compare import of_comparison
    from cryogan.refinement.refine import refine
    from cryogan.refinement.repeats import reconstruct_repeats
    from cryogan.run.folder import RunFolder
    from cryogan.run.verdict import read_verdict

    comparison = reconstruct_repeats(repeats, out, console=console)
    best, verdict, values = comparison.best, None, {}
    if best is not None:
        folder = RunFolder(best.folder)
        verdict = read_verdict(folder)
        values = verdict.values if verdict else {}
        values |= {"map": folder.map, "report": folder.report, "resolution_A": best.resolution}
        if repeats.settings.refine and not folder.refined.map.exists():
            values["refined"] = of_refinement(refine(best.folder, console=console))
    values |= of_comparison(comparison, out)
    return Answer(values, comparison.table(), _exit_code(verdict, strict))


def _of_run(result: "Result") -> dict[str, Any]:
    from cryogan.run.folder import RunFolder
    from cryogan.run.symmetry import read_symmetry
    from cryogan.run.verdict import read_verdict

    folder = RunFolder(result.folder)
    verdict, symmetry = read_verdict(folder), read_symmetry(folder)
    findings = list(verdict.beside(result.findings) if verdict else result.findings)
    findings += symmetry.findings if symmetry else []
    classes = [
        {"folder": one.folder, "share": one.share, "particles": one.particles, "resolution_A": one.resolution}
        for one in result.classes
    ]
    return {
        **(verdict.values if verdict else {}),
        "folder": folder.path,
        "map": folder.map,
        "report": folder.report,
        "resolution_A": result.resolution,
        "resolution_unmasked_A": result.resolution_unmasked,
        "correlation_of_halves": result.alignment.correlation,
        "correlation_other_hand": result.alignment.correlation_other_hand,
        **result.detail.values,
        "converged": result.convergence.reached,
        "convergence": result.convergence.sentence,
        "findings": [vars(finding) for finding in findings],
        **({"symmetry": symmetry.values} if symmetry else {}),
        **({"classes": classes} if classes else {}),
    }


@app.command(
    name="submit",
    help_epilogue=examples(
        "cryogan submit particles.star --noise noise.star --seeds 0 1 --out runs --print", more=True
    ),
)
def submit_command(
    particles: Path,
    *,
    out: Path,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    print_only: Annotated[bool, Parameter(name="--print", negative="")] = False,
    processes: Annotated[int | None, Parameter(group=RARE)] = None,
    cpus: int = 2,
    gpus: int = 0,
    mem: str | None = None,
    time: str | None = None,
    partition: str | None = None,
    account: Annotated[str | None, Parameter(group=RARE)] = None,
    sbatch: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True, group=RARE)] = None,
    noise: Noise = None,
    data_dir: DataDir = None,
    cache: Cache = None,
    preset: Preset = None,
    config: Config = None,
    settings: Flags = None,
) -> Answer:
    """Reconstruct on a cluster with Slurm, a task for each seed.

    Args:
        particles: As for reconstruct, and so are noise and all settings.
        out: Folder for job.sh and runs seed0, seed1, ...; new or empty.
        seeds: Seeds of the runs, one run each. Default: --seed.
        print_only: Print the script and submit nothing.
        processes: Number of processes that share a run, on one node or several: an even number, half of them for each
            half map. --cpus, --gpus and --mem are then those of each process. Default: a run is one task on one node.
        cpus: Cores for each run.
        gpus: GPUs for each run, with --device cuda; 1 with --processes.
        mem: Memory for each run, such as 8G. Default: 1.5 times the estimate.
        time: Time limit, such as 2:00:00. Default: 3 times the estimate plus 15 min.
        partition: Partition of the cluster.
        account: Account to be charged.
        sbatch: Another option of sbatch, such as --sbatch=--qos=long; may be repeated.
    """
    from cryogan.run.slurm import Resources, batch_script, submit

    if seeds and "seed" in given(settings):
        raise InputError("Give --seed or --seeds, not both.")
    chosen = chosen_settings(preset, config, settings)
    resources = Resources(cpus, gpus, mem, time, partition, account, tuple(sbatch or ()), processes)
    inputs = {"noise": noise, "data_dir": data_dir, "cache": cache}
    script = batch_script(particles, out, chosen, seeds=seeds or [chosen.seed], resources=resources, **inputs)
    if print_only:
        return Answer({"script": script}, script.splitlines())
    job = submit(script, out)
    text = [
        f"Submitted as job {job}; the runs go to {out / 'seed'}*.",
        f"State: squeue -j {job}. Stop with checkpoints: scancel {job}. Continue: sbatch {out / 'job.sh'}",
    ]
    return Answer({"job": job, "folder": out}, text)


@app.command(name="figures", help_epilogue=examples("cryogan figures run"))
def figures_command(run: Path) -> Answer:
    """Draw the figures of a finished run again, from the run's records.

    Args:
        run: Folder of a finished `cryogan reconstruct`; the figures go to its folder figures.
    """
    from cryogan.run.reconstruct import figures

    return Answer(_of_run(figures(run)))


@app.command(name="watch", help_epilogue=examples("cryogan watch run"))
def watch_command(run: Path, *, host: str = "127.0.0.1", port: int = 8642, prefix: str = "") -> None:
    """Show a run in the browser, live or later, with a button that stops it.

    Args:
        run: Folder of `cryogan reconstruct`.
        host: Address to listen on. The page opens only with the token in the printed address.
        port: Port to listen on; 0: any that is free.
        prefix: Path under which a proxy shows the page, such as /node/HOST/PORT.
    """
    from cryogan.watch import watch

    watch(run, host, port, prefix)
