"""What a particle file has beside a plain CTF is said by `check`, and stops a run where it is too strong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cryogan import check, reconstruct
from cryogan.config import Settings
from cryogan.errors import InputError
from cryogan.particles import read_particles, read_star, write_star

SETTINGS = Settings(max_shift=4.0, threads=1)


@pytest.fixture
def refined(copied: Callable[..., Path]) -> Callable[..., Path]:
    """A copy of the particles with more columns in the optics table."""

    def make(**columns: object) -> Path:
        star = copied()
        blocks = {name: dict(table.columns) for name, table in read_star(star).items()}
        blocks["optics"] |= {f"rln{name}": [str(value)] for name, value in columns.items()}
        write_star(star, blocks)
        return star

    return make


def test_check_says_what_is_corrected_and_what_is_left(refined: Callable[..., Path]) -> None:
    star = refined(BeamTiltX=0.4, MagMat00=1.01, MagMat11=0.99, EvenZernike="[0,0,0,0,1000,0,0,0,0]")
    report = check(star, SETTINGS)
    assert "1 % with the direction" in report.facts["magnification"]
    assert "beam tilt of up to 0.4 mrad" in report.facts["beam-tilt"]
    (left,) = [finding for finding in report.findings if finding.code == "aberrations"]
    assert left.sentence in report.doubts
    assert read_particles(star).ctf["magnification_00"][0] == 1.01


def test_a_run_on_what_is_too_strong_does_not_begin(refined: Callable[..., Path], tmp_path: Path) -> None:
    star = refined(EvenZernike="[0,0,0,0,9000,0,0,0,0]")
    for begin in (lambda: check(star, SETTINGS), lambda: reconstruct(star, tmp_path / "run", SETTINGS)):
        with pytest.raises(InputError, match=r"_rlnEvenZernike has terms that are not modelled, of up to 126 degrees"):
            begin()
    assert not (tmp_path / "run").exists()
