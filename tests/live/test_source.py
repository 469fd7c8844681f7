"""Particle files that grow while they are read, and what is taken up of them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cryogan.config import resolve
from cryogan.errors import InputError
from cryogan.live.folder import LiveFolder
from cryogan.live.ledger import GONE_LOOKS, SOURCE_NAME, Change, Ledger
from cryogan.live.source import Source
from cryogan.live.star_rows import join
from cryogan.particles import open_stack, read_particles, read_star, write_stack, write_star
from cryogan.particles.preprocess import ImageReader

SETTINGS = resolve("default", None, {"box": 24, "symmetry": "D2"})


class Collection:
    """A project in which particles appear: a STAR file that names a stack for each micrograph."""

    def __init__(self, root: Path, particles: Path) -> None:
        self.root, self.star = root, root / "particles.star"
        root.mkdir()
        self.blocks = read_star(particles / "particles.star")
        self.images = np.array(open_stack(particles / "particles.mrcs"))
        self.rows: list[int] = []

    def names(self, rows: range) -> list[str]:
        return [f"{row % 20 + 1:06d}@Extract/part{row // 20:02d}.mrcs" for row in rows]

    def write_stacks(self, rows: range) -> None:
        (self.root / "Extract").mkdir(exist_ok=True)
        for part in {row // 20 for row in rows}:
            images = self.images[20 * part : 20 * part + 20]
            write_stack(self.root / "Extract" / f"part{part:02d}.mrcs", images, 4.0, np.float16)

    def text(self, rows: range, star: Path | None = None, **columns: object) -> Path:
        table = self.blocks["particles"]
        chosen = {name: [values[row] for row in rows] for name, values in table.columns.items()}
        chosen["rlnImageName"] = self.names(rows)
        chosen["rlnMicrographName"] = [f"GridSquare_{row // 100}/mic{row // 20:02d}.mrc" for row in rows]
        for name, value in columns.items():
            chosen[name] = [value] * len(chosen["rlnImageName"])
        write_star(star or self.star, {"optics": self.blocks["optics"].columns, "particles": chosen})
        return star or self.star

    def add(self, count: int) -> None:
        """Write stacks, then the STAR file anew with more rows."""
        self.rows = list(range(len(self.rows) + count))
        self.write_stacks(range(len(self.rows)))
        self.text(range(len(self.rows)))


class Follower:
    """A source and a ledger, as `cryogan live` has them."""

    def __init__(self, path: Path, out: Path) -> None:
        self.folder = LiveFolder(out)
        self.folder.make()
        self.source, self.ledger = Source(path, self.folder.copies), Ledger(self.folder, SETTINGS)

    def look(self) -> list[Change]:
        look = self.source.look()
        changes = [self.ledger.follow_names(look)]
        while new := self.ledger.new(look):
            changes.append(self.ledger.take_up(self.source, new, 0.0))
        return changes

    def settle(self) -> Change:
        """Look twice, so that all stands still; what was taken up."""
        changes = [change for _ in range(2) for change in self.look()]
        names = ("taken", "rewritten", "unusable", "vanished", "returned")
        return Change(None, *(sum(getattr(change, name) for change in changes) for name in names))


@pytest.fixture
def collection(particles: Path, tmp_path: Path) -> Collection:
    return Collection(tmp_path / "project", particles)


@pytest.fixture
def follower(collection: Collection, tmp_path: Path) -> Follower:
    return Follower(collection.star, tmp_path / "live")


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_rows_that_are_appended_are_taken_up_once(collection: Collection, follower: Follower) -> None:
    collection.add(60)
    assert follower.settle().taken == 60
    assert follower.settle() == Change()
    collection.add(40)
    before = snapshot(collection.root)
    assert follower.settle().taken == 40
    assert len(follower.ledger) == 100
    assert snapshot(collection.root) == before  # nothing of the collection is touched
    assert Follower(collection.star, follower.folder.path).settle() == Change()  # another start knows them all


def test_a_portion_has_the_images_of_a_run(collection: Collection, follower: Follower) -> None:
    collection.add(40)
    follower.settle()
    portion = read_particles(follower.folder.portion_star(1))
    names = read_star(follower.folder.portion_star(1))["particles"].texts(SOURCE_NAME)
    table = read_particles(collection.star)
    assert names == table.image_names()
    radius = 0.875 * 32 * 4.0 / 2
    wanted, _ = ImageReader(table, 24, radius).read(np.arange(40))
    found, _ = ImageReader(portion, 24, radius, keep_gradient=True).read(np.arange(40))
    np.testing.assert_allclose(found, wanted, atol=0.01)
    assert portion.pixel_size == pytest.approx(4.0 * 32 / 24)
    for name in ("defocus_u", "defocus_angle", "voltage"):
        np.testing.assert_allclose(portion.ctf[name], table.ctf[name], rtol=1e-6)
    assert portion.subset is not None
    assert {1, 2} == set(portion.subset)


def test_a_line_that_is_half_written_waits(collection: Collection, follower: Follower) -> None:
    collection.add(60)
    whole = collection.star.read_bytes().rstrip(b"\n") + b"\n"
    lines = whole.splitlines(keepends=True)
    collection.star.write_bytes(b"".join(lines[:-10]) + lines[-10][:25])
    assert follower.settle().taken == 50
    collection.star.write_bytes(whole)
    assert follower.settle().taken == 10


def test_a_stack_that_is_half_written_waits(collection: Collection, follower: Follower) -> None:
    collection.add(60)
    stack = collection.root / "Extract" / "part01.mrcs"
    content = stack.read_bytes()
    stack.write_bytes(content[: len(content) // 2])
    assert follower.settle().taken == 40
    assert follower.source.look().waiting == 20
    stack.write_bytes(content[: len(content) - 100])
    assert follower.settle().taken == 0
    stack.write_bytes(content)
    assert follower.settle().taken == 20


def test_a_stack_that_grows_between_two_looks_waits(collection: Collection, follower: Follower) -> None:
    collection.add(20)
    stack = collection.root / "Extract" / "part00.mrcs"
    for tick in range(1, 4):
        os.utime(stack, ns=(tick, tick))
        assert not follower.source.look().ready
    assert len(follower.source.look().ready) == 20


def test_a_file_cut_short_by_a_rewrite_makes_nothing_vanish(collection: Collection, follower: Follower) -> None:
    collection.add(60)
    follower.settle()
    collection.text(range(10))
    assert follower.look() == [Change()]
    collection.text(range(60))
    for _ in range(GONE_LOOKS + 1):
        assert follower.look() == [Change()]
    assert len(follower.ledger) == 60


def test_particles_that_vanish_are_said_and_may_come_back(collection: Collection, follower: Follower) -> None:
    collection.add(60)
    follower.settle()
    collection.text(range(45))
    changes = [change for _ in range(GONE_LOOKS + 1) for change in follower.look()]
    assert sum(change.vanished for change in changes) == 15
    assert len(follower.ledger) == 45
    assert len(Follower(collection.star, follower.folder.path).ledger) == 45
    collection.text(range(60))
    assert follower.settle() == Change(returned=15)
    assert len(follower.ledger) == 60


def test_rewritten_particles_are_known_by_name(collection: Collection, follower: Follower) -> None:
    collection.add(60)
    follower.settle()
    collection.images[25] += 5 * collection.images[3]
    collection.write_stacks(range(20, 40))  # the stack is written again, one image is another
    assert follower.settle() == Change(rewritten=1)
    collection.text(range(60), rlnDefocusU=12345.0)  # a CTF refinement
    assert follower.settle() == Change(rewritten=60)
    assert len(follower.ledger) == 60


def test_a_folder_that_is_away_is_not_empty(collection: Collection, follower: Follower, tmp_path: Path) -> None:
    collection.add(40)
    follower = Follower(collection.root, tmp_path / "of_folder")
    assert follower.settle().taken == 40
    away = collection.root.rename(tmp_path / "away")
    assert follower.source.look().away
    collection.root.mkdir()  # the mount point
    for _ in range(GONE_LOOKS + 1):
        assert follower.look() == [Change()]
    collection.root.rmdir()
    away.rename(collection.root)
    collection.add(20)
    assert follower.settle().taken == 20


def test_a_folder_of_files(collection: Collection, tmp_path: Path) -> None:
    collection.write_stacks(range(60))
    (collection.root / "stars").mkdir()
    write_star(collection.root / "micrographs.star", {"micrographs": {"rlnMicrographName": ["a.mrc"]}})
    follower = Follower(collection.root, tmp_path / "of_folder")
    collection.text(range(20), collection.root / "first.star")
    assert follower.settle().taken == 20
    collection.text(range(20, 60), collection.root / "stars" / "second.star")
    assert follower.settle().taken == 40
    assert follower.source.look() is follower.source.look()  # nothing has changed: nothing is read again
    joined = join([follower.folder.portion_star(number) for number in follower.folder.portion_numbers()])
    assert len(joined["particles"]["rlnImageName"]) == 60
    assert joined["optics"]["rlnOpticsGroup"] == [1]


def test_stacks_of_one_name_in_two_folders_are_two(collection: Collection, tmp_path: Path) -> None:
    for part in ("a", "b"):
        collection.write_stacks(range(20))
        (collection.root / part).mkdir()
        (collection.root / "Extract").rename(collection.root / part / "Extract")
        collection.text(range(20), collection.root / part / "particles.star")
    follower = Follower(collection.root, tmp_path / "of_folder")
    assert follower.settle().taken == 40
    assert {name.partition("@")[2] for name in follower.ledger.taken} == {
        "a/Extract/part00.mrcs",
        "b/Extract/part00.mrcs",
    }
    (collection.root / "a" / "Extract").rename(collection.root / "away")
    for _ in range(GONE_LOOKS + 1):
        assert follower.look() == [Change()]  # they are listed


def test_optics_groups_are_joined_by_content(collection: Collection, tmp_path: Path) -> None:
    collection.write_stacks(range(40))
    files = [collection.text(range(20), tmp_path / "a.star"), collection.text(range(20, 40), tmp_path / "b.star")]
    other = files[1].read_text().replace("opticsGroup1\t300.0", "another\t200.0")
    assert other != files[1].read_text()
    files[1].write_text(other)
    joined = join(files)
    assert joined["optics"]["rlnVoltage"] == ["300.000000", "200.000000"]
    assert joined["particles"]["rlnOpticsGroup"] == [1] * 20 + [2] * 20


def test_a_row_that_cannot_be_used_stops_only_its_neighbours(collection: Collection, follower: Follower) -> None:
    collection.add(60)
    lines = collection.star.read_text().splitlines(keepends=True)
    (row,) = [i for i, line in enumerate(lines) if line.startswith("000017@Extract/part01")]
    fields = lines[row].split("\t")
    lines[row] = "\t".join([fields[0], "-1e9", *fields[2:]])
    collection.star.write_text("".join(lines))
    taken, complaints = 0, []
    for _ in range(2):
        look = follower.source.look()
        while new := follower.ledger.new(look):
            try:
                taken += follower.ledger.take_up(follower.source, new, 0.0).taken
            except InputError as error:
                complaints.append(str(error))
    assert 60 - 8 <= taken < 60
    assert len(complaints) == 1
    assert "rlnDefocusU" in complaints[0]


def test_halves_stay_and_are_even(collection: Collection, follower: Follower) -> None:
    collection.add(60)
    follower.settle()
    first = halves(follower)
    collection.add(240)
    follower.settle()
    later = halves(follower)
    assert {name: later[name] for name in first} == first
    assert abs(sum(half == 1 for half in later.values()) - 150) <= 10
    units = {}
    for name, half in later.items():
        assert units.setdefault(name.split("@")[1], half) == half  # no micrograph is in both


def halves(follower: Follower) -> dict[str, int]:
    found = {}
    for number in follower.folder.portion_numbers():
        table = read_star(follower.folder.portion_star(number))["particles"]
        found |= dict(zip(table.texts(SOURCE_NAME), map(int, table.texts("rlnRandomSubset")), strict=True))
    return found


def test_an_interrupted_portion_is_taken_up_anew(collection: Collection, follower: Follower) -> None:
    collection.add(20)
    follower.settle()
    for file in (follower.folder.portion_stack, follower.folder.portion_source, follower.folder.portion_record):
        shutil.copy(file(1), file(2))  # as a kill before the last file leaves them
    collection.add(20)
    again = Follower(collection.star, follower.folder.path)
    assert len(again.ledger) == 20
    assert again.settle().taken == 20
