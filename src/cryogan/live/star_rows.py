"""Rows of particle STAR files: chosen from one file, or joined from several."""

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryogan.errors import InputError
from cryogan.particles import StarTable
from cryogan.particles.relion import CTF_COLUMNS, particle_block
from cryogan.particles.star import read_star

Columns = dict[str, list[object]]
Blocks = dict[str, Columns]
GROUP, GROUP_NAME = "rlnOpticsGroup", "rlnOpticsGroupName"


def choose_rows(path: Path, blocks: dict[str, StarTable], rows: Sequence[int]) -> Blocks:
    """Return some particles of a file with its optics groups.

    Args:
        path: the file, for messages.
        blocks: as `read_star` gives them.
        rows: of the particles, from 0.
    """
    particles = particle_block(path, blocks)
    chosen: Columns = {name: [values[row] for row in rows] for name, values in particles.columns.items()}
    optics = blocks.get("optics")
    if optics is None:
        return {"particles": chosen}
    return {"optics": {name: list(values) for name, values in optics.columns.items()}, "particles": chosen}


def fingerprints(path: Path, blocks: dict[str, StarTable]) -> list[int]:
    """Return a number for each particle that changes with its CTF, as text."""
    particles, optics = particle_block(path, blocks), blocks.get("optics")
    named = [particles.columns[name] for name in CTF_COLUMNS.values() if name in particles]
    if optics is not None and GROUP in optics and GROUP in particles:
        groups = {key: str([values[row] for values in optics.columns.values()]) for row, key in _groups(optics)}
        named.append([groups.get(key, "") for key in particles.columns[GROUP]])
    return [zlib.crc32(" ".join(texts).encode()) for texts in zip(*named, strict=True)] or [0] * len(particles)


def join(files: Iterable[Path]) -> Blocks:
    """Return the particles of several files in one table, with the columns that all have.

    Optics groups that are alike but for number and name are one.

    Raises:
        InputError: there is no file, or some have optics groups and others not.
    """
    particles: Columns = {}
    optics: Columns = {}
    numbers: dict[str, int] = {}  # of optics groups by their content
    with_optics: set[bool] = set()
    for path in files:
        blocks = read_star(path)
        part = choose_rows(path, blocks, range(len(particle_block(path, blocks))))
        with_optics.add("optics" in part)
        if len(with_optics) > 1:
            raise InputError(f"{path}: has an optics table, or none, unlike the files before. Write all alike.")
        rows = part["particles"]
        if "optics" in part:
            rows[GROUP] = _renumbered(part, blocks["optics"], optics, numbers)
        particles = rows if not particles else _appended(particles, rows)
    if not particles:
        raise InputError("There are no particles to join. Wait for the first.")
    return {"optics": optics, "particles": particles} if optics else {"particles": particles}


def _groups(optics: StarTable) -> list[tuple[int, str]]:
    return list(enumerate(optics.columns[GROUP]))


def _renumbered(part: Blocks, table: StarTable, optics: Columns, numbers: dict[str, int]) -> list[object]:
    """Return the particles' groups as they are numbered in `optics`, to which new ones are added."""
    new: dict[object, object] = {}
    for row, key in _groups(table):
        values: dict[str, object] = {name: texts[row] for name, texts in table.columns.items()}
        content = str(sorted((name, value) for name, value in values.items() if name not in (GROUP, GROUP_NAME)))
        if content not in numbers:
            numbers[content] = len(numbers) + 1
            values |= {GROUP: numbers[content], GROUP_NAME: f"opticsGroup{numbers[content]}"}
            joined = {name: [value] for name, value in values.items()}
            optics.update(joined if not optics else _appended(optics, joined))
        new[key] = numbers[content]
    return [new[key] for key in part["particles"][GROUP]]


def _appended(columns: Columns, more: Columns) -> Columns:
    return {name: [*values, *more[name]] for name, values in columns.items() if name in more}
