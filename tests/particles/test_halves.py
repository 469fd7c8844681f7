"""The division of particles into two halves that share neither pixels nor noise."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles import ParticleTable, read_particles, write_stack, write_star
from cryogan.particles.halves import ENOUGH_UNITS, divide, halves_of_portion, patches_of_half, recorded_halves


def table_of(
    folder: Path,
    images: list[int],
    micrographs: list[str] | None = None,
    **columns: list[object],
) -> ParticleTable:
    """Particles that show these images (from 1) of a stack, with their CTFs."""
    if not (folder / "s.mrcs").exists():
        write_stack(folder / "s.mrcs", np.random.default_rng(0).standard_normal((600, 4, 4)), 4.0)
    count = len(images)
    optics = {"DefocusU": 1e4, "DefocusV": 1e4, "DefocusAngle": 0, "Voltage": 300, "SphericalAberration": 2.7}
    values: dict[str, list[object]] = {
        "rlnImageName": [f"{number:06d}@s.mrcs" for number in images],
        "rlnImagePixelSize": [4.0] * count,
        "rlnAmplitudeContrast": [0.1] * count,
        **{f"rln{name}": [value] * count for name, value in optics.items()},
        **({"rlnMicrographName": list(micrographs)} if micrographs else {}),
        **columns,
    }
    write_star(folder / "p.star", {"particles": values})
    return read_particles(folder / "p.star")


def by_image(table: ParticleTable, subset: NDArray[np.int64]) -> dict[int, int]:
    return dict(zip(table.image_index.tolist(), subset.tolist(), strict=True))


def test_a_set_that_grows_or_is_sorted_keeps_its_halves(tmp_path: Path) -> None:
    whole = table_of(tmp_path, list(range(1, 601)))
    halves = divide(whole, 5)
    assert halves.source == "particle"
    assert 240 < (halves.subset == 1).sum() < 360  # five standard deviations
    expected = by_image(whole, halves.subset)
    for rows in (np.arange(100), np.arange(600)[::-1], np.arange(1, 600, 3)):
        part = whole.select(rows)
        assert by_image(part, divide(part, 5).subset).items() <= expected.items()
    assert by_image(whole, divide(whole, 6).subset) != expected


def test_many_micrographs_are_divided_whole(tmp_path: Path) -> None:
    names = [f"m{number % ENOUGH_UNITS}.mrc" for number in range(600)]
    table = table_of(tmp_path, list(range(1, 601)), names)
    halves = divide(table, 1)
    assert halves.source == "micrograph"
    assert not np.intersect1d(table.micrographs[halves.subset == 1], table.micrographs[halves.subset == 2]).size
    assert set(halves.subset) == {1, 2}
    fewer = table.select(table.micrographs != "m0.mrc")
    assert divide(fewer, 1).source == "particle"
    overlapping = divide(fewer, 1, overlap=True)
    assert overlapping.source == "micrograph"
    counts = [len(np.unique(fewer.micrographs[overlapping.subset == half])) for half in (1, 2)]
    assert sorted(counts) == [19, 20]  # few units take turns


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_an_image_are_in_one_half(tmp_path: Path, seed: int) -> None:
    """As after symmetry expansion: each image four times, not in a row."""
    table = table_of(tmp_path, [*range(1, 101)] * 4)
    halves = divide(table, seed)
    assert halves.copies == 300
    assert all(len(set(halves.subset[table.image_index == image])) == 1 for image in range(100))


def test_copies_with_other_micrograph_names_are_in_one_half(tmp_path: Path) -> None:
    names = [f"a{number}.mrc" for number in range(100)] + [f"b{number}.mrc" for number in range(100)]
    table = table_of(tmp_path, [*range(1, 101)] * 2, names)
    halves = divide(table, 0)
    assert halves.source == "micrograph"
    np.testing.assert_array_equal(halves.subset[:100], halves.subset[100:])


def test_helical_tubes_are_kept_whole(tmp_path: Path) -> None:
    """Tube 1 of one micrograph is another than tube 1 of the next."""
    tubes: list[object] = [1 + number // 10 % 3 for number in range(300)]
    table = table_of(
        tmp_path, list(range(1, 301)), [f"m{number // 30}.mrc" for number in range(300)], rlnHelicalTubeID=tubes
    )
    halves = divide(table, 2)
    assert halves.tubes == 30
    for start in range(0, 300, 10):
        assert len(set(halves.subset[start : start + 10])) == 1
    assert sorted((halves.subset == half).sum() for half in (1, 2)) == [150, 150]


def test_halves_of_the_file_are_kept(tmp_path: Path) -> None:
    given: list[object] = [1 + number % 3 // 2 for number in range(60)]
    table = table_of(tmp_path, list(range(1, 61)), rlnRandomSubset=given)
    halves = divide(table, 0)
    assert (halves.source, halves.moved) == ("input", 0)
    np.testing.assert_array_equal(halves.subset, given)
    np.testing.assert_array_equal(recorded_halves(table), given)
    anew = divide(table, 0, anew=True)
    assert (anew.source, anew.replaced) == ("particle", True)
    np.testing.assert_array_equal(anew.subset, divide(table_of(tmp_path, list(range(1, 61))), 0).subset)


def test_copies_that_the_file_separates_are_moved_together(tmp_path: Path) -> None:
    table = table_of(tmp_path, [1, 2, 3, 1], rlnRandomSubset=[1, 1, 2, 2])
    halves = divide(table, 0)
    assert (halves.copies, halves.moved) == (1, 1)
    np.testing.assert_array_equal(halves.subset, [1, 1, 2, 1])


def test_a_file_with_one_half_has_none(tmp_path: Path) -> None:
    table = table_of(tmp_path, list(range(1, 61)), rlnRandomSubset=[1] * 60)
    assert divide(table, 0).source == "particle"
    with pytest.raises(InputError, match="no column _rlnRandomSubset"):
        recorded_halves(table)


def test_another_number_is_no_half(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 18: _rlnRandomSubset is 3\. Write 1 or 2"):
        table_of(tmp_path, [1, 2, 3], rlnRandomSubset=[1, 2, 3])


def test_patches_of_shared_micrographs_are_dealt_out(tmp_path: Path) -> None:
    names = ["shared.mrc"] * 5 + ["single.mrc"] + ["one.mrc"] * 2
    patches = table_of(tmp_path, list(range(1, 9)), names)
    shared = np.array(["shared.mrc", "single.mrc"])
    first, second = (set(patches_of_half(patches, shared, half, 0).tolist()) for half in (1, 2))
    assert first & second == {5, 6, 7}  # a single patch is lent to both; only one half has particles of the last two
    assert first | second == set(range(8))
    assert sorted((len(first), len(second))) == [5, 6]


def test_portions_keep_the_halves_of_units_and_stay_even() -> None:
    halves: dict[str, int] = {}
    counts = [0, 0]
    for start in range(0, 60, 3):  # three units at a time, one of them again
        units = np.repeat([f"mic{unit:02d}" for unit in (max(start - 1, 0), start, start + 1)], (10, 100, 30))
        before = dict(halves)
        subset = halves_of_portion(units.astype(np.str_), halves, counts, seed=4)
        assert {unit: halves[unit] for unit in before} == before
        assert all(halves[unit] == half for unit, half in zip(units.tolist(), subset.tolist(), strict=True))
        assert abs(counts[0] - counts[1]) <= 100  # the largest unit
    assert sum(counts) == 20 * 140
