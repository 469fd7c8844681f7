"""Damaged files: a reader gives data or raises InputError, whatever the bytes, and allocates by the file's size."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cryogan.errors import InputError
from cryogan.particles import (
    ParticleImages,
    open_stack,
    read_particles,
    read_star,
    read_volume,
    unmodelled,
    write_stack,
    write_star,
    write_volume,
)
from cryogan.particles.micrographs import read_micrographs

Reader = Callable[[Path], object]

NUMBERS = ["nan", "inf", "-inf", "-1", "0", "1e-320", "1e308", "1e400", "1_0", "0x10", "٣", "9" * 25, "9" * 5000]
WORDS = [
    *NUMBERS,
    *(f"{number}@stack.mrcs" for number in NUMBERS),
    *("", '"', "'", '"a b"', "#", "@", "1@", "1@/", "1@.", "1@..", "1@/dev/zero", "1@" + "x" * 5000, "\0", "\u2028"),
    *("loop_", "data_", "data_optics", "data_particles", "data_images", "_", "_x", "_x 1", "\n", "\t", "\r\n\f"),
    *(
        f"_rln{name}"
        for name in (
            *("ImageName", "MicrographName", "OpticsGroup", "ImageSize", "ImagePixelSize", "MicrographPixelSize"),
            *("DetectorPixelSize", "Magnification", "PhaseShift", "CtfBfactor", "CtfDataAreCtfPremultiplied"),
            *("EvenZernike", "OddZernike", "MagMat00", "BeamTiltX", "HelicalTubeID", "CtfDataArePhaseFlipped"),
        )
    ),
]
DTYPES = ["'<u4'", "'<i8'", "'<u8'", "'>f4'", "'<f2'", "'<f16'", "'<c8'", "'|O'", "'|V0'", "'|S0'", "'<U3'", "'|b1'"]
DTYPES += ["'<M8[s]'", "'<f4', (2,)", "'<f4', (0,)", "'|S99999999'", "[('a', '<f4')]", "'", "1", "None", "(" * 300]
SHAPES = ["(6,)", "(5,)", "(7,)", "()", "(2, 3)", "(-1,)", "(99999999999,)", "(9999999999999999999,)", "(True,)", "6"]
INTEGERS = [0, 1, 2, 3, 6, 12, 16, 255, -1, -(1 << 31), (1 << 31) - 1, 1 << 16, (1 << 16) - 1, 1 << 30]
MRC_FIELDS = [0, 4, 8, 12, 28, 32, 36, 40, 44, 48, 92, 208, 212]  # sizes, mode, mx, cell, nsymbt, MAP, stamp


def damage_bytes(content: bytes, random: Random) -> bytes:
    """Flip, overwrite, cut, insert or repeat at a random place, more often near the beginning."""
    place = random.randrange(min(len(content), random.choice([128, 1024, 1 << 30])) + 1)
    length = random.choice([1, 2, 4, 8, 100, 2000])
    match random.randrange(6):
        case 0 if place < len(content):
            return content[:place] + bytes([content[place] ^ (1 << random.randrange(8))]) + content[place + 1 :]
        case 1:
            return content[:place] + random.randbytes(length) + content[place + length :]
        case 2:
            return content[:place]
        case 3:
            return content[:place] + content[place + length :]
        case 4:
            return content[:place] + content[place : place + length] + content[place:]
        case _:
            return content[:place] + random.choice([b"\0", b"\xff", b"\x7f"]) * length + content[place + length :]


def damage_star(content: bytes, random: Random) -> bytes:
    """Swap, replace, repeat or remove tokens or lines."""
    lines = [line.split(" ") for line in content.decode(errors="replace").replace("\t", " ").split("\n")]
    tokens = [(row, column) for row, line in enumerate(lines) for column in range(len(line)) if line[column]]
    if not tokens:
        return content
    (row, column), (other_row, other) = random.choice(tokens), random.choice(tokens)
    match random.randrange(7):
        case 0:
            lines[row][column], lines[other_row][other] = lines[other_row][other], lines[row][column]
        case 1:
            lines[row], lines[other_row] = lines[other_row], lines[row]
        case 2:
            lines.insert(row, list(lines[other_row]))
        case 3:
            del lines[row]
        case 4:
            del lines[row][column]
        case _:
            lines[row][column] = random.choice(WORDS)
    return "\n".join(" ".join(line) for line in lines).encode()


def damage_mrc(content: bytes, random: Random) -> bytes:
    """Set a field of the header to an extreme value."""
    value = random.choice(INTEGERS).to_bytes(4, random.choice(["little", "big"]), signed=True)
    field = random.choice(MRC_FIELDS)
    return content[:field] + value + content[field + 4 :]


def damage_npy(content: bytes, random: Random) -> bytes:
    """Change the shape, a type or a name in the header."""
    end = content.find(b"\n") + 1
    header = content[:end].decode("latin-1")
    names = header.split("'")[1::2]
    match random.randrange(4):
        case 0:
            start = header.rfind("(")
            header = header[:start] + random.choice(SHAPES) + header[header.rfind(")") + 1 :]
        case 1 if names:
            header = header.replace(f"'{random.choice(names)}'", random.choice(DTYPES), 1)
        case 2 if names:
            header = header.replace(random.choice(names), random.choice(names), 1)
        case _ if names:
            name = random.choice([name for name in names if name[:1] in "<|>"] or names)
            header = header.replace(f"'{name}'", random.choice(DTYPES), 1)
    changed = header.encode("latin-1")
    # The length that the file says is kept true, so that the parser sees what was changed.
    return changed[:8] + max(len(changed) - 10, 0).to_bytes(4, "little")[:2] + changed[10:] + content[end:]


def read_images(path: Path) -> object:
    """The images of a particle file, each of them read anew."""
    table = read_particles(path)
    unmodelled(table, table.box, table.pixel_size)
    images = ParticleImages(table, min(8, table.box), 0.4 * table.box * table.pixel_size, memory_limit_bytes=0)
    return images.batch(np.arange(len(images)))


def read_beside(stack: Path) -> object:
    """The images of a damaged stack, by the STAR file beside it."""
    return read_images(stack.with_name("particles.star"))


def pixels(path: Path) -> object:
    return np.array(open_stack(path))


@pytest.fixture
def valid(make_star: Callable[..., Path], make_cs: Callable[..., Path], tmp_path: Path) -> dict[str, Path]:
    """A file of each kind, with all that it names beside it."""
    star, cs = make_star(), make_cs()
    write_volume(tmp_path / "volume.mrc", np.arange(4096, dtype=np.float32).reshape(16, 16, 16), 2.5)
    for name in ("mic0.mrc", "mic1.mrc"):
        write_stack(tmp_path / name, np.zeros((1, 16, 16)), 2.5)
    optics = {"rlnOpticsGroup": [1], "rlnMicrographPixelSize": [2.5]}
    micrographs = {"rlnMicrographName": ["mic0.mrc", "mic1.mrc"], "rlnOpticsGroup": [1, 1]}
    write_star(tmp_path / "micrographs.star", {"optics": optics, "micrographs": micrographs})
    columns = read_star(star)["particles"].columns
    constants = {"rlnVoltage": 300, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    constants |= {"rlnDetectorPixelSize": 5.0, "rlnMagnification": 2e4}
    old = {name: [value] * 6 for name, value in constants.items()}
    write_star(tmp_path / "old.star", {"": columns | old})
    refined = {name: list(values) for name, values in read_star(star)["optics"].columns.items()}
    refined |= {"rlnBeamTiltX": [0.5], "rlnOddZernike": ["[0,1,2,3,4,5]"], "rlnEvenZernike": ["[1,2,3,4,5,6,7,8,9]"]}
    refined |= {"rlnMagMat00": [1.01], "rlnMagMat01": [0.0], "rlnMagMat10": [0.0], "rlnMagMat11": [0.99]}
    write_star(tmp_path / "refined.star", {"optics": refined, "particles": columns})
    return {
        "star": star,
        "refined star": tmp_path / "refined.star",
        "star 3.0": tmp_path / "old.star",
        "micrographs": tmp_path / "micrographs.star",
        "cs": cs,
        "stack": tmp_path / "stack.mrcs",
        "volume": tmp_path / "volume.mrc",
    }


KINDS: dict[str, tuple[Callable[[bytes, Random], bytes], tuple[Reader, ...]]] = {
    "star": (damage_star, (read_images,)),
    "refined star": (damage_star, (read_images,)),
    "star 3.0": (damage_star, (read_images,)),
    "micrographs": (damage_star, (read_micrographs,)),
    "cs": (damage_npy, (read_images,)),
    "stack": (damage_mrc, (pixels, read_beside)),
    "volume": (damage_mrc, (read_volume,)),
}


@pytest.mark.parametrize("examples", [60, pytest.param(17_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind: str, examples: int, valid: dict[str, Path]) -> None:
    path = valid[kind]
    content = path.read_bytes()
    damage, readers = KINDS[kind]

    @settings(
        max_examples=examples,
        phases=[Phase.generate],  # the seed says it all: nothing to make smaller
        deadline=None,
        database=None,
        derandomize=examples < 1000,  # the quick ones are the same each time
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, (1 << 64) - 1))
    def read(seed: int) -> None:
        random, damaged = Random(seed), content
        for _ in range(random.randint(1, 4)):
            damaged = random.choice([damage, damage, damage_bytes])(damaged, random)
        path.write_bytes(damaged)
        for reader in readers:
            tracemalloc.start()
            try:
                reader(path)
            except InputError as refused:
                output = str(refused)
                output.encode()  # a terminal can show it
                assert len(output.splitlines()) == 1
                assert len(output) < 2000
            finally:
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            assert peak < 2_000_000 + 50 * len(damaged)

    read()
