"""The command that judges maps: verdict."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cryogan.cli.app import NOT_RESOLVED, Answer, DataDir, Noise, Say, Strict, app, examples
from cryogan.cli.flags import Config, Flags, Preset, chosen_settings, given
from cryogan.errors import InputError

if TYPE_CHECKING:
    from cryogan.run.verdict import Verdict


@app.command(
    name="verdict",
    help_epilogue=examples(
        "cryogan verdict run",
        "cryogan verdict half1.mrc half2.mrc run/particles.star --symmetry D2",
        "cryogan verdict reference.mrc particles.star --symmetry D2",
        more=True,
    ),
)
def verdict_command(
    *inputs: Path,
    out: Path | None = None,
    noise: Noise = None,
    data_dir: DataDir = None,
    preset: Preset = None,
    config: Config = None,
    strict: Strict = False,
    settings: Flags = None,
    console: Say = None,
) -> Answer:
    """Judge how far a map can be believed, by particles that had no part in it.

    Args:
        inputs: A run's folder; or half maps 1 and 2 of any program and the particles, which say by _rlnRandomSubset or
            alignments3D/split of which half they are; or a map of other particles, or of a model, and the particles.
        out: Folder for verdict.json and the pictures. Default: verdict in the run's folder; for maps, none.
    """
    if len(inputs) == 1:
        if out or noise or data_dir or preset or config or given(settings):
            raise InputError("The verdict on a run takes all from the run's folder. Give nothing else.")
        from cryogan.refinement.verdict import judge_run

        return _answer(judge_run(inputs[0], console=console), strict)
    if len(inputs) not in (2, 3):
        raise InputError(
            "Give a run's folder (cryogan verdict run), or half maps and particles (cryogan verdict half1.mrc "
            "half2.mrc particles.star), or a map and particles (cryogan verdict map.mrc particles.star)."
        )
    from cryogan.refinement.foreign_maps import judge_maps

    chosen = chosen_settings(preset, config, settings)
    verdict = judge_maps(
        inputs[:-1],
        inputs[-1],
        chosen,
        noise=noise,
        data_dir=data_dir,
        out=out,
        console=console or Console(stderr=True),
    )
    return _answer(verdict, strict)


def _answer(verdict: "Verdict", strict: bool) -> Answer:
    text = [verdict.sentence, *(f"{name}: {sentence}" for name, sentence in verdict.sentences.items())]
    exit_code = NOT_RESOLVED if strict and not verdict.is_resolved else 0
    values = {**verdict.values, "findings": [vars(finding) for finding in verdict.findings]}
    return Answer(values, [*text, *verdict.evidence.held_out.table()], exit_code)
