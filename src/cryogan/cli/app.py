"""The application: what all commands share, and how a command is run and answered."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from cryogan import __version__
from cryogan.cli.help import RARE, SHARED, START, ScreenFormatter, print_all
from cryogan.errors import InputError

# PyTorch, SciPy and Matplotlib take seconds to import: each command imports what it needs.

app = App(
    name="cryogan",
    version=__version__,
    help="Single-particle cryo-EM maps without poses: a simulator and a critic learn the volume.",
    help_formatter=ScreenFormatter(),
)
app.meta.suppress_keyboard_interrupt = False  # `main` says that there was one
app.register_install_completion_command(
    help="Let bash, zsh or fish complete commands and flags, from the next shell on."
)

NOT_RESOLVED = 3  # exit code, with --strict

# What several commands take.
Say = Annotated[Console | None, Parameter(parse=False)]  # where a command reports its progress: standard error
Noise = Annotated[Path | None, Parameter(help="STAR or .cs of background patches that names their micrographs.")]
DataDir = Annotated[Path | None, Parameter(help="Where else to look for image stacks and micrographs.", group=RARE)]
Strict = Annotated[
    bool,
    Parameter(
        negative="", group=RARE, help=f"Exit with code {NOT_RESOLVED} unless the verdict on the map is: resolved."
    ),
]


def examples(*commands: str, more: bool = False) -> str:
    """Format examples for the end of a command's help, as Markdown that keeps the lines.

    Args:
        commands: The examples.
        more: Whether the command has settings that only `--help-all` shows.
    """
    rare = f"Rarer settings: cryogan {commands[0].split()[1]} --help-all. " if more else ""
    return "\n".join([f"{rare}Examples:", "", *(f"    {command}" for command in commands)])


@dataclass(frozen=True)
class Answer:
    """What a command found, for a reader (`text`) and for a program (`values`, with --json); and its exit code."""

    values: Mapping[str, Any]
    text: Sequence[str] = field(default=())
    exit_code: int = 0


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[bool, Parameter(negative="", group=SHARED)] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="", group=SHARED)] = False,
    help_all: Annotated[bool, Parameter(negative="", group=SHARED)] = False,
) -> None:
    """Run a command.

    Args:
        tokens: the command and its arguments.
        quiet: Write nothing but errors to standard error.
        as_json: Write one JSON object to standard output; {"error": ...} after an error.
        help_all: Show all settings of a command, also those that are rarely needed.
    """
    if help_all:
        print_all(app, tokens)
        return
    if not tokens:
        if as_json:
            raise InputError("Give a command, such as: cryogan check particles.star --json")
        print(START, end="")
        return
    command, bound, unparsed = app.parse_args(tokens, exit_on_error=False, print_error=False)
    if "console" in unparsed:
        bound.arguments["console"] = Console(stderr=True, quiet=quiet)
    answer = command(*bound.args, **bound.kwargs)
    if isinstance(answer, Answer):
        for line in [json.dumps(_plain(answer.values))] if as_json else answer.text:
            print(line, flush=True)
        if answer.exit_code:
            sys.exit(answer.exit_code)


def _plain(value: Any) -> Any:
    """Convert to JSON's types; a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
