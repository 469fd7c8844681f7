"""Background patches from micrographs whose particles are at known places."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from rich.console import Console

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.extraction import extract_noise, extract_patches
from cryogan.fourier import radial_power
from cryogan.models.phantom import phantom
from cryogan.particles import open_stack, read_particles, read_star, write_stack, write_star
from cryogan.particles.micrographs import quiet_places, read_micrograph, read_micrographs
from cryogan.simulation import simulate
from cryogan.simulation.noise import noise_power

QUIET = Console(quiet=True)
BOX, PIXEL, SIDE, RADIUS = 32, 3.0, 512, 20
OPTICS = {"rlnOpticsGroup": [1], "rlnVoltage": [300], "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1]}


def micrograph(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """White noise, brighter and stronger to the right, with bright discs; and the discs' centres x, y."""
    generator = np.random.default_rng(seed)
    image = generator.standard_normal((SIDE, SIDE)) * np.linspace(1, 2, SIDE)
    centres = generator.uniform(40, SIDE - 40, (count, 2)).round()
    y, x = np.indices((SIDE, SIDE))
    for cx, cy in centres:
        image += 5.0 * (np.hypot(x - cx, y - cy) < RADIUS)
    return image.astype(np.float32), centres


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Micrographs at half the particles' pixel: two MRC and a TIFF, the last crowded; and their particles."""
    (tmp_path / "Micrographs").mkdir()
    names, particles = [], {"rlnMicrographName": [], "rlnCoordinateX": [], "rlnCoordinateY": [], "rlnImageName": []}
    for number, (suffix, count) in enumerate((("mrc", 6), ("tif", 5), ("mrc", 300))):
        image, centres = micrograph(number, count)
        name = f"Micrographs/m{number}.{suffix}"
        if suffix == "tif":
            tifffile.imwrite(tmp_path / name, image[::-1])  # the first row of a TIFF is at the top
        else:
            write_stack(tmp_path / name, image[None], PIXEL / 2)
        names.append(name)
        for x, y in centres:
            particles["rlnMicrographName"].append(name)
            particles["rlnCoordinateX"].append(float(x))
            particles["rlnCoordinateY"].append(float(y))
            particles["rlnImageName"].append(f"{len(particles['rlnImageName']) + 1:06d}@particles.mrcs")
    count = len(names_of := particles["rlnImageName"])
    write_stack(tmp_path / "particles.mrcs", np.zeros((len(names_of), BOX, BOX), dtype=np.float32), PIXEL)
    for name, value in (
        ("rlnDefocusU", 9000.0),
        ("rlnDefocusV", 9000.0),
        ("rlnDefocusAngle", 0.0),
        ("rlnOpticsGroup", 1),
    ):
        particles[name] = [value] * count
    optics = OPTICS | {"rlnImagePixelSize": [PIXEL], "rlnImageSize": [BOX]}
    write_star(tmp_path / "particles.star", {"optics": optics, "particles": particles})
    optics = OPTICS | {"rlnMicrographPixelSize": [PIXEL / 2]}
    micrographs = {"rlnMicrographName": names, "rlnOpticsGroup": [1] * 3}
    write_star(tmp_path / "micrographs.star", {"optics": optics, "micrographs": micrographs})
    return tmp_path


def test_patches_are_background_with_the_particles_box(project: Path) -> None:
    console = Console(record=True, quiet=False, file=(project / "said.txt").open("w"), width=200)
    star = extract_noise(
        project / "micrographs.star", project / "particles.star", project / "out", particle_diameter=60, console=console
    )
    console.file.close()
    table = read_particles(star, need_ctf=False)
    assert (table.box, table.pixel_size) == (BOX, PIXEL)
    names, counts = np.unique(table.micrographs, return_counts=True)
    # As many as the micrograph has particles; the crowded one has no room and is named.
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"Micrographs/m0.mrc": 6, "Micrographs/m1.tif": 5}
    assert "No room in 1 micrographs: Micrographs/m2.mrc" in (project / "said.txt").read_text()
    for stack in table.stacks:
        patches = np.asarray(open_stack(stack), dtype=float)
        np.testing.assert_allclose(patches.mean((1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(patches.std((1, 2)), 1, atol=1e-4)
    block = read_star(star)["particles"]
    centres = np.stack([block.floats("rlnCoordinateX"), block.floats("rlnCoordinateY")], axis=1)
    for number in (0, 1):
        _, discs = micrograph(number, (6, 5)[number])
        ours = centres[np.array(block.texts("rlnMicrographName")) == f"Micrographs/m{number}.{('mrc', 'tif')[number]}"]
        gap = np.maximum(np.abs(ours[:, None] - discs) - BOX, 0)  # half of a patch of 2 BOX micrograph pixels
        assert np.hypot(gap[..., 0], gap[..., 1]).min() >= RADIUS - 1
        assert ours[:, 0].mean() < SIDE / 2  # the quiet side
        assert (project / "out" / "figures" / f"m{number}.png").stat().st_size > 5000


def test_examples_in_the_help(
    project: Path,
    examples: Callable[[str], list[list[str]]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (example,) = examples("extract-noise")
    monkeypatch.chdir(project)
    main([*example, "--quiet", "--json"])
    output = capsys.readouterr()
    assert json.loads(output.out) == {"folder": "noise", "noise": "noise/noise.star"}
    assert output.err == ""
    assert len(read_particles(project / "noise" / "noise.star", need_ctf=False)) > 5


def test_quiet_places_are_the_quietest_and_apart() -> None:
    image = np.random.default_rng(0).standard_normal((200, 300)).astype(np.float32)
    image[:, :150] *= 0.5
    places = quiet_places(image, np.zeros(image.shape, bool), np.zeros((0, 2)), side=50, radius=10, count=6)
    assert len(places) == 6
    assert (places[:, 0] + 25 <= 160).all()
    first = places[:, None] - places
    assert (np.abs(first).max(-1)[~np.eye(6, dtype=bool)] >= 25).all()
    many = quiet_places(image, np.zeros(image.shape, bool), np.zeros((0, 2)), side=50, radius=10, count=1000)
    assert ((many >= 25) & (many <= np.array([275, 175]))).all()


def broken(image: np.ndarray, kind: str) -> np.ndarray:
    """The micrograph with a broken band along its upper border and a blank one along its left."""
    image = image.copy()
    image[-70:] = {"zero": 0.0, "nan": np.nan, "repeated": image[-70].copy()}[kind]
    image[:, :20] = 7.0
    return image


@pytest.mark.parametrize("kind", ["zero", "nan", "repeated"])
def test_no_patch_holds_a_broken_pixel(project: Path, kind: str) -> None:
    """The quietest place of a micrograph is its blank border."""
    for number, count in enumerate((6, 5)):
        image = broken(micrograph(number, count)[0], kind)
        if number:
            tifffile.imwrite(project / "Micrographs" / "m1.tif", image[::-1])
        else:
            write_stack(project / "Micrographs" / "m0.mrc", np.nan_to_num(image[None], nan=0.0), PIXEL / 2)
    star = extract_noise(
        project / "micrographs.star", project / "particles.star", project / "out", particle_diameter=60, console=QUIET
    )
    block = read_star(star)["particles"]
    x, y = block.floats("rlnCoordinateX"), block.floats("rlnCoordinateY")
    assert len(x) == 11
    assert (x - BOX).min() >= 20
    assert (y + BOX).max() <= SIDE - 70
    for stack in read_particles(star, need_ctf=False).stacks:
        assert np.isfinite(open_stack(stack)).all()


def test_patches_from_anywhere_hold_no_broken_pixel(project: Path) -> None:
    tifffile.imwrite(project / "Micrographs" / "m1.tif", broken(micrograph(1, 5)[0], "nan")[::-1])
    optics = OPTICS | {"rlnMicrographPixelSize": [PIXEL]}
    columns = {"rlnDefocusU": [9e3] * 2, "rlnDefocusV": [9e3] * 2, "rlnDefocusAngle": [0.0] * 2}
    names = {"rlnMicrographName": ["Micrographs/m0.mrc", "Micrographs/m1.tif"], "rlnOpticsGroup": [1] * 2}
    write_star(project / "ctf.star", {"optics": optics, "micrographs": names | columns})
    output = project / "said.txt"
    with output.open("w") as file:
        console = Console(file=file, width=200)
        star = extract_patches(project / "ctf.star", project / "out", box=64, overlap=0.0, console=console)
    table = read_star(star)["particles"]
    of_tiff = np.array(table.texts("rlnMicrographName")) == "Micrographs/m1.tif"
    x, y = table.floats("rlnCoordinateX")[of_tiff], table.floats("rlnCoordinateY")[of_tiff]
    assert (x - 32).min() >= 20
    assert (y + 32).max() <= SIDE - 70
    left_out = np.count_nonzero(~of_tiff) - len(x)  # both have the same grid but for its corner
    number = int(re.search(r"(\d+) patches with blank, repeated or NaN pixels were left out", output.read_text())[1])
    assert abs(number - left_out) <= 8
    pixels = np.concatenate([open_stack(stack) for stack in read_particles(star).stacks[1:]])
    np.testing.assert_allclose([pixels.mean(), pixels.std()], [0, 1], atol=0.1)


def test_a_tiff_is_the_same_micrograph_as_the_mrc(tmp_path: Path) -> None:
    image, _ = micrograph(0, 3)
    write_stack(tmp_path / "m.mrc", image[None], 1.0)
    tifffile.imwrite(tmp_path / "m.tif", image[::-1])  # as IMOD's mrc2tif and RELION do
    np.testing.assert_array_equal(read_micrograph(tmp_path / "m.tif"), read_micrograph(tmp_path / "m.mrc"))


@pytest.mark.parametrize("place", [-300.0, 2 * SIDE, float("nan")])
def test_particles_outside_their_micrograph_are_refused(project: Path, place: float) -> None:
    table = read_star(project / "particles.star")
    columns = {name: table["particles"].texts(name) for name in table["particles"].columns}
    columns["rlnCoordinateY"][2] = str(place)
    optics = {name: table["optics"].texts(name) for name in table["optics"].columns}
    write_star(project / "out.star", {"optics": optics, "particles": columns})
    with pytest.raises(InputError, match=r"out\.star: 1 of the 6 particles of Micrographs/m0\.mrc lie outside it"):
        extract_noise(project / "micrographs.star", project / "out.star", project / "out", console=QUIET)
    assert not (project / "out").exists()


def test_a_micrograph_named_twice_is_refused(project: Path) -> None:
    text = (project / "micrographs.star").read_text()
    (project / "twice.star").write_text(text.replace("m2.mrc", "m0.mrc"))
    with pytest.raises(InputError, match=r"twice\.star, line \d+: the micrograph Micrographs/m0\.mrc is named twice"):
        read_micrographs(project / "twice.star")


def test_bad_micrographs_are_named(project: Path) -> None:
    text = (project / "micrographs.star").read_text()
    (project / "missing.star").write_text(text.replace("m1.tif", "m9.tif"))
    with pytest.raises(InputError, match=r"missing\.star, line \d+: the micrograph Micrographs/m9.tif was not found"):
        read_micrographs(project / "missing.star")
    (project / "Micrographs" / "m1.tif").write_bytes(b"II*\x00nonsense")
    with pytest.raises(InputError, match=r"m1\.tif: cannot be read as TIFF"):
        read_micrograph(project / "Micrographs" / "m1.tif")
    write_stack(project / "movie.mrc", np.zeros((3, 8, 8), dtype=np.float32), 1.0)
    with pytest.raises(InputError, match="Give the sum of the movie"):
        read_micrograph(project / "movie.mrc")


def test_coarse_micrographs_and_other_projects_are_refused(project: Path) -> None:
    text = (project / "micrographs.star").read_text()
    (project / "coarse.star").write_text(text.replace("1.5", "6.0"))
    with pytest.raises(InputError, match="coarser than the particles'"):
        extract_noise(project / "coarse.star", project / "particles.star", project / "out")
    particles = (project / "particles.star").read_text()
    (project / "other.star").write_text(particles.replace("Micrographs/", "Other/"))
    with pytest.raises(InputError, match="none of its micrographs is named"):
        extract_noise(project / "micrographs.star", project / "other.star", project / "out")
    assert not (project / "out").exists()


def test_simulated_micrographs_give_patches_like_their_noise(tmp_path: Path) -> None:
    """Simulate, extract, and compare with the noise that the particles stand in."""
    data = tmp_path / "data"
    simulate(phantom(32, 5.0, 0), 5.0, data, count=60, snr=0.5, micrographs=3, write_micrographs=True, max_shift=0.0)
    assert not (data / "noise.star").exists()
    star = extract_noise(
        data / "micrographs.star", data / "particles.star", tmp_path / "out", particle_diameter=140, console=QUIET
    )
    patches, particles = read_particles(star, need_ctf=False), read_particles(data / "particles.star")
    assert len(patches) == len(particles) == 60
    assert set(patches.micrographs) == set(particles.micrographs)
    noise = np.concatenate([np.asarray(open_stack(path), dtype="f4") for path in patches.stacks])
    ratio = (radial_power(torch.from_numpy(noise)) / noise_power(32))[1:-1]
    np.testing.assert_allclose(ratio / ratio.mean(), 1, atol=0.2)
    table = read_star(data / "truth.star")["particles"]
    micrograph = read_micrograph(data / table.texts("rlnMicrographName")[0])
    x, y = (int(table.floats(f"rlnCoordinate{axis}")[0]) for axis in "XY")
    window = micrograph[y - 16 : y + 16, x - 16 : x + 16]
    image = np.asarray(open_stack(particles.stacks[0])[0], dtype=float)
    assert np.corrcoef(window.ravel(), image.ravel())[0, 1] > 0.999
