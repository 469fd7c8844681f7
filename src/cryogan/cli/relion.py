"""The console script `cryogan_relion`, which RELION starts as an External job."""

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryogan.cli.entry import notes_on_names, one_line_errors
from cryogan.config import Settings, resolve
from cryogan.errors import InputError
from cryogan.integrations.folder import JobFolder

if TYPE_CHECKING:
    from cryogan.integrations.job import Request

USAGE = """\
cryogan_relion --o External/job012/ --in_parts particles.star [--in_mics micrographs.star] [--in_mask mask.mrc]
               [--LABEL VALUE ...] [--j THREADS]

CryoGAN as an External job of RELION 3.1 to 5, which starts it in the project's folder. Give it as "External
executable" on RELION's form. LABEL is any setting of cryogan reconstruct, such as symmetry or particle_diameter; or
noise, preset, config, as for that command. See docs/relion.md.
"""
# What else RELION's form has; CryoGAN has no use for it.
_REFUSED = {
    "in_movies": "Input movies",
    "in_coords": "Input coordinates",
    "in_3dref": "Input 3D reference",
}
_OTHERS = ("o", "in_parts", "in_mics", "noise", "preset", "config", "pipeline_control")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the job. It ends with RELION's exit file; why it failed is one line on standard error.

    Args:
        arguments: those of the command line by default.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if not tokens or "--help" in tokens:
        print(USAGE, end="")
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with one_line_errors():
        folder = _folder(tokens)
    from cryogan.integrations.relion_job import exit_file

    with exit_file(folder), one_line_errors(), notes_on_names():
        from rich.console import Console

        from cryogan.integrations.relion_job import run_external_job

        request = _request(_values(tokens))
        # Standard error becomes run.err, which RELION shows as errors.
        run_external_job(folder, request, Console(file=sys.stdout))


def _folder(tokens: Sequence[str]) -> JobFolder:
    """The folder of the job, which is made if it is absent: needed before anything can be said there."""
    if "--o" not in tokens[:-1]:
        raise InputError("There is no --o with the folder of the job. RELION gives it to an External executable.")
    folder = Path(tokens[tokens.index("--o") + 1])
    folder.mkdir(parents=True, exist_ok=True)
    return JobFolder(folder)


def _values(tokens: Sequence[str]) -> dict[str, str]:
    """The value of each label; empty: it has none."""
    values: dict[str, str] = {}
    label = ""
    for token in tokens:
        if token.startswith("--"):
            label = token.lstrip("-").replace("-", "_")
            if label in values:
                raise InputError(f"{label} is given twice. Leave one of the two empty.")
            values[label] = ""
        elif not label or values[label]:
            raise InputError(f"{token!r} belongs to no label: each label has one value, without blanks.")
        else:
            values[label] = token
    return values


def _request(values: Mapping[str, str]) -> "Request":
    """What the form asks for."""
    from cryogan.integrations.job import Request

    for name, field in _REFUSED.items():
        if name in values:
            raise InputError(f'CryoGAN starts from particles alone. Leave "{field}" empty.')
    if not values.get("in_parts"):
        raise InputError('There are no particles. Fill in "Input particles".')

    def path(name: str) -> Path | None:
        return Path(values[name]) if values.get(name) else None

    return Request(
        Path(values["in_parts"]),
        resolve(values.get("preset") or "default", path("config"), _settings(values)),
        noise=path("noise"),
        micrographs=path("in_mics"),
        data_dir=Path.cwd(),
    )


def _settings(values: Mapping[str, str]) -> dict[str, str]:
    """The settings among the labels; those that are Yes or No need no value, and RELION's own fields are two."""
    settings = {name: value for name, value in values.items() if name not in (*_OTHERS, "in_mask", "j")}
    for name, value in settings.items():
        if not value:
            field = Settings.model_fields.get(name)
            if field is not None and field.annotation is not bool:
                raise InputError(f"{name} has no value. Fill in the field beside it.")
            settings[name] = "yes"
    if values.get("in_mask"):
        settings.setdefault("mask", values["in_mask"])
    if values.get("j", "").isdecimal():  # threads of the job, which has a process for each half
        settings.setdefault("threads", str(max(1, int(values["j"]) // 2)))
    return settings


if __name__ == "__main__":
    main()
