from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryogan.particles import ParticleImages, ParticleTable, contrast_sign, read_particles, write_stack, write_star
from cryogan.simulation import simulate
from development_data import DATA

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no development data in {DATA}; set CRYOGAN_DATA")
BOX, PIXEL_SIZE = 32, 5.0


def density(shape: str) -> np.ndarray:
    """A molecule (z, y, x) of density 1, some 100 A wide."""
    z, y, x = (np.indices((BOX, BOX, BOX)) - BOX // 2) * PIXEL_SIZE
    across = np.hypot(x, y)
    inside = {
        "ball": np.hypot(across, z) < 40,
        "shell": np.abs(np.hypot(across, z) - 50) < 8,
        "ring": np.hypot(across - 45, z) < 12,
        "rod": (across < 12) & (np.abs(z) < 60),
        "two lobes": np.hypot(across, np.abs(z) - 45) < 20,
    }
    return inside[shape].astype(np.float32)


def with_ctf_of(table: ParticleTable, particles: ParticleTable) -> ParticleTable:
    """Background patches, looked at as if they were particles."""
    rows = np.arange(len(table)) % len(particles)
    return replace(table, ctf={name: values[rows] for name, values in particles.ctf.items()})


@pytest.mark.parametrize("shape", ["ball", "shell", "ring", "rod", "two lobes"])
def test_hollow_round_and_long_molecules(tmp_path: Path, shape: str) -> None:
    simulate(density(shape), PIXEL_SIZE, tmp_path / "set", count=300, snr=0.1, max_shift=10.0, micrographs=30)
    particles = read_particles(tmp_path / "set" / "particles.star")
    for invert, sign in ((False, 1), (True, -1)):
        report = contrast_sign(ParticleImages(particles, BOX, 70, invert))
        assert report.sign == sign, report
        assert report.reason == ""
    patches = with_ctf_of(read_particles(tmp_path / "set" / "noise.star", need_ctf=False), particles)
    assert contrast_sign(ParticleImages(patches, BOX, 70)).sign == 0


@pytest.mark.parametrize("radius", [5.0, 25.0])
def test_a_diameter_far_too_small_does_not_turn_the_sign(tmp_path: Path, radius: float) -> None:
    simulate(density("shell"), PIXEL_SIZE, tmp_path / "set", count=300, snr=0.1, max_shift=5.0, micrographs=30)
    particles = read_particles(tmp_path / "set" / "particles.star")
    assert contrast_sign(ParticleImages(particles, BOX, radius)).sign == 1


@needs_data
@pytest.mark.parametrize(
    ("name", "box"),
    [("bgal_paper", 64), ("bgal_hard", 64), ("ribo_c1", 64), ("real/apoferritin", 64), ("real/ribosome80s", 72)],
)
@pytest.mark.parametrize(("invert", "sign"), [(False, 1), (True, -1)])
def test_shared_particles(name: str, box: int, invert: bool, sign: int) -> None:
    table = read_particles(DATA / name / "particles.star")
    table = table.select(np.arange(0, len(table), len(table) // 200))
    report = contrast_sign(ParticleImages(table, box, 0.4 * box * table.pixel_size, invert=invert))
    assert report.sign == sign
    assert abs(report.z) > 40


@needs_data
@pytest.mark.parametrize("name", ["bgal_paper", "real/ribosome80s"])
def test_background_patches_decide_nothing(name: str) -> None:
    particles = read_particles(DATA / name / "particles.star")
    file = next((DATA / name).rglob("noise.star"))
    noise = with_ctf_of(read_particles(file, need_ctf=False), particles)
    report = contrast_sign(ParticleImages(noise, 64, 0.4 * 64 * particles.pixel_size))
    assert report.sign == 0
    assert report.reason
    assert "both signs fit" in report.reason


@needs_data
def test_real_particles_as_they_come_from_the_microscope_are_dark() -> None:
    table = read_particles(DATA / "empiar10061" / "particles.star")
    report = contrast_sign(ParticleImages(table, 64, 100))
    assert report.sign == -1
    assert report.count == 101


@needs_data
def test_ctfs_that_are_not_the_images_own_are_not_believed() -> None:
    """At four times the defocus the fit with the wrong sign would win, by far."""
    table = read_particles(DATA / "real" / "apoferritin" / "particles.star")
    ctf = table.ctf | {name: 4 * table.ctf[name] for name in ("defocus_u", "defocus_v")}
    report = contrast_sign(ParticleImages(replace(table, ctf=ctf), 64, 80))
    assert report.sign == 0
    assert "neither sign fits" in report.reason


@pytest.fixture
def make_particles(tmp_path: Path) -> Callable[..., ParticleTable]:
    """Write bright blobs in noise, and a STAR that tells of their CTF."""

    def make(count: int, phase_shift: float = 0.0, need_ctf: bool = True) -> ParticleTable:
        y, x = np.indices((BOX, BOX)) - BOX // 2
        images = np.random.default_rng(0).standard_normal((count, BOX, BOX)) + np.exp(-(x**2 + y**2) / 50)
        write_stack(tmp_path / "s.mrcs", images, 4.0)
        ctf: dict[str, list[object]] = {
            "rlnDefocusU": [10_000.0] * count,
            "rlnDefocusV": [10_000.0] * count,
            "rlnDefocusAngle": [0.0] * count,
            "rlnVoltage": [300.0] * count,
            "rlnSphericalAberration": [2.7] * count,
            "rlnAmplitudeContrast": [0.07] * count,
            "rlnPhaseShift": [phase_shift] * count,
        }
        names: dict[str, list[object]] = {"rlnImageName": [f"{n + 1}@s.mrcs" for n in range(count)]}
        names["rlnImagePixelSize"] = [4.0] * count
        write_star(tmp_path / "p.star", {"": names | (ctf if need_ctf else {})})
        return read_particles(tmp_path / "p.star", need_ctf=need_ctf)

    return make


@pytest.mark.parametrize(("phase_shift", "sign"), [(0.0, 1), (180.0, -1)])
def test_the_ctf_is_taken_into_account(
    make_particles: Callable[..., ParticleTable], phase_shift: float, sign: int
) -> None:
    """Behind a phase plate of 180 degrees the same images are those of dark protein."""
    assert contrast_sign(ParticleImages(make_particles(50, phase_shift), BOX, 60)).sign == sign


def test_what_cannot_be_decided_has_a_reason(make_particles: Callable[..., ParticleTable]) -> None:
    one = contrast_sign(ParticleImages(make_particles(1), BOX, 60))
    assert (one.sign, one.z, one.count, one.reason) == (0, 0.0, 1, "too few images")
    unknown = contrast_sign(ParticleImages(make_particles(50, need_ctf=False), BOX, 60))
    assert (unknown.sign, unknown.reason) == (0, "their CTFs are not known")
    coarse = contrast_sign(ParticleImages(make_particles(50), 6, 10))
    assert (coarse.sign, coarse.reason) == (0, "too few frequencies coarser than 20 A")


def test_a_stated_sign_is_taken_where_the_images_do_not_decide(make_particles: Callable[..., ParticleTable]) -> None:
    images, few = (ParticleImages(make_particles(count), BOX, 60) for count in (50, 5))
    assert contrast_sign(few, stated=-1).sign == -1
    assert "as the file states" in contrast_sign(few, stated=-1).reason
    assert contrast_sign(images, stated=1) == contrast_sign(images)
    other = contrast_sign(images, stated=-1)
    assert other.sign == 0
    assert other.reason == "the images look bright, the file states that they are dark"
