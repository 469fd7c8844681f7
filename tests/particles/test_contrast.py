from pathlib import Path

import numpy as np
import pytest

from cryogan.particles import ParticleImages, contrast_sign, read_particles, write_stack, write_star
from development_data import DATA

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no development data in {DATA}; set CRYOGAN_DATA")


@needs_data
@pytest.mark.parametrize(("name", "radius"), [("bgal_paper", 100), ("bgal_hard", 100), ("ribo_c1", 140)])
@pytest.mark.parametrize(("invert", "sign"), [(False, 1), (True, -1)])
def test_bright_and_dark_particles(name: str, radius: float, invert: bool, sign: int) -> None:
    table = read_particles(DATA / name / "particles.star").select(np.arange(0, 5000, 25))
    report = contrast_sign(ParticleImages(table, 64, radius, invert=invert))
    assert report.sign == sign
    assert abs(report.z) > 20


@needs_data
@pytest.mark.parametrize("name", ["bgal_paper", "bgal_hard", "ribo_c1"])
def test_noise_is_undecided(name: str) -> None:
    particles = read_particles(DATA / name / "particles.star")
    noise = read_particles(DATA / name / "noise.star", need_ctf=False)
    assert noise.pixel_size == pytest.approx(particles.pixel_size, rel=1e-6)
    images = ParticleImages(noise, 64, 100)
    report = contrast_sign(images, count=1539)
    assert report.sign == 0
    assert "undecided" in str(report)


@needs_data
def test_real_particles_as_they_come_from_the_microscope_are_dark() -> None:
    table = read_particles(DATA / "empiar10061" / "particles.star")
    report = contrast_sign(ParticleImages(table, 64, 100))
    assert report.sign == -1
    assert report.count == 101


@pytest.mark.parametrize(("phase_shift", "sign"), [(0.0, 1), (180.0, -1)])
def test_the_ctf_is_taken_into_account(tmp_path: Path, phase_shift: float, sign: int) -> None:
    """Behind a phase plate of 180 degrees the same images are those of dark protein."""
    rng = np.random.default_rng(0)
    y, x = np.indices((32, 32)) - 16
    images = rng.standard_normal((50, 32, 32)) + np.exp(-(x**2 + y**2) / 50)
    write_stack(tmp_path / "s.mrcs", images, 4.0)
    columns: dict[str, list[object]] = {
        "rlnImageName": [f"{n + 1}@s.mrcs" for n in range(50)],
        "rlnImagePixelSize": [4.0] * 50,
        "rlnDefocusU": [10_000.0] * 50,
        "rlnDefocusV": [10_000.0] * 50,
        "rlnDefocusAngle": [0.0] * 50,
        "rlnVoltage": [300.0] * 50,
        "rlnSphericalAberration": [2.7] * 50,
        "rlnAmplitudeContrast": [0.07] * 50,
        "rlnPhaseShift": [phase_shift] * 50,
    }
    write_star(tmp_path / "p.star", {"": columns})
    report = contrast_sign(ParticleImages(read_particles(tmp_path / "p.star"), 32, 60))
    assert report.sign == sign


def test_one_image_decides_nothing(tmp_path: Path) -> None:
    write_stack(tmp_path / "s.mrcs", np.random.default_rng(0).standard_normal((1, 16, 16)), 4.0)
    write_star(tmp_path / "p.star", {"": {"rlnImageName": ["1@s.mrcs"]}})
    report = contrast_sign(ParticleImages(read_particles(tmp_path / "p.star", need_ctf=False), 16, 20))
    assert (report.sign, report.z, report.count) == (0, 0.0, 1)
