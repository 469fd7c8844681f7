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
    """One data block of a STAR file, as text. A block of key-value pairs is a table of one row.

    Attributes:
        path: the file.
        name: name of the block, without `data_`.
        columns: N strings for each column, by its name without the leading underscore.
        lines: the N numbers of the lines in the file, from 1.
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
        """Return the place of a row (from 0) for messages: "FILE, line 12"."""
        return f"{self.path}, line {self.lines[row]}"

    def texts(self, column: str) -> list[str]:
        """Return the N strings of a column.

        Raises:
            InputError: the block has no such column.
        """
        if column not in self.columns:
            raise InputError(f"{self.path}: block data_{self.name[:50]} has no column _{column}. Add it.")
        return self.columns[column]

    def floats(self, column: str) -> NDArray[np.float64]:
        """Return a column as float64 (N,).

        Raises:
            InputError: there is no such column, or a row of it holds a word.
        """
        texts = self.texts(column)
        try:
            return np.array([float(text) for text in texts], dtype=np.float64)
        except ValueError:
            row = next(row for row, text in enumerate(texts) if not _is_number(text))
            raise InputError(
                f'{self.where(row)}: _{column} is "{texts[row][:50]}", which is not a number. Correct that row.'
            ) from None


def read_star(path: Path | str) -> dict[str, StarTable]:
    """Read every data block of a STAR file.

    Loops, key-value blocks, comments, quoted strings, blank lines, a byte order mark and Windows line ends are read;
    keywords may be in capitals. A row stands on one line.

    Args:
        path: the file.

    Returns:
        The blocks by name; a bare `data_` has the name "".

    Raises:
        InputError: the file is missing or cannot be read; a row has too few or too many fields; text stands outside a
            block; a block or column occurs twice.
    """
    parser = _Parser(Path(path))
    for number, line in enumerate(_lines(parser.path), start=1):
        parser.read(number, line)
    return parser.blocks


class _Parser:
    """The state of reading a STAR file line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: dict[str, StarTable] = {}
        self._table: StarTable | None = None
        self._in_loop = False
        self._shared: list[dict[str, str]] = []  # texts of each column

    def read(self, number: int, line: str) -> None:
        fields = _split(line)
        if not fields:
            return
        table, first = self._table, fields[0]
        if len(fields) == 1 and self._opens_block(first):
            self._open_block(number, first)
        elif table is None:
            raise self._error(number, f'"{first[:50]}" stands before any data_ block. Give a STAR file.')
        elif first.lower() == "loop_":
            if table.columns:
                raise self._error(number, f"a second table in block data_{table.name[:50]}. Give it its own block.")
            self._in_loop = True
        elif line.lstrip().startswith("_"):
            self._add_column(number, table, fields)
        elif not self._in_loop:
            raise self._error(number, f'"{first[:50]}" is neither a key nor in a loop. Add the line "loop_".')
        else:
            self._add_row(number, table, fields)

    def _error(self, number: int, text: str) -> InputError:
        return InputError(f"{self.path}, line {number}: {text}")

    def _opens_block(self, word: str) -> bool:
        keyword = word[:5]
        # In a loop of one column "Data_001.mrc" is a row.
        is_row = self._in_loop and self._table is not None and len(self._table.columns) == 1
        return keyword in ("data_", "DATA_") or (keyword.lower() == "data_" and not is_row)

    def _open_block(self, number: int, word: str) -> None:
        name = word[5:]
        if name in self.blocks:
            raise self._error(number, f"a second block {word[:50]}. Rename or remove one.")
        self._table = self.blocks[name] = StarTable(self.path, name)
        self._in_loop, self._shared = False, []

    def _add_column(self, number: int, table: StarTable, fields: list[str]) -> None:
        shown, name = fields[0][:50], fields[0][1:]
        if self._in_loop and table.lines:
            raise self._error(number, f"{shown} follows the rows of a loop. Give it its own data_ block.")
        if name in table.columns:
            raise self._error(number, f"column {shown} occurs twice. Remove one.")
        if not self._in_loop and len(fields) != 2:
            raise self._error(number, f"{shown} needs one value, not {len(fields) - 1}. Correct that line.")
        table.columns[name] = [] if self._in_loop else [fields[1]]
        self._shared.append({})
        if not self._in_loop and not table.lines:
            table.lines.append(number)

    def _add_row(self, number: int, table: StarTable, fields: list[str]) -> None:
        if len(fields) != len(table.columns):
            raise self._error(
                number, f"expected {len(table.columns)} fields and found {len(fields)}. Correct that row."
            )
        for column, texts, text in zip(table.columns.values(), self._shared, fields, strict=True):
            column.append(texts.setdefault(text, text) if len(texts) < _SHARED else texts.get(text, text))
        table.lines.append(number)


def _lines(path: Path) -> Iterator[str]:
    """Yield a file's lines one by one, so that the text of a million particles is not held beside their columns."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from file
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text, so it is no STAR file. Give the particle STAR.") from None


def write_star(path: Path | str, blocks: Mapping[str, Mapping[str, Sequence[object]]]) -> None:
    """Write data blocks as loops; the file appears whole or not at all.

    Floats are written with six decimals, and text with spaces is quoted.

    Args:
        path: the file to write.
        blocks: columns by their name without underscore, by the block's name without `data_`.

    Raises:
        ValueError: the columns of a block differ in length, or a text cannot be written, because it holds a line break
            or both kinds of quote.
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
