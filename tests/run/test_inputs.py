"""What is said of a user's files before a run."""

import re
from pathlib import Path

import numpy as np
import pytest

from cryogan.config import Settings
from cryogan.models.phantom import phantom
from cryogan.particles import open_stack, read_star, write_star
from cryogan.run.inputs import read_inputs
from cryogan.simulation import simulate

BOX, PIXEL_SIZE = 32, 5.0
SETTINGS = Settings(box=BOX, batch_size=8)


def made(folder: Path, snr: float) -> Path:
    """Particles and background patches of a phantom; the STAR file."""
    simulate(phantom(BOX, PIXEL_SIZE, 1), PIXEL_SIZE, folder, count=200, snr=snr, micrographs=10, float32=True)
    return folder / "particles.star"


def sentences(particles: Path, noise: Path | None = None, settings: Settings = SETTINGS) -> dict[str, str]:
    """The findings, by name."""
    return {finding.code: finding.sentence for finding in read_inputs(particles, noise, None, settings).findings}


@pytest.mark.parametrize(("invert", "contrast"), [(False, "bright"), (True, "dark")])
def test_the_contrast_is_said(tmp_path: Path, invert: bool, contrast: str) -> None:
    findings = sentences(made(tmp_path / "set", 1.0), settings=SETTINGS.model_copy(update={"invert": invert}))
    assert f"Protein contrast: {contrast} (z = " in findings["contrast"]
    assert ("dark-particles" in findings) == invert


def test_noise_has_no_contrast(tmp_path: Path) -> None:
    findings = sentences(made(tmp_path / "set", 1e-6))
    assert "contrast" not in findings
    assert "dark-particles" not in findings
    assert "not sure" in findings["contrast-not-sure"]
    assert "both signs fit" in findings["contrast-not-sure"]


def test_a_cs_file_states_the_sign_where_the_images_do_not(tmp_path: Path) -> None:
    """Noise, and a blob/sign of -1: dark as it is, bright once inverted."""
    star = made(tmp_path / "set", 1e-6)
    table = read_star(star)["particles"]
    count = len(table)
    columns = {
        "blob/path": np.array([str(star.parent / "particles.mrcs").encode()] * count),
        "blob/idx": np.arange(count, dtype=np.uint32),
        "blob/psize_A": np.full(count, PIXEL_SIZE, np.float32),
        "blob/shape": np.full((count, 2), BOX, np.uint32),
        "blob/sign": np.full(count, -1, np.float32),
        "ctf/df1_A": table.floats("rlnDefocusU").astype(np.float32),
        "ctf/df2_A": table.floats("rlnDefocusV").astype(np.float32),
        "ctf/df_angle_rad": np.deg2rad(table.floats("rlnDefocusAngle")).astype(np.float32),
        "ctf/accel_kv": np.full(count, 300, np.float32),
        "ctf/cs_mm": np.full(count, 2.7, np.float32),
        "ctf/amp_contrast": np.full(count, 0.07, np.float32),
        "ctf/phase_shift_rad": np.zeros(count, np.float32),
        "uid": np.arange(1, count + 1, dtype=np.uint64),
    }
    records = np.zeros(count, dtype=[(name, values.dtype, values.shape[1:]) for name, values in columns.items()])
    for name, values in columns.items():
        records[name] = values
    with (tmp_path / "particles.cs").open("wb") as file:
        np.save(file, records)
    assert "dark-particles" in sentences(tmp_path / "particles.cs")
    inverted = sentences(tmp_path / "particles.cs", settings=SETTINGS.model_copy(update={"invert": True}))
    assert "dark-particles" not in inverted
    assert "Protein contrast: bright" in inverted["contrast"]


def test_no_micrograph_names_are_said(tmp_path: Path) -> None:
    star = made(tmp_path / "set", 1.0)
    assert "each particle has one" in sentences(star, star.with_name("noise.star"))["noise-patches"]
    for name in ("particles.star", "noise.star"):
        blocks = {
            key: {c: block.texts(c) for c in block.columns} for key, block in read_star(star.with_name(name)).items()
        }
        for columns in blocks.values():
            columns.pop("rlnMicrographName", None)
        write_star(star.with_name(name), blocks)
    findings = sentences(star, star.with_name("noise.star"))
    assert "noise-patches" not in findings
    assert re.match("Neither the particles nor the 200 background patches name", findings["no-micrograph-names"])


def test_images_blank_in_part_are_counted(tmp_path: Path) -> None:
    star = made(tmp_path / "set", 1.0)
    stack = open_stack(star.with_name("particles.mrcs"))
    images = np.array(stack)
    images[3, :, 20:] = 0.0
    images[5, :11] = images[5, 11]
    np.memmap(star.with_name("particles.mrcs"), stack.dtype, "r+", 1024, stack.shape)[:] = images
    assert sentences(star)["images-dropped"].startswith("2 images are constant, blank in part, or hold NaN")
