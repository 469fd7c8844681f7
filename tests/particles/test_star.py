from pathlib import Path

import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.particles import read_star, write_star

TEXT = """# written by hand

data_general

_rlnFinalResolution   7.5   # angstrom
_rlnComment           'two words'

data_particles

loop_
_rlnImageName #1
_rlnNote #2
_rlnDefocusU #3

000001@job#12/a.mrcs "it's here" 1.0e4

000002@job#12/a.mrcs x 9000 # the last
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.star"
    path.write_text(text)
    return path


def test_loops_pairs_quotes_comments_and_blank_lines(tmp_path: Path) -> None:
    blocks = read_star(write(tmp_path, TEXT))
    assert blocks["general"].columns == {"rlnFinalResolution": ["7.5"], "rlnComment": ["two words"]}
    assert len(blocks["general"]) == 1
    particles = blocks["particles"]
    assert particles.columns["rlnImageName"] == ["000001@job#12/a.mrcs", "000002@job#12/a.mrcs"]
    assert particles.columns["rlnNote"] == ["it's here", "x"]
    np.testing.assert_array_equal(particles.floats("rlnDefocusU"), [1e4, 9e3])
    assert particles.where(1).endswith("a.star, line 17")


@pytest.mark.parametrize("row", ["1 2", "1 2 3 4"])
def test_a_ragged_row_is_named_with_its_counts(tmp_path: Path, row: str) -> None:
    path = write(tmp_path, f"data_\nloop_\n_a #1\n_b #2\n_c #3\n1 2 3\n{row}\n1 2 3\n")
    with pytest.raises(InputError, match=rf"a\.star, line 7: expected 3 fields and found {len(row.split())}"):
        read_star(path)


def test_a_word_among_numbers_is_named(tmp_path: Path) -> None:
    table = read_star(write(tmp_path, "data_x\nloop_\n_a #1\n1.5\nabc\n"))["x"]
    with pytest.raises(InputError, match=r'a\.star, line 5: _a is "abc", which is not a number'):
        table.floats("a")
    with pytest.raises(InputError, match="data_x has no column _b"):
        table.floats("b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "line 1.*before any data_ block"),
        ("data_a\nhello\n", "line 2.*neither a key nor in a loop"),
        ("data_a\n_a 1\ndata_a\n", "line 3: a second block data_a"),
        ("data_a\nloop_\n_a\n_a\n", "line 4: column _a occurs twice"),
        ("data_a\n_a\n", "line 2: _a needs one value, not 0"),
        ("data_a\nloop_\n_a\n_b\n1 2\n_c 3\n", "line 6: _c follows the rows of a loop"),
        ("data_a\nloop_\n_a\n1\nloop_\n_b\n2\n", "line 5: a second table in block data_a"),
    ],
)
def test_what_is_not_a_particle_star_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_star(write(tmp_path, text))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.star: cannot be read \(No such file"):
        read_star(tmp_path / "none.star")
    (tmp_path / "binary.star").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is not text"):
        read_star(tmp_path / "binary.star")


def test_a_row_may_begin_with_the_word_data(tmp_path: Path) -> None:
    table = read_star(write(tmp_path, "data_\nloop_\n_a #1\n_b #2\ndata_set1/m.mrc 3\n"))[""]
    assert table.columns["a"] == ["data_set1/m.mrc"]


def test_round_trip(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "a": [1, 2],
        "b": [0.5, np.float32(1e-7)],
        "c": ["two words", 'say "x y"'],
        "d": ["", "#1"],
    }
    write_star(tmp_path / "b.star", {"first": columns, "second": {"e": ["_x"]}})
    blocks = read_star(tmp_path / "b.star")
    assert blocks["first"].columns == {
        "a": ["1", "2"],
        "b": ["0.500000", "0.000000"],
        "c": ["two words", 'say "x y"'],
        "d": ["", "#1"],
    }
    assert blocks["second"].columns == {"e": ["_x"]}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "b.star"
    write_star(path, {"a": {"x": [1]}})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="line break"):
        write_star(path, {"a": {"x": ["two\nlines"]}})
    with pytest.raises(ValueError, match=r"shorter|longer"):
        write_star(path, {"a": {"x": [1], "y": [1, 2]}})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
