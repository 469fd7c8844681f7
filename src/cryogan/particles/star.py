"""STAR files as RELION writes them; strict, because a row one field short shifts all its later columns."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.files import replacing

# A quoted string, a comment (only where a token may begin: "job#12/a.mrcs" is a name), or a bare word.
_TOKEN = re.compile(r"""(?P<quoted>"[^"]*"|'[^']*')(?=\s|$)|(?P<comment>\#.*)|(?P<bare>\S+)""")

_SHARED = 10_000  # texts of a column that its rows share: micrographs are fewer, images are not


@dataclass(frozen=True)
class StarTable:
    """One data block: columns of text, and where each row stood in the file.

    `columns` maps a name without its leading underscore to N strings, `lines` holds their N line numbers.
    A block of key-value pairs is a table of one row.
    """

    path: Path
    name: str
    columns: dict[str, list[str]] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def where(self, row: int) -> str:
        """The place of a row, for messages: "FILE, line 12"."""
        return f"{self.path}, line {self.lines[row]}"

    def texts(self, column: str) -> list[str]:
        """The strings of a column. Raises InputError if the block has no such column."""
        if column not in self.columns:
            raise InputError(f"{self.path}: block data_{self.name[:50]} has no column _{column}; add it.")
        return self.columns[column]

    def floats(self, column: str) -> NDArray[np.float64]:
        """A column as float64 (N,). Raises InputError for a missing column or, with its line, a word."""
        texts = self.texts(column)
        try:
            return np.array([float(text) for text in texts], dtype=np.float64)
        except ValueError:
            row = next(row for row, text in enumerate(texts) if not _is_number(text))
            raise InputError(
                f'{self.where(row)}: _{column} is "{texts[row][:50]}", which is not a number; correct that row.'
            ) from None


def read_star(path: Path | str) -> dict[str, StarTable]:
    """Read every data block of a STAR file, by name (`data_` alone has the name "").

    Reads loops and key-value blocks, comments, quoted strings and blank lines; a row stands on one line.
    Raises InputError for a missing or unreadable file, a row with too few or too many fields, text outside a
    block, and a block or column that occurs twice.
    """
    path = Path(path)
    blocks: dict[str, StarTable] = {}
    table: StarTable | None = None
    in_loop = False
    shared: list[dict[str, str]] = []  # texts of each column

    for number, line in enumerate(_lines(path), start=1):
        fields = _split(line)
        if not fields:
            continue
        first = fields[0]
        shown = first[:50]  # in messages
        here = f"{path}, line {number}"
        if first.startswith("data_") and len(fields) == 1:
            table, in_loop, shared = StarTable(path, first[len("data_") :]), False, []
            if table.name in blocks:
                raise InputError(f"{here}: a second block {shown}; rename or remove one.")
            blocks[table.name] = table
        elif table is None:
            raise InputError(f'{here}: "{shown}" stands before any data_ block, so this is no STAR file.')
        elif first == "loop_":
            if table.columns:
                raise InputError(f"{here}: a second table in block data_{table.name[:50]}; give it its own block.")
            in_loop = True
        elif line.lstrip().startswith("_"):
            if in_loop and table.lines:
                raise InputError(f"{here}: {shown} follows the rows of a loop; give it its own data_ block.")
            name = first[1:]
            if name in table.columns:
                raise InputError(f"{here}: column {shown} occurs twice; remove one.")
            if not in_loop and len(fields) != 2:
                raise InputError(f"{here}: {shown} needs one value, not {len(fields) - 1}; correct that line.")
            table.columns[name] = [] if in_loop else [fields[1]]
            shared.append({})
            if not in_loop and not table.lines:
                table.lines.append(number)
        elif not in_loop:
            raise InputError(f'{here}: "{shown}" is neither a key nor in a loop; add the line "loop_".')
        elif len(fields) != len(table.columns):
            raise InputError(f"{here}: expected {len(table.columns)} fields and found {len(fields)}; correct that row.")
        else:
            for column, texts, text in zip(table.columns.values(), shared, fields, strict=True):
                column.append(texts.setdefault(text, text) if len(texts) < _SHARED else texts.get(text, text))
            table.lines.append(number)
    return blocks


def _lines(path: Path) -> Iterator[str]:
    """A file's lines, one after the other: the text of a million particles is not held beside their columns."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text, so it is no STAR file; give the particle STAR.") from None


def write_star(path: Path | str, blocks: Mapping[str, Mapping[str, Sequence[object]]]) -> None:
    """Write data blocks as loops, columns without their underscore; the file appears whole or not at all.

    Floats are written with six decimals and text with spaces is quoted. Raises ValueError if the columns of a
    block differ in length, or a text cannot be written (it holds a line break or both kinds of quote).
    """
    path = Path(path)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        for name, columns in blocks.items():
            # RELION takes a file without this line for one of version 3.0.
            out.write(f"\n# version 30001\n\ndata_{name}\n\nloop_\n")
            out.writelines(f"_{column} #{number}\n" for number, column in enumerate(columns, start=1))
            texts = (map(_format, values) for values in columns.values())
            out.writelines("\t".join(row) + "\n" for row in zip(*texts, strict=True))
            out.write("\n")


def _split(line: str) -> list[str]:
    if "#" not in line and '"' not in line and "'" not in line:
        return line.split()
    fields = []
    for match in _TOKEN.finditer(line):
        if match["comment"]:
            break
        fields.append(match["bare"] or match["quoted"][1:-1])
    return fields


def _format(value: object) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.6f}"
    text = str(value)
    if "\n" in text or "\r" in text:
        raise ValueError(f"a STAR field cannot hold a line break: {text!r}")
    if text.split() == [text] and text[0] not in "#\"'_":
        return text
    if '"' not in text:
        return f'"{text}"'
    if "'" not in text:
        return f"'{text}'"
    raise ValueError(f"a STAR field cannot hold both kinds of quote: {text!r}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
