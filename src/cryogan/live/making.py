"""A map of all particles so far: a run from zero, or one that goes on from the last map; and the run at the end."""

import io
import resource
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from cryogan.config import Settings
from cryogan.live.folder import LiveFolder, read_json, write_json
from cryogan.live.ledger import CHECKSUM, FINGERPRINT, SOURCE_NAME, STACK
from cryogan.live.map_patches import write_patches
from cryogan.live.schedule import SUPPORTED
from cryogan.live.star_rows import Blocks, join
from cryogan.live.tasks import NO_PATCHES, Background, MapTask
from cryogan.particles import read_star, write_star
from cryogan.particles.images import evenly_spread
from cryogan.particles.relion import SUBSET
from cryogan.refinement.finish import finish
from cryogan.refinement.refine import refine
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.going_on import go_on_from
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan
from cryogan.run.postprocess import Result
from cryogan.run.reconstruct import prepare, reconstruct, resume
from cryogan.run.reslog import ResLog

SAMPLE = 500  # particles of a map, with which portions are compared
POINTS = 5  # maps that the forecast is drawn through, at most
OURS = (SOURCE_NAME, FINGERPRINT, CHECKSUM, STACK)


def make_map(folder: LiveFolder, settings: Settings, task: MapTask, background: Background = NO_PATCHES) -> None:
    """Make a map, or go on making it, judge it, and record what it is worth.

    Args:
        folder: our folder.
        settings: settings of the maps, for the portions' images.
        task: what is to be made.
        background: background patches.

    Raises:
        InputError: it cannot be made of these particles.
    """
    run, star = folder.map_run(task.number), folder.map_particles(task.number)
    if not star.exists():
        write_star(star, _current(folder, task.last_portion))
    rows = read_star(star)["particles"]
    noise = folder.map_noise(task.number)
    if background.noise is not None and not noise.exists():
        write_patches(folder, task.number, background.noise, background.data_dir, settings)
    result = _run(folder, run, settings, task, noise if noise.exists() else None)
    result, verdict = finish(result, copies_settings(settings), _silent())
    assert verdict is not None
    sample = evenly_spread(len(rows), SAMPLE).tolist()
    blocks = read_star(star)
    chosen = {name: [values[row] for row in sample] for name, values in rows.columns.items()}
    write_star(folder.map_sample(task.number), {"optics": blocks["optics"].columns, "particles": chosen})
    for path in (run.snapshots, run.checkpoint(1), run.checkpoint(2)):  # nobody goes on with it
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    worth = {
        "verdict": verdict.finding.code,
        "sentence": verdict.finding.sentence,
        "verdict_A": verdict.resolution,
        "held_out_A": verdict.evidence.held_out.resolution,
        "half_maps_A": result.resolution,
        "box": len(result.mask),
        "pixel_size": result.curves.pixel_size,
    }
    _record(folder, task, len(rows), worth)


def finish_collection(folder: LiveFolder, settings: Settings, background: Background = NO_PATCHES) -> None:
    """Make the usual run of all particles, from zero, under the names that the collection gave them.

    The images are read from the collection's stacks, as every other run on them would read them.

    Raises:
        InputError: it cannot be made of these particles, or their stacks are away.
    """
    final = folder.final
    if final.is_run:
        result = resume(final.path, console=_silent())
    else:
        blocks, base = _as_listed(folder)
        write_star(folder.final_particles, blocks)
        base, noise = base or background.data_dir, background.noise
        result = reconstruct(
            folder.final_particles, final.path, settings, noise=noise, data_dir=base, console=_silent()
        )
    result, verdict = finish(result, settings, _silent())
    if settings.refine and not folder.final.refined.map.exists():
        refine(final.path, console=_silent())
    sentence = "" if verdict is None else verdict.finding.sentence
    write_json(folder.final_record, {"sentence": sentence, "half_maps_A": result.resolution})


def copies_settings(settings: Settings) -> Settings:
    """Return the settings for the portions' images, which are preprocessed and whose halves are decided."""
    changes = {"invert": False, "keep_gradient": True, "new_halves": False, "max_minutes": None, "refine": False}
    return settings.model_copy(update={**changes, "threads": 1, "verdict": True})


def _run(folder: LiveFolder, run: RunFolder, settings: Settings, task: MapTask, noise: Path | None) -> Result:
    """Make the half maps, or go on where an earlier process was killed."""
    star, quiet = folder.map_particles(task.number), _silent()
    if task.last is None:
        if run.is_run:
            return resume(run.path, console=quiet)
        return reconstruct(star, run.path, copies_settings(settings), noise=noise, console=quiet)
    if not run.is_run:
        prepare(run, read_inputs(star, noise, None, copies_settings(settings)))
    if not all(run.checkpoint(half).exists() for half in HALVES):
        go_on_from(run, Plan.read(run.path), folder.map_run(task.last).half_maps)
    return resume(run.path, console=quiet)


def _current(folder: LiveFolder, last_portion: int) -> Blocks:
    """Return the particles of the portions as they are now: each once, without those that vanished."""
    joined = join(folder.portion_star(number) for number in folder.portion_numbers() if number <= last_portion)
    names = [str(name) for name in joined["particles"][SOURCE_NAME]]
    return _chosen(joined, _current_rows(folder, names))


def _as_listed(folder: LiveFolder) -> tuple[Blocks, Path | None]:
    """Return the same particles in the rows that the collection listed, with their halves, and where the stacks are.

    They keep their names if one folder has all stacks under these; otherwise they are named from the root.
    """
    joined = join(folder.portion_source(number) for number in folder.portion_numbers())
    ours = join(folder.portion_star(number) for number in folder.portion_numbers())["particles"]
    particles, stacks = joined["particles"], [str(stack) for stack in ours[STACK]]
    particles[SUBSET] = ours[SUBSET]
    names = [str(name).partition("@") for name in particles["rlnImageName"]]
    bases = {stack.removesuffix(name[2]) for stack, name in zip(stacks, names, strict=True)}
    if len(bases) > 1:
        particles["rlnImageName"] = [f"{name[0]}@{stack}" for name, stack in zip(names, stacks, strict=True)]
    chosen = _chosen(joined, _current_rows(folder, [str(name) for name in ours[SOURCE_NAME]]))
    return chosen, Path(bases.pop()) if len(bases) == 1 else None


def _current_rows(folder: LiveFolder, names: list[str]) -> list[int]:
    """Return the last row of each name that has not vanished."""
    gone = set(read_json(folder.withdrawn).get("names", []))
    return sorted({name: row for row, name in enumerate(names) if name not in gone}.values())


def _chosen(blocks: Blocks, rows: list[int]) -> Blocks:
    return blocks | {"particles": {name: [values[row] for row in rows] for name, values in blocks["particles"].items()}}


def _record(folder: LiveFolder, task: MapTask, particles: int, worth: dict[str, Any]) -> None:
    """Record what a map is made of, and what it is worth."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    record = {
        **vars(task),
        "particles": particles,
        "cpu_seconds": round(sum(one.ru_utime + one.ru_stime for one in usage), 1),
        **worth,
    }
    write_json(folder.map_record(task.number), record | {"reslog": _forecast(folder, record)})


def _forecast(folder: LiveFolder, record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the line of resolution by number of particles through the last maps that are supported."""
    earlier = [read_json(folder.map_record(number)) for number in folder.map_numbers()]
    points = {one["particles"]: one["half_maps_A"] for one in [*earlier, record] if one["verdict"] in SUPPORTED}
    counts = sorted(points)[-POINTS:]
    if not counts or record["verdict"] not in SUPPORTED:
        return None
    line = ResLog(tuple(counts), tuple(points[count] for count in counts), record["pixel_size"], record["box"])
    return line.values


def _silent() -> Console:
    return Console(file=io.StringIO(), quiet=True)
