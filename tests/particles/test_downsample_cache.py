"""Particles cropped once: the same images, made once, gone on with, and never those of other particles."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.particles import ParticleImages, ParticleTable, crop, open_stack, read_particles, write_stack
from cryogan.particles import downsample_cache as module

BOX, RADIUS = 16, 50.0


@pytest.fixture
def table(copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> ParticleTable:
    monkeypatch.setattr(module, "CHUNK", 64)
    return read_particles(copied())


def make(table: ParticleTable, folder: Path, **changes: object) -> tuple[Path, list[float]]:
    shares: list[float] = []
    given = {"box": BOX, "radius_A": RADIUS, "invert": False} | changes
    return crop(table, folder=folder, progress=shares.append, **given), shares


def images_of(stack: Path) -> np.ndarray:
    return np.asarray(open_stack(stack), dtype=np.float32)


@pytest.mark.parametrize("box", [BOX, BOX // 2])
def test_images_are_those_of_the_files(table: ParticleTable, tmp_path: Path, box: int) -> None:
    stack, shares = make(table, tmp_path / "cache", invert=True)
    assert shares[-1] == 1.0
    rows = np.random.default_rng(0).permutation(len(table))[:50]
    direct = ParticleImages(table.select(rows), box, RADIUS, invert=True)
    for limit in (0, 1 << 30):
        ours = ParticleImages(table.select(rows), box, RADIUS, True, limit, cropped=stack)
        assert ours.pixel_size == pytest.approx(direct.pixel_size)
        every = np.arange(len(rows))
        np.testing.assert_allclose(ours.batch(every), direct.batch(every), rtol=1e-3, atol=5e-3)  # float16
        assert ours.table.stacks == table.stacks  # what is written names the originals


@pytest.mark.parametrize("keep_gradient", [False, True])
def test_a_gradient_is_subtracted_before_or_kept(table: ParticleTable, tmp_path: Path, keep_gradient: bool) -> None:
    raw = np.array(open_stack(table.stacks[0]), dtype=np.float32)
    raw += raw.std() * np.linspace(-1, 1, raw.shape[-1], dtype=np.float32)
    write_stack(table.stacks[0], raw, table.pixel_size)
    table = read_particles(table.source)
    stack, _ = make(table, tmp_path / "cache", keep_gradient=keep_gradient)
    rows = np.arange(20)
    direct = ParticleImages(table, BOX, RADIUS, keep_gradient=keep_gradient)
    ours = ParticleImages(table, BOX, RADIUS, cropped=stack, keep_gradient=keep_gradient)
    np.testing.assert_allclose(ours.batch(rows), direct.batch(rows), rtol=1e-3, atol=5e-3)  # float16


def test_unusable_images_are_dropped_from_both(table: ParticleTable, tmp_path: Path) -> None:
    mapped = open_stack(table.stacks[0])
    raw = np.memmap(table.stacks[0], dtype=mapped.dtype, mode="r+", offset=1024, shape=mapped.shape)
    raw[3], raw[5, 0, 0] = 1.0, np.nan
    raw.flush()
    table = read_particles(table.source)
    stack, _ = make(table, tmp_path / "cache")
    kept = ParticleImages(table, BOX, RADIUS).kept_rows
    np.testing.assert_array_equal(ParticleImages(table, BOX, RADIUS, cropped=stack).kept_rows, kept)
    assert set(range(6)) - set(kept.tolist()) == {3, 5}


def test_it_is_made_once_and_anew_when_an_input_changes(table: ParticleTable, tmp_path: Path) -> None:
    stack, _ = make(table, tmp_path)
    assert make(table, tmp_path) == (stack, [])
    changes = ({"box": 8}, {"radius_A": 40.0}, {"invert": True}, {"keep_gradient": True})
    others = {make(table, tmp_path, **change)[0] for change in changes}
    others.add(make(table.select(np.arange(100)), tmp_path)[0])
    raw = np.array(open_stack(table.stacks[0]))
    write_stack(table.stacks[0], raw[::-1], table.pixel_size)
    table = read_particles(table.source)
    others.add(make(table, tmp_path)[0])
    assert len(others | {stack}) == 7
    with pytest.raises(InputError, match="has changed since it was cropped"):
        ParticleImages(table, BOX, RADIUS, cropped=stack)


def test_half_made_or_spoilt_stacks_are_mended(table: ParticleTable, tmp_path: Path) -> None:
    stack, _ = make(table, tmp_path)
    whole, notes = images_of(stack), stack.with_suffix(".json")
    notes.write_text(json.dumps(json.loads(notes.read_text())[:2]))  # killed after two chunks
    _, shares = make(table, tmp_path)
    assert shares[0] == pytest.approx(3 * 64 / len(table))
    np.testing.assert_array_equal(images_of(stack), whole)
    with stack.open("r+b") as file:
        file.seek(1024 + 2 * BOX**2 * 70)
        file.write(b"spoilt")
    _, shares = make(table, tmp_path)
    assert shares[0] == pytest.approx(2 * 64 / len(table))
    np.testing.assert_array_equal(images_of(stack), whole)


def test_other_particles_are_refused(table: ParticleTable, tmp_path: Path) -> None:
    stack, _ = make(table.select(np.arange(100)), tmp_path)
    ParticleImages(table.select(np.arange(50, 100)), BOX, RADIUS, cropped=stack)
    with pytest.raises(InputError, match="does not hold all images"):
        ParticleImages(table.select(np.arange(50, 101)), BOX, RADIUS, cropped=stack)
    other = read_particles(table.source.parent / "noise.star", need_ctf=False)
    with pytest.raises(InputError, match="holds no images of"):
        ParticleImages(other, BOX, RADIUS, cropped=stack)


def test_what_the_cache_says_is_usable_is_not_looked_at_again(table: ParticleTable, tmp_path: Path) -> None:
    stack, _ = make(table, tmp_path)
    time = stack.stat().st_mtime_ns
    with stack.open("r+b") as file:  # spoilt without a trace, so that only who looks at it knows
        file.seek(1024 + 2 * BOX**2 * 7)
        file.write(np.full(BOX**2, np.nan, dtype="<f2").tobytes())
    os.utime(stack, ns=(time, time))
    assert len(ParticleImages(table, BOX, RADIUS, memory_limit_bytes=0, cropped=stack)) == len(table)
    assert len(ParticleImages(table, BOX, RADIUS, cropped=stack)) == len(table) - 1  # held, so read


def test_checked_images_are_read_when_they_are_asked_for(table: ParticleTable) -> None:
    images = ParticleImages(table, BOX, RADIUS, memory_limit_bytes=0, checked=True)
    table.stacks[0].unlink()
    with pytest.raises(InputError, match="Bring the file back"):
        images.batch(np.arange(3))
    with pytest.raises(InputError, match="Bring the file back"):
        ParticleImages(table, BOX, RADIUS, memory_limit_bytes=0)


def test_aberrations_are_taken_out_once(table: ParticleTable, tmp_path: Path) -> None:
    optics = dict.fromkeys(("magnification_00", "beam_tilt_x"), np.full(len(table), 1.02))
    aberrated = replace(table, ctf=table.ctf | optics)
    stack, plain = make(aberrated, tmp_path)[0], make(table, tmp_path)[0]
    assert stack != plain
    every = np.arange(len(table))
    direct = ParticleImages(aberrated, BOX, RADIUS).batch(every)
    cropped = ParticleImages(aberrated, BOX, RADIUS, cropped=stack).batch(every)
    np.testing.assert_allclose(cropped, direct, rtol=1e-3, atol=5e-3)  # float16
    assert np.abs(direct - ParticleImages(table, BOX, RADIUS).batch(every)).max() > 0.3
