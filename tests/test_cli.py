"""The command line: what bad input looks like to a user, and the small commands."""

import contextlib
import csv
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import cryogan
from cryogan.cli import main
from cryogan.config import GROUPS, resolve
from cryogan.models.phantom import phantom
from cryogan.particles import open_stack, read_particles, read_star, read_volume, write_stack, write_volume
from cryogan.run.inputs import read_inputs
from cryogan.validation import Alignment, align, fsc

Run = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that must be refused: exit code 2, one line on standard error, which comes back."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert ended.value.code == 2, captured.err
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("cryogan: ")
        assert "Traceback" not in captured.err
        return lines[0]

    return run


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that must work; what it printed comes back."""

    def run(*arguments: object) -> str:
        with contextlib.suppress(SystemExit):
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "cryogan: " not in captured.err, captured.err  # how a refusal begins
        return captured.out

    return run


def overwrite(stack: Path, images: np.ndarray) -> None:
    """Replace the images of a stack; mrcfile would warn of NaN."""
    write_stack(stack, np.zeros_like(images), 4.0)
    stack.write_bytes(stack.read_bytes()[:1024] + images.astype("<f4").tobytes())


def lines_of(star: Path) -> list[str]:
    return star.read_text().splitlines()


def test_missing_star(refused: Run, tmp_path: Path) -> None:
    line = refused("reconstruct", tmp_path / "none.star", "--out", tmp_path / "out")
    assert "none.star" in line
    assert not (tmp_path / "out").exists()


def test_missing_stack(refused: Run, copied: Callable[..., Path], tmp_path: Path) -> None:
    star = copied()
    (star.parent / "particles.mrcs").unlink()
    line = refused("reconstruct", star, "--out", tmp_path / "out")
    assert "particles.mrcs was not found" in line
    assert "--data-dir" in line
    assert not (tmp_path / "out").exists()


def test_truncated_stack(refused: Run, copied: Callable[..., Path], tmp_path: Path) -> None:
    star = copied()
    stack = star.parent / "particles.mrcs"
    whole = stack.read_bytes()
    stack.write_bytes(whole[: 1024 + 2 * 32 * 32 * 123 + 17])
    line = refused("reconstruct", star, "--out", tmp_path / "out")
    assert "particles.mrcs" in line
    assert "123 whole images of 400" in line
    assert not (tmp_path / "out").exists()


def test_ragged_star_row(refused: Run, copied: Callable[..., Path], tmp_path: Path) -> None:
    star = copied()
    rows = lines_of(star)
    number = next(i for i, row in enumerate(rows) if row.strip().startswith("000007@"))
    rows[number] = " ".join(rows[number].split()[:-1])
    star.write_text("\n".join(rows) + "\n")
    line = refused("reconstruct", star, "--out", tmp_path / "out")
    assert "particles.star" in line
    assert str(number + 1) in line
    assert not (tmp_path / "out").exists()


def without_column(star: Path, name: str) -> None:
    blocks = read_star(star)
    rows = lines_of(star)
    block = next(key for key, table in blocks.items() if name in table)
    start = next(i for i, row in enumerate(rows) if row.strip() == f"data_{block}")
    labels = [i for i in range(start, len(rows)) if rows[i].startswith("_rln")]
    labels = [i for n, i in enumerate(labels) if i - labels[0] == n]
    position = next(n for n, i in enumerate(labels) if rows[i].split()[0] == f"_{name}")
    for i in range(labels[-1] + 1, len(rows)):
        if not rows[i].strip() or rows[i].startswith("data_"):
            break
        rows[i] = " ".join(value for n, value in enumerate(rows[i].split()) if n != position)
    del rows[labels[position]]
    star.write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("column", "word"),
    [("rlnImagePixelSize", "pixel size"), ("rlnDefocusU", "rlnDefocusU"), ("rlnVoltage", "rlnVoltage")],
)
def test_missing_columns(column: str, word: str, refused: Run, copied: Callable[..., Path], tmp_path: Path) -> None:
    star = copied()
    without_column(star, column)
    line = refused("reconstruct", star, "--out", tmp_path / "out")
    assert "particles.star" in line
    assert word.lower() in line.lower()
    assert not (tmp_path / "out").exists()


def test_output_folder_not_empty(refused: Run, particles: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out")
    assert "is not an empty folder" in line
    assert "--resume" in line
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
    line = refused("simulate", "--box", 32, "--particles", 5, "--out", tmp_path / "out")
    assert "is not an empty folder" in line


def test_output_folder_is_a_file(refused: Run, particles: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert "is not an empty folder" in refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out")


@pytest.mark.parametrize(("flag", "meant"), [("--simmetry", "--symmetry"), ("--batchsize", "--batch-size")])
def test_unknown_flag(flag: str, meant: str, refused: Run, particles: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out", flag, 4)
    assert flag in line
    assert "did you mean" in line.lower()
    assert meant in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [("--batch-size", "many"), ("--batch-size", 0), ("--oversampling", 1.3)])
def test_bad_value(flags: tuple[str, object], refused: Run, particles: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out", *flags)
    assert flags[0].strip("-").replace("-", "_") in line
    assert not (tmp_path / "out").exists()


def test_unknown_setting_in_a_file(refused: Run, particles: Path, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("batch_sise = 4\n")
    line = refused(
        "reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--config", tmp_path / "my.toml"
    )
    assert "my.toml" in line
    assert "did you mean batch_size?" in line
    assert not (tmp_path / "out").exists()


def test_unknown_preset(refused: Run, particles: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--preset", "papper")
    assert "did you mean paper?" in line


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "nonsense"])
def test_device_that_is_not_there(device: str, refused: Run, particles: Path, tmp_path: Path) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--device", device)
    assert f"no device '{device}'" in line
    assert "--device cpu" in line
    assert not (tmp_path / "out").exists()


def test_unknown_symmetry(refused: Run, particles: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--symmetry", "Q5")
    assert "Unknown symmetry 'Q5'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_no_image_is_usable(value: float, refused: Run, copied: Callable[..., Path], tmp_path: Path) -> None:
    star = copied()
    overwrite(star.parent / "particles.mrcs", np.full((400, 32, 32), value, np.float32))
    line = refused("reconstruct", star, "--out", tmp_path / "out")
    assert "all 400 images are NaN, blank in part or constant" in line
    assert not (tmp_path / "out").exists()


def test_too_few_particles(refused: Run, particles: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--batch-size", 201)
    assert "400 particles are too few" in line
    assert "--batch-size" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("box", [31, 34])
def test_a_working_box_that_cannot_be(box: int, refused: Run, particles: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--box", box)
    assert f"a working box of {box} pixels is not possible" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flag", "value", "span"),
    [("--mask-diameter", 500, "16 to 128"), ("--max-shift", 500, "0 to 64"), ("--particle-diameter", 10, "16 to 128")],
)
def test_lengths_that_cannot_be(flag: str, value: int, span: str, refused: Run, particles: Path) -> None:
    line = refused("check", particles / "particles.star", flag, value)
    assert f"{flag} {value} A is not possible in a box of 128 A: give {span} A." in line


def test_patches_of_other_micrographs(refused: Run, copied: Callable[..., Path], tmp_path: Path) -> None:
    star = copied()
    noise = star.parent / "noise.star"
    noise.write_text(noise.read_text().replace("micrograph_", "other_"))
    line = refused("reconstruct", star, "--noise", noise, "--out", tmp_path / "out")
    assert "no patch comes from a micrograph" in line
    assert not (tmp_path / "out").exists()


def test_patches_of_another_box(refused: Run, copied: Callable[..., Path], tmp_path: Path) -> None:
    star = copied()
    write_stack(star.parent / "noise.mrcs", np.ones((400, 16, 16), np.float32), 4.0)
    line = refused("reconstruct", star, "--noise", star.parent / "noise.star", "--out", tmp_path / "out")
    assert "Extract both alike" in line


def test_scales_that_the_view_critic_does_not_learn(refused: Run, particles: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--learn-scales")
    assert "--critic wasserstein" in line


def test_half_of_an_aperture(refused: Run, particles: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--aperture-diameter", 50)
    assert "--focal-length" in line


def test_arguments_that_are_missing_or_too_many(refused: Run, particles: Path, tmp_path: Path) -> None:
    assert "cryogan reconstruct particles.star --out DIR" in refused("reconstruct")
    assert "--out" in refused("reconstruct", particles / "particles.star")
    assert "--resume takes" in refused("reconstruct", particles / "particles.star", "--resume", tmp_path)
    assert "--resume takes" in refused("reconstruct", "--resume", tmp_path, "--seed", 3)
    assert "is not the folder of a run" in refused("reconstruct", "--resume", tmp_path)


def test_odd_box_is_cropped_and_said(copied: Callable[..., Path]) -> None:
    star = copied(("\t32\t2\n", "\t33\t2\n"))
    images = open_stack(star.parent / "particles.mrcs").astype(np.float32)
    write_stack(star.parent / "particles.mrcs", np.pad(images, ((0, 0), (0, 1), (0, 1)), mode="reflect"), 4.0)
    plan, kept, findings, _ = read_inputs(star, None, None, resolve("default", None, {"batch_size": 8}))
    assert plan.box == kept.box == 32
    assert plan.pixel_size == pytest.approx(4.0)
    assert any("33 pixels is odd" in finding.sentence for finding in findings)
    assert kept.batch(np.arange(3)).shape == (3, 32, 32)


def test_nan_images_are_counted_and_left_out(copied: Callable[..., Path]) -> None:
    star = copied()
    images = open_stack(star.parent / "particles.mrcs").astype(np.float32)
    images[[3, 77]] = np.nan
    images[200] = 5
    overwrite(star.parent / "particles.mrcs", images)
    _, kept, findings, _ = read_inputs(star, None, None, resolve("default", None, {"batch_size": 8}))
    assert len(kept) == 397
    assert {"count": 3} in [finding.values for finding in findings if finding.code == "images-dropped"]


def test_dark_protein_is_noticed_and_inverted(copied: Callable[..., Path]) -> None:
    star = copied()
    images = open_stack(star.parent / "particles.mrcs").astype(np.float32)
    settings = resolve("default", None, {"batch_size": 8})
    _, images_of, findings, _ = read_inputs(star, None, None, settings)
    bright = images_of.batch(np.arange(5))
    assert "dark-particles" not in [finding.code for finding in findings]
    write_stack(star.parent / "particles.mrcs", -images, 4.0)
    _, _, findings, _ = read_inputs(star, None, None, settings)
    assert "dark-particles" in [finding.code for finding in findings]
    _, inverted, findings, _ = read_inputs(star, None, None, settings.model_copy(update={"invert": True}))
    assert "dark-particles" not in [finding.code for finding in findings]
    np.testing.assert_allclose(inverted.batch(np.arange(5)), bright, atol=1e-2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--box", 31),
        ("--box", 8),
        ("--particles", 0),
        ("--snr", 0),
        ("--pixel-size", -1),
        ("--micrographs", 0),
        ("--model", "a.cif", "--volume", "b.mrc"),
        ("--model", "none.cif"),
        ("--volume", "none.mrc"),
        ("--noise", "pink"),
    ],
)
def test_simulate_refuses(arguments: tuple[object, ...], refused: Run, tmp_path: Path) -> None:
    refused("simulate", "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_simulate_of_poses_that_are_none(refused: Run, particles: Path, tmp_path: Path) -> None:
    star = particles / "particles.star"
    line = refused("simulate", "--volume", particles / "truth.mrc", "--poses", star, "--out", tmp_path / "out")
    assert "_rlnAngleRot" in line
    assert not (tmp_path / "out").exists()


def test_simulate_from_poses_without_noise(output: Run, particles: Path, tmp_path: Path) -> None:
    command = ("simulate", "--volume", particles / "truth.mrc", "--poses", particles / "truth.star", "--noise", "none")
    output(*command, "--particles", 150, "--out", tmp_path / "a")
    files = {file.name for file in (tmp_path / "a").iterdir()}
    assert files == {"particles.mrcs", "particles.star", "truth.mrc", "truth.star"}
    clean = open_stack(tmp_path / "a" / "particles.mrcs").astype(float)
    noisy = open_stack(particles / "particles.mrcs")[:150].astype(float)
    assert clean.shape == (150, 32, 32)
    # The noisy particles are the same images plus noise of a tenth of their variance within the particle's circle.
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(clean, noisy, strict=True)]
    assert min(correlation) > 0.6
    # Written and read again, the poses, shifts and CTFs are the same.
    output(*command[:3], "--poses", tmp_path / "a" / "truth.star", *command[5:], "--out", tmp_path / "b")
    again = open_stack(tmp_path / "b" / "particles.mrcs").astype(float)
    np.testing.assert_allclose(again, clean, atol=2e-3 * clean.std())


def test_simulate_shows_several_maps_in_turn(output: Run, refused: Run, particles: Path, tmp_path: Path) -> None:
    truth = particles / "truth.mrc"
    volume, pixel_size = read_volume(truth)
    write_volume(tmp_path / "half.mrc", volume * (np.arange(32) < 16), pixel_size)
    one, other = ("--volume", truth), ("--volume", tmp_path / "half.mrc")
    for name, maps in (("mixed", (*one, *other)), ("one", one), ("other", other)):
        output("simulate", *maps, "--particles", 9, "--noise", "none", "--out", tmp_path / name)
    mixed, *alone = (open_stack(tmp_path / name / "particles.mrcs") for name in ("mixed", "one", "other"))
    for k in (0, 1):
        np.testing.assert_allclose(mixed[k::2], alone[k][k::2], atol=1e-4 * mixed.std())
    star = read_star(tmp_path / "mixed" / "truth.star")["particles"]
    assert star.texts("rlnClassNumber")[:3] == ["1", "2", "1"]
    assert "rlnClassNumber" not in read_star(tmp_path / "mixed" / "particles.star")["particles"]
    np.testing.assert_array_equal(read_volume(tmp_path / "mixed" / "truth2.mrc")[0], read_volume(other[1])[0])

    write_volume(tmp_path / "small.mrc", volume[:16, :16, :16], pixel_size)
    line = refused("simulate", *one, "--volume", tmp_path / "small.mrc", "--out", tmp_path / "out")
    assert "differ in box or pixel size" in line
    assert "more --particles" in refused("simulate", *one, *other, "--particles", 1, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_simulate_writes_what_reconstruct_reads(output: Run, tmp_path: Path) -> None:
    command = ("simulate", "--box", 16, "--pixel-size", 5, "--particles", 40, "--micrographs", 4)
    output(*command, "--seed", 5, "--out", tmp_path / "a")
    table = read_particles(tmp_path / "a" / "particles.star")
    assert (len(table), table.box, table.pixel_size) == (40, 16, 5.0)
    assert len(read_particles(tmp_path / "a" / "noise.star", need_ctf=False)) == 40
    assert read_volume(tmp_path / "a" / "truth.mrc")[1] == pytest.approx(5.0)
    output(*command, "--seed", 5, "--out", tmp_path / "b")
    output(*command, "--seed", 6, "--out", tmp_path / "c")
    a, b, c = ((tmp_path / name / "particles.mrcs").read_bytes()[1024:] for name in "abc")
    assert a == b
    assert a != c


def test_align_and_fsc(output: Run, tmp_path: Path) -> None:
    box, pixel_size = 32, 4.0
    reference = phantom(box, pixel_size, 3)
    reference = reference.copy()
    reference[:, :, : box // 2] *= 0.3  # no symmetry: one answer
    moved = np.roll(reference[:, :, ::-1], (1, -2, 3), (0, 1, 2)).transpose(1, 0, 2)
    write_volume(tmp_path / "reference.mrc", reference, pixel_size)
    write_volume(tmp_path / "moved.mrc", moved, pixel_size)
    aligned = tmp_path / "aligned.mrc"
    text = output("align", tmp_path / "moved.mrc", tmp_path / "reference.mrc", "--out", aligned)
    assert "Correlation 0.9" in text
    volume, written_pixel = read_volume(aligned)
    assert written_pixel == pytest.approx(pixel_size)
    assert np.corrcoef(volume.ravel(), reference.ravel())[0, 1] > 0.97

    text = output("fsc", tmp_path / "reference.mrc", aligned, "--out", tmp_path / "fsc")
    assert {file.name for file in (tmp_path / "fsc").iterdir()} == {"fsc.star", "fsc.csv", "fsc.xml", "fsc.png"}
    assert "unmasked" in text
    assert "0.143" in text
    assert "masked  " not in text.replace("unmasked", "")  # no mask, no masked curve
    with (tmp_path / "fsc" / "fsc.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == box // 2 + 1
    assert all(float(row["unmasked"]) > 0.9 for row in rows[:10])
    table = read_star(tmp_path / "fsc" / "fsc.star")["fsc"]
    np.testing.assert_allclose(
        table.floats("rlnFourierShellCorrelationUnmaskedMaps"), [float(row["unmasked"]) for row in rows], atol=1e-6
    )
    write_volume(tmp_path / "mask.mrc", np.ones((box,) * 3, np.float32), pixel_size)
    text = output(
        "fsc", tmp_path / "reference.mrc", aligned, "--mask", tmp_path / "mask.mrc", "--out", tmp_path / "masked"
    )
    assert all(name in text for name in ("unmasked", "masked", "phase-randomised", "corrected"))


def test_align_takes_maps_of_another_box(output: Run, tmp_path: Path) -> None:
    write_volume(tmp_path / "small.mrc", phantom(32, 4.0, 3), 4.0)
    write_volume(tmp_path / "large.mrc", np.pad(phantom(32, 4.0, 3), 4), 4.0)
    output("align", tmp_path / "large.mrc", tmp_path / "small.mrc", "--out", tmp_path / "aligned.mrc")
    volume, pixel_size = read_volume(tmp_path / "aligned.mrc")
    assert volume.shape == (32, 32, 32)
    assert pixel_size == pytest.approx(4.0)
    assert np.corrcoef(volume.ravel(), phantom(32, 4.0, 3).ravel())[0, 1] > 0.97


def test_fsc_of_maps_that_do_not_fit(refused: Run, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((16, 16, 16))
    write_volume(tmp_path / "a.mrc", noise, 4.0)
    write_volume(tmp_path / "b.mrc", noise, 5.0)
    write_volume(tmp_path / "c.mrc", noise[:12, :12, :12], 4.0)
    assert "Resample" in refused("fsc", tmp_path / "a.mrc", tmp_path / "b.mrc", "--out", tmp_path / "out")
    refused("fsc", tmp_path / "a.mrc", tmp_path / "c.mrc", "--out", tmp_path / "out")
    refused("fsc", tmp_path / "a.mrc", tmp_path / "none.mrc", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_map_without_voxel_size(refused: Run, tmp_path: Path) -> None:
    write_volume(tmp_path / "a.mrc", np.ones((16, 16, 16)), 0.0)
    line = refused("fsc", tmp_path / "a.mrc", tmp_path / "a.mrc", "--out", tmp_path / "out")
    assert "voxel size" in line


def test_settings_are_grouped_in_the_help(output: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for verb in ("reconstruct", "check", "submit"):
        text = output(verb, "--help-all")
        titles = [text.index(f"─ {title} ─") for title in GROUPS]
        assert titles == sorted(titles)
        assert text.index("─ Matching critic ─") < text.index("--orientations INT") < text.index("─ Classes ─")


def test_old_flags_work_with_a_note(particles: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["check", str(particles / "particles.star"), "--critic", "views", "--sharpen-steps=2"]
    main(command)
    notes = ["Note: --critic views is now --critic matching.", "Note: --sharpen-steps is now --marching-steps."]
    assert capsys.readouterr().err.splitlines() == notes
    main([*command, "--quiet"])
    assert capsys.readouterr().err == ""
    (tmp_path / "old.toml").write_text("views = 900\n")
    main([*command[:2], "--config", str(tmp_path / "old.toml")])
    assert capsys.readouterr().err == f"Note: {tmp_path / 'old.toml'}: views is now orientations.\n"


def test_help_and_version(output: Run) -> None:
    assert "reconstruct" in output("--help")
    assert "--symmetry" in output("reconstruct", "--help")
    assert output("--version").strip()


def test_the_command_is_installed() -> None:
    assert shutil.which("cryogan") or Path(__file__).parents[1].joinpath(".venv", "bin", "cryogan").exists()


def test_the_command_line_starts_without_the_slow_libraries() -> None:
    slow = ("torch", "scipy", "matplotlib", "starlette", "uvicorn", "jinja2", "mrcfile", "cryogan.run")
    code = f"import sys, cryogan.cli; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_has_what_the_package_promises() -> None:
    assert set(cryogan.__all__) <= set(dir(cryogan))
    for name in cryogan.__all__:
        assert callable(getattr(cryogan, name))
    assert Path(cryogan.__file__).with_name("py.typed").exists()
    with pytest.raises(AttributeError, match="No cryogan attribute reconstrut"):
        _ = cryogan.reconstrut


@pytest.mark.parametrize("name", [name for name in cryogan.__all__ if name != "InputError"])
def test_what_the_package_has_is_typed_and_documented(name: str) -> None:
    thing = getattr(cryogan, name)
    parameters = inspect.signature(thing).parameters.values()
    if name != "Settings":  # whose fields are all typed and described, see test_config.py
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters)
    assert len(thing.__doc__) > 20
    page = (Path(__file__).parents[1] / "docs" / "api.rst").read_text()
    assert name == "Settings" or re.search(rf"cryogan\.[\w.]*\.{name}$", page, re.MULTILINE)


@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="RELION is not installed")
@pytest.mark.parametrize("box", [24, 32])
def test_flip_hand_is_relions(box: int, output: Run, tmp_path: Path) -> None:
    volume = np.random.default_rng(0).standard_normal((box, box, box)).astype(np.float32)
    write_volume(tmp_path / "map.mrc", volume, 3.0)
    output("flip-hand", tmp_path / "map.mrc", "--out", tmp_path / "ours.mrc")
    command = ["relion_image_handler", "--i", "map.mrc", "--o", "theirs.mrc", "--invert_hand"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    ours, pixel_size = read_volume(tmp_path / "ours.mrc")
    assert pixel_size == 3.0
    np.testing.assert_array_equal(ours, read_volume(tmp_path / "theirs.mrc")[0])


def test_symmetrise_finds_the_axes_of_a_turned_map(output: Run, tmp_path: Path) -> None:
    volume = phantom(32, 4.0, 1)
    turned = Alignment(Rotation.random(random_state=3).as_matrix(), np.array([3.0, -2.0, 1.0]), False, 1.0, 1.0)
    write_volume(tmp_path / "map.mrc", turned.apply(volume, 4.0), 4.0)
    assert "correlate 1.00" in output("symmetrise", tmp_path / "map.mrc", "D2", "--out", tmp_path / "out.mrc")
    found, _ = read_volume(tmp_path / "out.mrc")
    inside = found[1:, 1:, 1:]
    np.testing.assert_allclose(inside, inside[::-1, ::-1, :], atol=1e-4 * found.max())
    curve = fsc(align(found, volume, 4.0).apply(found, 4.0), volume)
    assert curve[1:10].min() > 0.9


def test_check_says_what_is_in_the_files(particles: Path, output: Run, tmp_path: Path) -> None:
    text = output("check", particles / "particles.star", "--symmetry", "D2", "--picture", tmp_path / "particles.png")
    assert "400 particles of 20 micrographs" in text
    assert "300 kV, Cs 2.7 mm" in text
    assert re.search(r"background +mean -?\S+, s.d. 1", text)
    assert "0 of 400 images have one beyond" in text
    assert "about" in text
    assert [f"Theorem 1, {number}" in text for number in (1, 2, 3, 4)] == [True] * 4
    assert "Warning: There are no background patches" in text
    assert "No symmetry" not in text
    assert (tmp_path / "particles.png").read_bytes().startswith(b"\x89PNG")


def test_check_doubts_dark_protein_and_filtered_noise(particles: Path, output: Run, tmp_path: Path) -> None:
    text = output("check", particles / "particles.star", "--noise", particles / "noise.star", "--invert")
    assert "Warning: The particles look dark on bright" in text
    assert "No symmetry is imposed" in text
    folder = tmp_path / "filtered"
    shutil.copytree(particles, folder)
    images = np.fft.rfft2(np.asarray(open_stack(folder / "noise.mrcs"), dtype=float))
    k = np.hypot(np.fft.fftfreq(32, 1 / 32)[:, None], np.arange(17))
    overwrite(folder / "noise.mrcs", np.fft.irfft2(images * np.where(k < 8, 1, 0.01)).astype(np.float32))
    text = output("check", folder / "particles.star", "--noise", folder / "noise.star", "--symmetry", "D2")
    assert "the images may have been filtered" in text


def test_check_refuses_what_reconstruct_refuses(refused: Run, copied: Callable[..., Path]) -> None:
    assert "no CTF" in refused("check", copied(("_rlnDefocusU", "_rlnSomething")))


def test_doctor_names_the_installation(output: Run) -> None:
    text = output("doctor")
    assert f"cryogan   {cryogan.__version__}" in text
    assert f"torch {torch.__version__}" in text
    assert "cpu" in text
    assert "GiB free" in text


def test_an_interruption_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cryogan.checking.doctor", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"
