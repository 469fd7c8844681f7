"""Repeats of a run from different seeds, compared at their end."""

from pathlib import Path

from rich.console import Console

from cryogan.errors import InputError, Interrupted
from cryogan.refinement.compare import compare_runs
from cryogan.refinement.finish import finish
from cryogan.run.comparison import RunComparison
from cryogan.run.folder import RunFolder
from cryogan.run.reconstruct import reconstruct, resume
from cryogan.run.repeats import Repeats, RepeatsFolder
from cryogan.run.verdict import read_verdict


def reconstruct_repeats(repeats: Repeats, out: Path, *, console: Console | None = None) -> RunComparison:
    """Reconstruct several times, one run after the other, and compare the runs.

    Each is an ordinary run in `repeat1`, `repeat2`, ... of the folder, with a seed and halves of its own. The best of
    the most frequent structure is offered as `best`. Runs that are finished stay, others go on.

    Args:
        repeats: What is repeated.
        out: Folder for the runs; new, or one in which the same was begun.
        console: Where progress is printed; default: standard error.

    Raises:
        InputError: As from `reconstruct`, or `out` holds something else.
        Interrupted: Ctrl-C; the same call goes on.
    """
    console, folder = console or Console(stderr=True), RepeatsFolder(out)
    folder.begin(repeats)
    numbers = range(1, repeats.count + 1)
    try:
        for number in numbers:
            if not _is_done(folder.run(number), repeats):
                console.print(f"Repeat {number} of {repeats.count}: {folder.run(number).path}", soft_wrap=True)
                _run(repeats, number, folder.run(number), console)
        comparison = compare_runs([folder.run(number).path for number in numbers], out, console=console)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(f"Stopped. Go on with: cryogan reconstruct --resume {out}") from None
    except InputError:
        folder.forget_if_empty()
        raise
    folder.offer(comparison)
    return comparison


def _is_done(run: RunFolder, repeats: Repeats) -> bool:
    is_judged = repeats.settings.verdict and repeats.settings.kind == "particles"
    return run.is_finished and (not is_judged or read_verdict(run) is not None)


def _run(repeats: Repeats, number: int, run: RunFolder, console: Console) -> None:
    if run.is_run:
        result = resume(run.path, console=console)
    else:
        result = reconstruct(
            repeats.particles,
            run.path,
            repeats.settings_of(number),
            noise=repeats.noise,
            data_dir=repeats.data_dir,
            cache=repeats.cache,
            console=console,
        )
    finish(result, repeats.settings, console)
