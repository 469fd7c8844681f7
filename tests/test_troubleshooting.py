"""Every heading of the troubleshooting page is what the program says: the messages are provoked."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryogan import Settings, check, phantom, read_particles, reconstruct, simulate
from cryogan.critics.micro_batch import OUT_OF_MEMORY
from cryogan.errors import KINDS, InputError
from cryogan.files import locked, unwritable
from cryogan.particles import ParticleImages
from cryogan.particles.star import read_star, write_star
from cryogan.run.checkpoint import load_checkpoint, save_checkpoint
from cryogan.run.observers import require_finite

PAGE = Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md"
CODES = re.compile(r" \((`[\w-]+`(, )?)+\)$")
HEADINGS = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)[:-2]  # the last two are tables
SETTINGS = Settings(max_shift=0.0, batch_size=4)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "set"
    simulate(phantom(16, 8.0, seed=1), 8.0, folder, count=12, snr=5.0, max_shift=0.0, micrographs=2)
    return folder


@pytest.fixture
def particles(data_set: Path, tmp_path: Path) -> Path:
    """The STAR file of 12 particles of 16 px, with noise.star beside it."""
    return shutil.copytree(data_set, tmp_path / "set") / "particles.star"


def changed(file: Path, pattern: str, replacement: str) -> Path:
    """A copy of a STAR file beside it, with the text changed."""
    text, count = re.subn(pattern, replacement, file.read_text())
    assert count
    copy = file.with_name(f"changed_{file.name}")
    copy.write_text(text)
    return copy


def no_ctf(particles: Path) -> None:
    check(changed(particles, "_rlnDefocusU", "_rlnOther"), SETTINGS)


def no_stack(particles: Path) -> None:
    check(changed(particles, r"particles\.mrcs", "absent.mrcs"), SETTINGS)


def premultiplied(particles: Path) -> None:
    blocks = {name: dict(table.columns) for name, table in read_star(particles).items()}
    blocks["optics"]["rlnCtfDataAreCtfPremultiplied"] = ["1"] * len(next(iter(blocks["optics"].values())))
    write_star(particles, blocks)
    check(particles, SETTINGS)


def other_micrographs(particles: Path) -> None:
    check(particles, SETTINGS, changed(particles.with_name("noise.star"), r"(\S+)\.mrc\b(?!s)", r"other\1.mrc"))


def other_box(particles: Path) -> None:
    folder = particles.parent.parent / "large"
    simulate(phantom(24, 8.0, seed=1), 8.0, folder, count=12, snr=5.0, max_shift=0.0, micrographs=2)
    check(particles, SETTINGS, folder / "noise.star")


def too_few(particles: Path) -> None:
    check(particles, SETTINGS.model_copy(update={"batch_size": 32}))


def not_empty(particles: Path) -> None:
    reconstruct(particles, particles.parent, SETTINGS)


def at_work(particles: Path) -> None:
    file = particles.with_name("lock")
    with locked(file, wait=False), locked(file, wait=False):
        pass


def no_checkpoint(particles: Path) -> None:
    file = particles.with_name("half1.pt")
    file.write_bytes(b"no checkpoint")
    load_checkpoint(file, torch.device("cpu"))


def no_device(particles: Path) -> None:
    check(particles, SETTINGS.model_copy(update={"device": "cuda:77"}))


def checkpoint_not_written(particles: Path) -> None:
    save_checkpoint(particles.parent / "absent" / "half1.pt", {})


def not_written(particles: Path) -> None:
    raise unwritable(particles.parent, OSError(28, "No space left on device"))


def stack_changed(particles: Path) -> None:
    table = read_particles(particles)
    with particles.with_suffix(".mrcs").open("ab") as stack:
        stack.write(b"more")
    ParticleImages(table, 16, radius_A=56.0).batch(np.arange(2))


def not_finite(particles: Path) -> None:
    require_finite(1, SimpleNamespace(step=7), {"map_change": float("nan")})


def out_of_memory(particles: Path) -> None:
    raise InputError(OUT_OF_MEMORY)


PROVOKED: dict[str, Callable[[Path], None]] = {
    "no CTF": no_ctf,
    "image stack": no_stack,
    "multiplied by their CTF": premultiplied,
    "no patch comes": other_micrographs,
    "Extract both alike": other_box,
    "too few": too_few,
    "not an empty folder": not_empty,
    "Another process": at_work,
    "not a checkpoint": no_checkpoint,
    "no device": no_device,
    "Cannot write the checkpoint": checkpoint_not_written,
    "Cannot write to": not_written,
    "has changed since": stack_changed,
    "Out of memory": out_of_memory,
    "the map is not finite": not_finite,
}
ELSEWHERE = {"exited unexpectedly", "was killed"}  # tests/run/test_processes.py kills the processes of a run


@pytest.mark.parametrize("heading", PROVOKED)
def test_headings_are_the_messages(heading: str, particles: Path) -> None:
    (words,) = (words for words in HEADINGS if heading in words)
    with pytest.raises(InputError) as error:
        PROVOKED[heading](particles)
    assert is_in(words, str(error.value))


def is_in(words: str, message: str) -> bool:
    """Whether a message has the words of a heading, with anything where these have dots."""
    return re.search(".*".join(re.escape(part.strip()) for part in words.split("...")), message, re.DOTALL) is not None


@pytest.mark.parametrize("heading", [heading for heading in HEADINGS if CODES.search(heading)])
def test_headings_with_codes_are_warnings(heading: str) -> None:
    for code in re.findall(r"`([\w-]+)`", heading):
        assert is_in(CODES.sub("", heading), KINDS[code].template)


def test_every_heading_is_looked_at() -> None:
    known = ELSEWHERE | set(PROVOKED)
    for heading in HEADINGS:
        assert CODES.search(heading) or any(words in heading for words in known), heading
