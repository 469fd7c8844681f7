"""The command line: arguments in, one clear line out when they cannot be used."""

import json
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError
from rich.console import Console

from cryogan import __version__
from cryogan.config import Settings, first_complaint, resolve
from cryogan.errors import InputError, Interrupted, RankFailed
from cryogan.parallel.launch import STOPPING, Launch

if TYPE_CHECKING:
    from cryogan.checking import Report
    from cryogan.refinement.refine import Refined
    from cryogan.run.postprocess import Result

# PyTorch, SciPy and Matplotlib take seconds to import: each command imports what it needs.

app = App(
    name="cryogan",
    version=__version__,
    help="Single-particle cryo-EM maps without poses: a simulator and a critic learn the volume.",
)
app.meta.suppress_keyboard_interrupt = False  # `main` says that there was one
app.register_install_completion_command(
    help="Let bash, zsh or fish complete commands and flags, from the next shell on."
)


def _examples(*commands: str) -> str:
    """For the end of a command's help, as Markdown that keeps the lines."""
    return "\n".join(["Examples:", "", *(f"    {command}" for command in commands)])


Say = Annotated[Console | None, Parameter(parse=False)]  # where a command says how it goes: standard error

# What several commands take.
Noise = Annotated[Path | None, Parameter(help="STAR or .cs of background patches that names their micrographs.")]
DataDir = Annotated[Path | None, Parameter(help="Where else to look for image stacks and micrographs.")]
Preset = Annotated[
    str | None,
    Parameter(
        help="default (taken if nothing is said); paper or paper-experimental: the numbers of the paper's synthetic or "
        "real-data experiment."
    ),
]
Config = Annotated[
    Path | None,
    Parameter(help="TOML file of settings, such as the run.toml of another run; flags go before it."),
]
Flags = Annotated[Settings | None, Parameter(name="*")]


def _given(flags: Settings | None) -> dict[str, Any]:
    """The settings that stand on the command line."""
    return flags.model_dump(include=flags.model_fields_set) if flags else {}


@dataclass(frozen=True)
class Answer:
    """What a command found, for a reader and for a program (--json)."""

    values: Mapping[str, Any]
    text: Sequence[str] = field(default=())


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Run a command.

    Parameters
    ----------
    quiet
        Say nothing on standard error but what went wrong.
    as_json
        Write one JSON object to standard output; {"error": ...} if something went wrong.
    """
    command, bound, unparsed = app.parse_args(tokens, exit_on_error=False, print_error=False)
    if "console" in unparsed:
        bound.arguments["console"] = Console(stderr=True, quiet=quiet)
    answer = command(*bound.args, **bound.kwargs)
    if isinstance(answer, Answer):
        for line in [json.dumps(_plain(answer.values))] if as_json else answer.text:
            print(line, flush=True)


def _plain(value: Any) -> Any:
    """The same in JSON's types; what is not finite is null."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


@app.command(
    name="reconstruct",
    help_epilogue=_examples(
        "cryogan reconstruct particles.star --noise noise.star --symmetry D2 --out run",
        "cryogan reconstruct --resume run",
    ),
)
def reconstruct_command(
    particles: Path | None = None,
    *,
    out: Path | None = None,
    noise: Noise = None,
    data_dir: DataDir = None,
    cache: Path | None = None,
    preset: Preset = None,
    config: Config = None,
    resume_from: Annotated[Path | None, Parameter(name="--resume")] = None,
    settings: Flags = None,
    console: Say = None,
) -> Answer | None:
    """Two half maps from particles, their FSC, and one map.

    Parameters
    ----------
    particles
        RELION STAR (3.0 or 3.1) or cryoSPARC .cs, with CTF.
    out
        Folder for the results; new or empty.
    cache
        Folder where particles and background patches are kept at the working box, cropped once, for this run and
        later ones; for large sets, or large boxes.
    resume_from
        Go on with the run in this folder.
    """
    from cryogan.parallel.job import joined
    from cryogan.refinement.refine import refine
    from cryogan.run.plan import Plan
    from cryogan.run.processes import follow
    from cryogan.run.reconstruct import reconstruct, resume

    flags = _given(settings)
    with joined() as job:
        if job is not None and job.rank > 0:
            follow(resume_from or out, job)
            return None
        if resume_from is not None:
            if particles or out or noise or data_dir or cache or preset or config or flags:
                raise InputError("--resume takes its particles and settings from the run's folder; give nothing else.")
            result = resume(resume_from, console=console, job=job)
            chosen = Plan.read(resume_from).settings
        elif particles is None or out is None:
            raise InputError("Give the particles and a folder: cryogan reconstruct particles.star --out DIR.")
        else:
            chosen = resolve(preset or "default", config, flags)
            result = reconstruct(
                particles, out, chosen, noise=noise, data_dir=data_dir, cache=cache, console=console, job=job
            )
    values = _of_run(result)
    if chosen.refine:
        values["refined"] = _of_refinement(refine(result.folder, console=console))
    return Answer(values)


def _of_run(result: "Result") -> dict[str, Any]:
    classes = [
        {"folder": each.folder, "share": each.share, "particles": each.particles, "resolution_A": each.resolution}
        for each in result.classes
    ]
    return {
        "folder": result.folder,
        "map": result.folder / "map.mrc",
        "report": result.folder / "report.html",
        "resolution_A": result.resolution,
        "resolution_unmasked_A": result.resolution_unmasked,
        "correlation_of_halves": result.alignment.correlation,
        "correlation_other_hand": result.alignment.correlation_other_hand,
        "converged": result.convergence.reached,
        "convergence": result.convergence.sentence,
        "findings": [vars(finding) for finding in result.findings],
        **({"classes": classes} if classes else {}),
    }


def _of_refinement(result: "Refined") -> dict[str, Any]:
    return {
        "folder": result.folder,
        "map": result.folder / "map.mrc",
        "particles": result.folder / "particles.star",
        "resolution_A": result.resolution,
        "resolution_unmasked_A": result.resolution_unmasked,
    }


@app.command(
    name="submit",
    help_epilogue=_examples("cryogan submit particles.star --noise noise.star --seeds 0 1 --out runs --print"),
)
def submit_command(
    particles: Path,
    *,
    out: Path,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    print_only: Annotated[bool, Parameter(name="--print", negative="")] = False,
    processes: int | None = None,
    cpus: int = 2,
    gpus: int = 0,
    mem: str | None = None,
    time: str | None = None,
    partition: str | None = None,
    account: str | None = None,
    sbatch: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True)] = None,
    noise: Noise = None,
    data_dir: DataDir = None,
    cache: Path | None = None,
    preset: Preset = None,
    config: Config = None,
    settings: Flags = None,
) -> Answer:
    """Reconstruct on a cluster with Slurm: a job with one task for each seed, which goes on after preemption.

    Parameters
    ----------
    particles
        As for reconstruct, and so are noise, data_dir, cache, preset, config and all settings.
    out
        Folder for job.sh, and the runs seed0, seed1, ...; new or empty.
    seeds
        A run for each. Default: --seed.
    print_only
        Print the script and submit nothing.
    processes
        How many share a run, on one node or several: an even number, half of them for each half map. --cpus, --gpus
        and --mem are then those of each process. Default: a run is one task on one node.
    cpus
        Cores for each run.
    gpus
        GPUs for each run, with --device cuda; 1 with --processes.
    mem
        Memory for each run, such as 8G. Default: 1.5 times the estimate of check.
    time
        Time limit as Slurm takes it, such as 2:00:00. Default: 3 times the estimate, and a quarter of an hour.
    partition
        Of the cluster.
    account
        To be charged.
    sbatch
        Another option of sbatch, such as --sbatch=--qos=long; may be repeated.
    cache
        Folder for the particles at the working box, cropped by the first task for all of them.
    """
    from cryogan.run.slurm import Resources, batch_script, submit

    flags = _given(settings)
    if seeds and "seed" in flags:
        raise InputError("Give --seed or --seeds, not both.")
    chosen = resolve(preset or "default", config, flags)
    script = batch_script(
        particles,
        out,
        chosen,
        seeds=seeds or [chosen.seed],
        resources=Resources(cpus, gpus, mem, time, partition, account, tuple(sbatch or ()), processes),
        noise=noise,
        data_dir=data_dir,
        cache=cache,
    )
    if print_only:
        return Answer({"script": script}, script.splitlines())
    job = submit(script, out)
    said = [
        f"Submitted as job {job}; the runs go to {out / 'seed'}*.",
        f"State: squeue -j {job}. Stop with checkpoints: scancel {job}. Go on: sbatch {out / 'job.sh'}",
    ]
    return Answer({"job": job, "folder": out}, said)


@app.command(
    name="check", help_epilogue=_examples("cryogan check particles.star --noise noise.star --picture particles.png")
)
def check_command(
    particles: Path,
    *,
    noise: Noise = None,
    data_dir: DataDir = None,
    picture: Path | None = None,
    preset: Preset = None,
    config: Config = None,
    settings: Flags = None,
) -> Answer:
    """What is in the particles, what a run would take, and what is doubtful; nothing is computed.

    Parameters
    ----------
    particles
        As for reconstruct, and so are the other arguments.
    picture
        PNG of 16 particles to write.
    """
    from cryogan.checking import check

    chosen = resolve(preset or "default", config, _given(settings))
    return _of_report(check(particles, chosen, noise, data_dir, picture))


@app.command(
    name="extract-noise", help_epilogue=_examples("cryogan extract-noise micrographs.star particles.star --out noise")
)
def extract_noise_command(
    micrographs: Path,
    particles: Path,
    *,
    out: Path,
    particle_diameter: float | None = None,
    data_dir: DataDir = None,
    console: Say = None,
) -> Answer:
    """Background patches from micrographs, for reconstruct --noise.

    Parameters
    ----------
    micrographs
        RELION micrograph STAR; MRC or TIFF images.
    particles
        STAR of the particles, with their coordinates in the micrographs.
    out
        Folder for noise.star, its stacks and a picture of each micrograph; new or empty.
    particle_diameter
        A circle of this diameter, A, about each particle is kept out. Default: half of the box.
    """
    from cryogan.extraction import extract_noise

    star = extract_noise(
        micrographs, particles, out, particle_diameter=particle_diameter, data_dir=data_dir, console=console
    )
    return Answer({"folder": out, "noise": star})


@app.command(
    name="extract-patches", help_epilogue=_examples("cryogan extract-patches micrographs.star --box 32 --out patches")
)
def extract_patches_command(
    micrographs: Path,
    *,
    out: Path,
    box: int,
    overlap: float = 0.5,
    seed: int = 0,
    data_dir: DataDir = None,
    console: Say = None,
) -> Answer:
    """Patches cut anywhere from micrographs, without picking, for reconstruct --particles-per-um2. Experimental.

    Parameters
    ----------
    micrographs
        RELION micrograph STAR with CTFs, such as micrographs_ctf.star; MRC or TIFF images.
    out
        Folder for particles.star, noise.star and their stacks; new or empty.
    box
        Side of a patch, pixels of the micrographs; twice the particle's diameter is good.
    overlap
        Share of its side that a patch's neighbour has too.
    seed
        Of where the grids of patches begin.
    """
    from cryogan.extraction import extract_patches

    star = extract_patches(micrographs, out, box=box, overlap=overlap, seed=seed, data_dir=data_dir, console=console)
    return Answer({"folder": out, "patches": star, "noise": out / "noise.star"})


@app.command(name="doctor", help_epilogue=_examples("cryogan doctor", "cryogan doctor --json"))
def doctor_command() -> Answer:
    """The installation: versions, devices, threads, disk."""
    from cryogan.checking import doctor

    return _of_report(doctor())


def _of_report(report: "Report") -> Answer:
    width = max(len(name) for name in report.facts)
    text = [f"{name:{width}s}  {fact}" for name, fact in report.facts.items()]
    text += [f"Look again: {doubt}" for doubt in report.doubts]
    findings = [vars(finding) for finding in report.findings]
    return Answer({"facts": report.facts, "doubts": report.doubts, "findings": findings}, text)


@app.command(name="figures", help_epilogue=_examples("cryogan figures run"))
def figures_command(run: Path) -> Answer:
    """Draw the figures of a finished run anew: Figures 2 and 3 of the paper, from the run's records.

    Parameters
    ----------
    run
        Folder of a finished `cryogan reconstruct`; they go to its figures.
    """
    from cryogan.run.reconstruct import figures

    return Answer(_of_run(figures(run)))


@app.command(name="poses", help_epilogue=_examples("cryogan poses run"))
def poses_command(run: Path, *, out: Path | None = None, console: Say = None) -> Answer:
    """A pose for each particle of a finished run, from its own half map.

    Parameters
    ----------
    run
        Folder of a finished `cryogan reconstruct`.
    out
        Folder for particles.star, particles.cs and pictures. Default: poses in the run's folder.
    """
    from cryogan.refinement.refine import find_poses

    folder = find_poses(run, out, console=console)
    return Answer({"folder": folder, "particles": folder / "particles.star"})


@app.command(name="refine", help_epilogue=_examples("cryogan refine run"))
def refine_command(run: Path, *, out: Path | None = None, console: Say = None) -> Answer:
    """Refine the half maps of a finished run with the poses of its particles.

    Parameters
    ----------
    run
        Folder of a finished `cryogan reconstruct`.
    out
        Folder for maps, FSC and poses. Default: refined in the run's folder.
    """
    from cryogan.refinement.refine import refine

    return Answer(_of_refinement(refine(run, out, console=console)))


@app.command(name="watch", help_epilogue=_examples("cryogan watch run"))
def watch_command(run: Path, *, host: str = "127.0.0.1", port: int = 8642) -> None:
    """A page of a run in the browser, while it runs or later: maps, slices, critic, FSC, log, and a stop button.

    Parameters
    ----------
    run
        Folder of `cryogan reconstruct`.
    host
        Address to listen on. Beyond this machine, the page opens only with the token in the printed address.
    port
        Where to listen; 0: any that is free.
    """
    from cryogan.watch import watch

    watch(run, host, port)


@app.command(
    name="simulate",
    help_epilogue=_examples(
        "cryogan simulate --box 32 --pixel-size 4 --particles 400 --out set",
        "cryogan simulate --volume map.mrc --particles 100 --snr 0.2 --out set_of_map",
        "cryogan simulate --volume a.mrc --volume b.mrc --particles 100 --out both",
    ),
)
def simulate_command(
    *,
    out: Path,
    model: Path | None = None,
    volume: list[Path] | None = None,
    resolution: float = 5.0,
    box: int = 64,
    pixel_size: float = 3.822,
    poses: Path | None = None,
    particles: int = 5000,
    noise: Literal["coloured", "white", "poisson", "none"] = "coloured",
    dose: float = 20.0,
    snr: float = 0.5,
    max_shift: float = 10.0,
    micrographs: int = 100,
    write_micrographs: bool = False,
    particles_per_um2: float | None = None,
    seed: int = 0,
) -> Answer:
    """Particles of an atomic model, of a map, or (with neither) of a phantom with D2 symmetry.

    Parameters
    ----------
    out
        Folder for particles, noise patches and truth; new or empty.
    model
        Atomic model, mmCIF or PDB, also gzipped.
    volume
        Map, MRC; box and pixel size are the map's. Given again for other maps, which the particles show in turn.
    resolution
        Of the map made from the model, A.
    box
        Pixels.
    pixel_size
        A.
    poses
        STAR with poses, shifts and CTF to use instead of random ones.
    particles
        How many.
    noise
        coloured, white, poisson (counted electrons) or none.
    dose
        Electrons per square A, for --noise poisson.
    snr
        Variance of the signal within the particle's circle over that of the noise.
    max_shift
        Half width of the triangular distribution of shifts, A.
    micrographs
        How many the particles are spread over.
    write_micrographs
        Write them too, with the particles at known places, instead of noise patches; for extract-noise.
    particles_per_um2
        Of the micrographs; they then stand anywhere, by chance one over another, and
        their CTF reaches out of their box; for extract-patches.
    seed
        Of everything random.
    """
    import numpy as np

    from cryogan.models.density import density_from_model, phantom
    from cryogan.particles import read_volume
    from cryogan.simulation import simulate

    if model is not None and volume:
        raise InputError("Give --model or --volume, not both.")
    if box < 16 or box % 2 or particles < 1 or micrographs < 1 or pixel_size <= 0 or snr <= 0 or dose <= 0:
        raise InputError("Box: an even number from 16; particles, micrographs, pixel size, SNR and dose: above 0.")
    if volume:
        densities, pixel_sizes = zip(*map(read_volume, volume), strict=True)
        if len({(each.shape, size) for each, size in zip(densities, pixel_sizes, strict=True)}) > 1:
            raise InputError("The maps given with --volume differ in box or pixel size; resample them.")
        density, pixel_size = np.concatenate([each[None] for each in densities]), pixel_sizes[0]
    elif model is not None:
        density = density_from_model(model, resolution, box, pixel_size, orient=True)
    else:
        density = phantom(box, pixel_size, seed)
    simulate(
        density,
        pixel_size,
        out,
        count=particles,
        poses=poses,
        noise=noise,
        dose=dose,
        snr=snr,
        max_shift=max_shift,
        micrographs=micrographs,
        write_micrographs=write_micrographs,
        particles_per_um2=particles_per_um2,
        seed=seed,
    )
    truth = out / ("truth.mrc" if not volume or len(volume) == 1 else "truth1.mrc")
    made = {"particles": out / "particles.star", "truth": truth, "poses": out / "truth.star"}
    return Answer({"folder": out} | made | ({} if noise == "none" else {"noise": out / "noise.star"}))


@app.command(name="align", help_epilogue=_examples("cryogan align map.mrc reference.mrc --out aligned.mrc"))
def align_command(map: Path, reference: Path, *, out: Path) -> Answer:
    """Bring a map into the frame and hand of a reference.

    Parameters
    ----------
    map
        The map to move, MRC.
    reference
        The map that stays, MRC.
    out
        The moved map, on the reference's grid.
    """
    import numpy as np

    from cryogan.particles import read_volume, write_volume
    from cryogan.validation import align, resample

    moving, moving_pixel = read_volume(map)
    fixed, pixel_size = read_volume(reference)
    if moving.shape != fixed.shape or abs(moving_pixel / pixel_size - 1) > 1e-4:
        moving = resample(moving, moving_pixel, len(fixed), pixel_size).astype(np.float32)
    alignment = align(moving, fixed, pixel_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_volume(out, alignment.apply(moving, pixel_size), pixel_size)
    x, y, z = alignment.shift_A
    return Answer(
        {
            "map": out,
            "correlation": alignment.correlation,
            "correlation_other_hand": alignment.correlation_other_hand,
            "mirrored": alignment.mirrored,
            "shift_A": alignment.shift_A.tolist(),
            "rotation": alignment.rotation.tolist(),
        },
        [
            f"Correlation {alignment.correlation:.4f} (other hand {alignment.correlation_other_hand:.4f}); "
            f"{'mirrored, ' if alignment.mirrored else ''}shifted by ({x:.2f}, {y:.2f}, {z:.2f}) A; rotation",
            str(alignment.rotation.round(4)),
        ],
    )


@app.command(name="flip-hand", help_epilogue=_examples("cryogan flip-hand map.mrc --out other_hand.mrc"))
def flip_hand_command(map: Path, *, out: Path) -> Answer:
    """The other hand of a map: x to -x, as `relion_image_handler --invert_hand`.

    Parameters
    ----------
    map
        MRC.
    out
        The mirrored map.
    """
    from cryogan.particles import read_volume, write_volume
    from cryogan.validation import flip_hand

    volume, pixel_size = read_volume(map)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_volume(out, flip_hand(volume), pixel_size)
    return Answer({"map": out})


@app.command(name="symmetrise", help_epilogue=_examples("cryogan symmetrise map.mrc D2 --out map_d2.mrc"))
def symmetrise_command(map: Path, symmetry: str, *, out: Path) -> Answer:
    """Find the symmetry axes of a map, bring them to RELION's setting, and average over the point group.

    Parameters
    ----------
    map
        MRC, in any frame.
    symmetry
        Point group: Cn, Dn, T, O, I, I1 to I4.
    out
        The symmetric map.
    """
    import torch

    from cryogan.particles import read_volume, write_volume
    from cryogan.physics.symmetry import Symmetriser
    from cryogan.validation import find_axes

    volume, pixel_size = read_volume(map)
    found = find_axes(volume, pixel_size, symmetry)
    placed = torch.from_numpy(found.apply(volume, pixel_size)).float()
    average = Symmetriser(symmetry, len(volume), device=torch.device("cpu"))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_volume(out, average(placed).numpy(), pixel_size)
    return Answer(
        {"map": out, "correlation": found.correlation},
        [f"The map and its copies under {symmetry} correlate {found.correlation:.3f}."],
    )


@app.command(name="fsc", help_epilogue=_examples("cryogan fsc half1.mrc half2.mrc --mask mask.mrc --out fsc"))
def fsc_command(half1: Path, half2: Path, *, out: Path, mask: Path | None = None, seed: int = 0) -> Answer:
    """Fourier shell correlation of two maps in the same frame.

    Parameters
    ----------
    half1
        MRC.
    half2
        MRC.
    out
        Folder for fsc.star, fsc.csv and fsc.png.
    mask
        Soft mask, MRC; with it come the masked, phase-randomised and corrected curves.
    seed
        Of the random phases.
    """
    from cryogan.particles import read_volume
    from cryogan.report import draw_fsc
    from cryogan.run.folder import MapFolder
    from cryogan.run.maps import write_fsc
    from cryogan.validation import fsc_curves, resolution_at

    (first, pixel_size), (second, other) = read_volume(half1), read_volume(half2)
    if abs(other / pixel_size - 1) > 1e-4:
        raise InputError(f"{half1} has {pixel_size:.4f} A/px, {half2} {other:.4f}; resample one with cryogan align.")
    curves = fsc_curves(first, second, pixel_size, None if mask is None else read_volume(mask)[0], seed)
    out.mkdir(parents=True, exist_ok=True)
    write_fsc(MapFolder(out), curves)
    shown = {"unmasked": curves.unmasked}
    if mask is not None:
        shown |= {"masked": curves.masked, "phase-randomised": curves.phase_randomised, "corrected": curves.corrected}
    draw_fsc(out / "fsc.png", curves.frequency, shown, pixel_size)
    at = {
        name: {level: resolution_at(curve, pixel_size, level, len(first)) for level in (0.5, 0.143)}
        for name, curve in shown.items()
    }
    text = [
        f"{name:17s} {', '.join(f'{A:.2f} A at {level}' for level, A in each.items())}" for name, each in at.items()
    ]
    return Answer({"folder": out, "resolution_A": at}, text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; input that cannot be used is one line on standard error and exit code 2."""
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    for number in STOPPING:  # how batch systems say Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        app.meta(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except BrokenPipeError:  # `cryogan check ... | head`: whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        sys.exit(128 + signal.SIGPIPE)
    except (InputError, CycloptsError, OSError) as error:  # OSError: a full disk, a folder without permission
        cause = error.__cause__
        if not _says_another(error):
            _end(first_complaint(cause) if isinstance(cause, ValidationError) else str(error), 2, tokens)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt) as error:
        if not _says_another(error):
            _end(str(error) or "Interrupted.", 130, tokens)
        sys.exit(130)
    except (RuntimeError, MemoryError) as error:
        from cryogan.critics.micro_batch import OUT_OF_MEMORY, is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _end(OUT_OF_MEMORY, 2, tokens)


def _says_another(error: BaseException) -> bool:
    """Of the processes of a distributed job rank 0 speaks, and a process that fails alone."""
    launch = Launch.detect()
    return launch is not None and launch.rank > 0 and not isinstance(error, RankFailed)


def _end(complaint: str, code: int, tokens: Sequence[str]) -> None:
    if "--json" in tokens:
        print(json.dumps({"error": complaint}))
    else:
        said, style = (f"cryogan: {complaint}", "red") if code == 2 else (complaint, None)
        Console(stderr=True).print(said, style=style, highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
