"""What a person reads first: `cryogan` alone, help that fits a screen, and what to type after an error."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import App, Group
from cyclopts.help import HelpEntry, HelpPanel
from cyclopts.help.formatters import DefaultFormatter
from cyclopts.help.specs import DefaultStyled, TableSpec, get_default_command_columns, get_default_parameter_columns
from rich.text import Text

from cryogan.config import GROUPS
from cryogan.config.renamed import as_flag

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

START = """\
CryoGAN: a 3-D map from single-particle cryo-EM images, without a reference and without orientations.

Three commands lead from particles to a map:

  cryogan check particles.star                    what is in the files, time and memory, likely problems
  cryogan reconstruct particles.star --out run    two half maps from zero, their FSC, and one map
  cryogan refine run                              orientations of the particles, and a sharper map

particles.star is a RELION STAR file of extracted particles with CTF parameters, or a cryoSPARC .cs file.
What came out, and what to do next: run/report.html. While it runs: cryogan watch run
No particles at hand: cryogan simulate --out set, then: cryogan check set/particles.star
All commands: cryogan --help. More on one of them: cryogan check --help. Tab completion: cryogan --install-completion
"""
# Settings that a first run may need; the others are in --help-all.
COMMON_SETTINGS = (
    "box",
    "particle_diameter",
    "invert",
    "symmetry",
    "max_shift",
    "seed",
    "device",
    "threads",
    "max_minutes",
)
RARE = Group("Rarely needed", sort_key=100)  # for flags that are no settings
SHARED = Group("Every command", sort_key=101)
_COMMON_FLAGS = frozenset(map(as_flag, COMMON_SETTINGS))
_PANELS_OF_RARE = frozenset({*GROUPS, RARE.name})


class ScreenFormatter(DefaultFormatter):
    """Help that fits a screen: without frames, rare settings, flags that say no, and defaults that are off."""

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: HelpPanel) -> None:
        """Print a panel: its title, and a line for each command or flag that is not rare."""
        entries = [_short(entry) for entry in panel.entries if not _is_rare(panel, entry)]
        if not entries:
            return
        columns = get_default_command_columns if panel.format == "command" else get_default_parameter_columns
        table = TableSpec().build(columns(console, options, entries), entries)
        console.print(Text(f"{panel.title}:"))
        console.print(DefaultStyled(table, theme=panel.theme))


def print_all(app: App, tokens: tuple[str, ...]) -> None:
    """Print the help of a command with all its settings."""
    usual, app.help_formatter = app.help_formatter, DefaultFormatter()
    try:
        app.help_print(tokens)
    finally:
        app.help_formatter = usual


def what_to_type(app: App, tokens: Sequence[str]) -> str:
    """Return the sentence that ends the message on a command line that was not understood: an example that is right."""
    verb = next((token for token in tokens if not token.startswith("-") and token in app), None)
    if verb is None:
        return "Type cryogan --help for the commands."
    lines = str(app[verb].help_epilogue).splitlines()
    example = next(line.strip() for line in lines if line.startswith("    cryogan "))
    return f"Type for example: {example} (all of it: cryogan {verb} --help-all)."


def _short(entry: HelpEntry) -> HelpEntry:
    return entry.copy(negative_names=(), default=None if entry.default == "False" else entry.default)


def _is_rare(panel: HelpPanel, entry: HelpEntry) -> bool:
    return panel.title in _PANELS_OF_RARE and not _COMMON_FLAGS.intersection(entry.positive_names)
