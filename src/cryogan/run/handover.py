"""The commands with which people go on from a run, in this program and in others: README.txt and the report print them.

Paths are those that hold in the folder where the run was started. RELION looks for images from its current folder, so
its commands begin by going to the folder where the images were found, if that is another.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

from cryogan.run.folder import RunFolder
from cryogan.run.plan import Plan
from cryogan.run.symmetry import is_looked_for


def commands_of_run(folder: RunFolder, plan: Plan) -> dict[str, str]:
    """Return this program's commands on a run, and what each does.

    Args:
        folder: of the run.
        plan: of the run.
    """
    path = shlex.quote(str(folder.path))
    commands = {
        f"cryogan reconstruct --resume {path}": "go on, if it was stopped before its end",
        f"cryogan watch {path}": "a page of it in the browser, also while it runs; with a button that stops it",
        f"cryogan figures {path}": "compare the halves again; report and figures anew",
    }
    commands[f"cryogan deposit {path}"] = "the files that EMDB asks for, and what the run knows of their making"
    if plan.is_picked:
        refined, poses = (found.path.relative_to(folder.path) for found in (folder.refined, folder.poses))
        commands[f"cryogan refine {path}"] = f"poses, and a sharper map with them, in {refined}/"
        commands[f"cryogan verdict {path}"] = "how far the map can be believed, and why"
        if is_looked_for(plan):
            commands[f"cryogan symmetry {path}"] = "the symmetry that the half maps have by themselves"
        commands[f"cryogan reslog {path}"] = "how resolution grows with the number of particles"
        commands[f"cryogan poses {path}"] = f"the particles that show the map and those that do not, in {poses}/"
    return commands


def resume_command(folder: RunFolder) -> dict[str, str]:
    """Return the command that comes next where a run was ended before it had found a map.

    Args:
        folder: of the run.
    """
    return {"Go on with the run:": f"cryogan reconstruct --resume {shlex.quote(str(folder.path))}"}


def with_symmetry(folder: RunFolder, plan: Plan, symmetry: str) -> str:
    """Return the command that makes a run again with a symmetry, everything else as it was.

    Args:
        folder: of the run.
        plan: of the run.
        symmetry: point group.
    """
    # A mask in the frame of this run is not about the axes of the group.
    settings = plan.settings.model_copy(update={"symmetry": symmetry, "mask": None})
    inputs = [str(plan.particles)]
    for flag, path in (("--noise", plan.noise), ("--data-dir", plan.data_dir)):
        inputs += [flag, str(path)] if path else []
    return shlex.join(["cryogan", "reconstruct", *inputs, *settings.flags(), "--out", f"{folder.path}_{symmetry}"])


def next_commands(folder: RunFolder, plan: Plan, resolution: float) -> dict[str, str]:
    """Return the commands with which other programs, and this one, go on from a finished run, by what they do.

    Args:
        folder: of the run.
        plan: of the run.
        resolution: corrected half-map FSC 0.143, A.
    """
    path, map_, other_hand, script = (
        shlex.quote(str(found))
        for found in (folder.path, folder.map, folder.map.with_stem("map_other_hand"), folder.chimerax_script)
    )
    maps = {
        "The other hand:": f"cryogan flip-hand {map_} --out {other_hand}",
        "ChimeraX:": f"chimerax {script}",
    }
    if not plan.is_picked:
        return maps
    return {
        "Poses, and a refinement with them:": f"cryogan refine {path}",
        f"Refinement in {_readers(plan)}:": "\n".join(_relion(folder, plan, resolution)),
        f"cryoSPARC: Import 3D Volumes with {folder.map.name}, then Homogeneous Refinement with an initial low-pass of "
        "20 A and re-estimated grey scale. Particles with poses:": f"cryogan poses {path}    # "
        f"{folder.cryosparc_particles.name}",
        **maps,
    }


def of_particles(plan: Plan) -> str:
    """Return what other programs have to know of the images that a run's `particles.star` names; mostly nothing."""
    if plan.image_files.half_precision:
        return "; its images are float16 (mode 12), which RELION 3 cannot read"
    return ""


def _readers(plan: Plan) -> str:
    if plan.image_files.half_precision:
        return "RELION 4 or later (the images are float16, mode 12, which RELION 3 cannot read)"
    return "RELION"


def _relion(folder: RunFolder, plan: Plan, resolution: float) -> Iterator[str]:
    """Yield the commands of a refinement in RELION."""
    if (project := _project(plan)) is not None:
        yield f"cd {shlex.quote(str(project))}"
        folder = RunFolder(folder.path.absolute())
    files = plan.image_files
    box, pixel_size = (files.box, f"{files.pixel_size:.7g}") if files.box else ("BOX", "PIXEL")
    meant = "" if files.box else "    # those of the particles"
    particles = shlex.quote(str(folder.particles))
    if plan.settings.invert:
        yield f"relion_stack_create --i {particles} --o bright    # RELION, too, needs bright protein"
        yield "relion_image_handler --i bright.mrcs --o inverted.mrcs --multiply_constant -1"
        yield "mv inverted.mrcs bright.mrcs"
        particles = "bright.star"
    yield (
        f"relion_image_handler --i {shlex.quote(str(folder.map))} --o reference.mrc --angpix {plan.pixel_size:.7g} "
        f"--rescale_angpix {pixel_size} --new_box {box}{meant}"
    )
    yield "mkdir -p refine"
    flipped = "--ctf_phase_flipped " if files.phase_flipped else ""
    yield (
        f"mpirun -n 3 relion_refine_mpi --auto_refine --split_random_halves --i {particles} "
        f"--ref reference.mrc --firstiter_cc --ini_high {max(20.0, 1.5 * resolution):.0f} --sym "
        f"{plan.settings.symmetry} --particle_diameter {2 * plan.particle_radius:.0f} --ctf {flipped}--norm --scale "
        "--flatten_solvent --zero_mask --o refine/run"
    )


def _project(plan: Plan) -> Path | None:
    """Return the folder in which the names of the images hold; None: the current one, or they are absolute."""
    if not plan.image_files.relative_names:
        return None
    current = Path.cwd()
    return None if any(folder.resolve() == current for folder in plan.image_folders) else plan.image_folders[0]
