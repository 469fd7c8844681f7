"""The entry point: arguments in, one clear line out when they cannot be used."""

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cyclopts import CycloptsError
from pydantic import ValidationError
from rich.console import Console

from cryogan.cli.app import app
from cryogan.cli.help import what_to_type
from cryogan.config import RenamedWarning, current_flags, first_complaint
from cryogan.errors import InputError, Interrupted, RankFailed
from cryogan.parallel.launch import STOPPING, Launch


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; input that cannot be used is one line on standard error and exit code 2.

    Args:
        arguments: those of the command line by default.
    """
    tokens, remarks = current_flags(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors(tokens), notes_on_names(remarks, quiet="--quiet" in tokens):
        app.meta(tokens, exit_on_error=False, print_error=False, result_action="return_value")


@contextmanager
def one_line_errors(tokens: Sequence[str] = ()) -> Iterator[None]:
    """End the process with one line and an exit code where the block cannot go on: 2, or 130 if it was interrupted.

    Signals with which batch systems end a job interrupt the block, as Ctrl-C does.

    Args:
        tokens: those of a `cryogan` command; with --json the line goes to standard output, as {"error": ...}.
    """
    for number in STOPPING:  # how batch systems say Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    except BrokenPipeError:  # `cryogan check ... | head`: whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        sys.exit(128 + signal.SIGPIPE)
    except (InputError, CycloptsError, OSError) as error:
        if not _another_reports(error):
            _end(_complaint(error, tokens), 2, tokens)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt) as error:
        if not _another_reports(error):
            _end(str(error) or "Interrupted.", 130, tokens)
        sys.exit(130)
    except (RuntimeError, MemoryError) as error:
        from cryogan.critics.micro_batch import OUT_OF_MEMORY, is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _end(OUT_OF_MEMORY, 2, tokens)


@contextmanager
def notes_on_names(remarks: Sequence[str] = (), *, quiet: bool = False) -> Iterator[None]:
    """Print a line for each old name that was given as a flag, or is met in a file.

    Args:
        remarks: on the flags.
        quiet: print none.
    """
    console = Console(stderr=True, quiet=quiet or not _speaks())

    def note(message: Warning | str, category: type[Warning], *where: object) -> None:
        if issubclass(category, RenamedWarning):
            console.print(f"Note: {message}", highlight=False, markup=False, soft_wrap=True)
        else:
            usual(message, category, *where)  # type: ignore[arg-type]

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, note  # type: ignore[assignment]
        warnings.simplefilter("once", RenamedWarning)
        for remark in remarks:
            note(remark, RenamedWarning)
        yield


def _speaks() -> bool:
    """Whether this process is the one of a distributed job that reports."""
    launch = Launch.detect()
    return launch is None or launch.rank == 0


def _another_reports(error: BaseException) -> bool:
    """Whether rank 0 of a distributed job reports the error; a process that fails alone does so itself."""
    return not _speaks() and not isinstance(error, RankFailed)


def _complaint(error: InputError | CycloptsError | OSError, tokens: Sequence[str]) -> str:
    """Return problem and remedy of an error."""
    if isinstance(error, CycloptsError):
        cause = error.__cause__
        problem = first_complaint(cause) if isinstance(cause, ValidationError) else str(error).strip()
        return f"{problem} {what_to_type(app, tokens)}"
    if isinstance(error, OSError):  # a full disk, a folder without permission, a name that is too long
        return f"{error}. Free the disk, change the permissions, or give another file or folder."
    return str(error)


def _end(complaint: str, code: int, tokens: Sequence[str]) -> None:
    if "--json" in tokens:
        print(json.dumps({"error": complaint}))
    else:
        text, style = (f"cryogan: {complaint}", "red") if code == 2 else (complaint, None)
        Console(stderr=True).print(text, style=style, highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
