"""From particles to two half maps, on a set that takes seconds."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from rich.console import Console

from builders import TINY, prepared, tiny, wait_for_records
from cryogan.config import resolve
from cryogan.errors import InputError
from cryogan.files import locked
from cryogan.models.phantom import phantom
from cryogan.particles import read_particles, read_pose_prior, read_star, read_volume, write_star
from cryogan.particles.halves import divide
from cryogan.refinement.refine import refine
from cryogan.run.folder import Outcome, RunFolder
from cryogan.run.plan import Plan
from cryogan.run.postprocess import Result
from cryogan.run.reconstruct import figures, reconstruct, resume
from cryogan.simulation import simulate
from cryogan.validation import resolution_at
from processes import cryogan

STEPS = {"matching": 10 + 10 + 4, "wasserstein": 30}
MAPS = ("half1_map_unfil.mrc", "half2_map_unfil.mrc", "map.mrc")


@pytest.fixture(scope="module")
def result(critic: str, particles: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("run") / "out"
    console = Console(file=(out.parent / "said.txt").open("w"), width=200)
    done = reconstruct(particles / "particles.star", out, tiny(critic), noise=particles / "noise.star", console=console)
    console.file.close()
    return done


def fsc_table(folder: Path) -> dict[str, np.ndarray]:
    with (folder / "fsc.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_every_file_is_there(result: Result) -> None:
    files = {str(file.relative_to(result.folder)) for file in result.folder.rglob("*") if file.is_file()}
    wanted = {
        *MAPS,
        "mask.mrc",
        "fsc.star",
        "fsc.csv",
        "particles.star",
        "run.toml",
        "progress.jsonl",
        "log.txt",
        "outcome.json",
        "half1.pt",
        "half2.pt",
        "open.cxc",
        "report.html",
        "README.txt",
        *(
            f"figures/{name}.png"
            for name in (
                "volume_over_time",
                "projections_over_time",
                "gallery",
                "power_spectra",
                "fsc",
                "fsc_over_time",
                "progress",
            )
        ),
    }
    assert wanted <= files
    assert not [file for file in files if file.endswith((".tmp", ".part"))]
    for file in result.folder.glob("figures/*.png"):
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size > 5000


@pytest.mark.parametrize("name", [*MAPS, "mask.mrc"])
def test_maps_have_box_voxel_size_and_content(name: str, result: Result) -> None:
    volume, pixel_size = read_volume(result.folder / name)
    assert volume.shape == (32, 32, 32)
    assert pixel_size == pytest.approx(4.0)
    assert np.isfinite(volume).all()
    assert volume.std() > 0


def test_map_is_the_mean_of_the_halves(result: Result) -> None:
    half1, half2, average = (read_volume(result.folder / name)[0] for name in MAPS)
    np.testing.assert_allclose(average, (half1 + half2) / 2, atol=1e-6 * np.abs(average).max())
    assert not np.allclose(half1, half2)


def test_fsc_files_agree_with_each_other_and_the_result(result: Result) -> None:
    table, star = fsc_table(result.folder), read_star(result.folder / "fsc.star")["fsc"]
    assert len(table["shell"]) == 17
    np.testing.assert_allclose(table["frequency_1_per_A"], np.arange(17) / (32 * 4.0))
    for name, label in {
        "corrected": "rlnFourierShellCorrelationCorrected",
        "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
        "masked": "rlnFourierShellCorrelationMaskedMaps",
        "phase_randomised": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    }.items():
        np.testing.assert_allclose(star.floats(label), table[name], atol=1e-6)
    assert result.resolution == pytest.approx(resolution_at(table["corrected"], 4.0, 0.143))
    assert result.resolution_unmasked == pytest.approx(resolution_at(table["unmasked"], 4.0, 0.143))


@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="RELION is not installed")
def test_relion_reads_the_maps_and_finds_the_same_fsc(result: Result) -> None:
    command = ["relion_image_handler", "--i", MAPS[0], "--fsc", MAPS[1], "--angpix", "4"]
    done = subprocess.run(command, cwd=result.folder, capture_output=True, text=True, timeout=60, check=True)
    rows = [[float(value) for value in line.split()] for line in done.stdout.splitlines() if re.match(r"\s*\d+ ", line)]
    relions = np.array([row[-1] for row in rows])
    ours = fsc_table(result.folder)["unmasked"]
    assert len(relions) == len(ours)
    np.testing.assert_allclose(relions[1:], ours[1:], atol=1e-4)
    for name in (*MAPS, "mask.mrc"):
        stats = ["relion_image_handler", "--i", name, "--stats"]
        done = subprocess.run(stats, cwd=result.folder, capture_output=True, text=True, timeout=60, check=True)
        assert "(x,y,z,n)= 32 x 32 x 32 x 1" in done.stdout
        assert "angpix = 4\n" in done.stdout


def test_halves_share_no_particle_and_cover_all(result: Result) -> None:
    table = read_star(result.folder / "particles.star")["particles"]
    subset = table.floats("rlnRandomSubset")
    assert len(subset) == 400
    # What the file says is what the halves were trained on.
    trained = Plan.read(result.folder)
    np.testing.assert_array_equal(subset, divide(read_particles(trained.particles), 3).subset)
    for half in (1, 2):  # each half's map is in its own frame until the comparison
        assert (result.folder / f"snapshots/half{half}_final.mrc").exists()


def test_progress_and_run_record(critic: str, result: Result) -> None:
    records = [json.loads(line) for line in (result.folder / "progress.jsonl").read_text().splitlines()]
    for half in (1, 2):
        steps = [record["step"] for record in records if record["half"] == half]
        assert steps == sorted(steps)
        assert steps[-1] == STEPS[critic]
    assert all(np.isfinite(value) for record in records for value in record.values())
    run = tomllib.loads((result.folder / "run.toml").read_text())
    assert TINY[critic].items() <= run["settings"].items()
    assert run["plan"]["box"] == 32
    assert run["plan"]["pixel_size"] == pytest.approx(4.0)


def test_a_run_from_a_cache_is_the_same(particles: Path, tmp_path: Path) -> None:
    chosen = tiny(box=16, search_steps=2, starts=1, marching_steps=1)
    done = [
        reconstruct(
            particles / "particles.star",
            tmp_path / name,
            chosen,
            noise=particles / "noise.star",
            cache=cache,
            console=Console(file=io.StringIO()),
        )
        for name, cache in (("cached", tmp_path / "cache"), ("direct", None))
    ]
    assert sorted(path.name[:6] for path in (tmp_path / "cache").glob("*.mrcs")) == ["noise_", "partic"]
    cached, direct = (read_volume(result.folder / "map.mrc")[0] for result in done)
    assert np.corrcoef(cached.ravel(), direct.ravel())[0, 1] > 0.995  # float16
    texts = [(result.folder / "particles.star").read_text() for result in done]
    assert texts[0] == texts[1]  # it names the original images


def test_learned_poses_are_written_and_drawn(particles: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    reconstruct(particles / "particles.star", folder, tiny(learn_poses=True), console=Console(file=io.StringIO()))
    found = read_star(folder / "views.star")
    assert found["views"].floats("cryoganViewDensity").mean() == pytest.approx(1.0, abs=1e-4)
    assert 0 < found["shifts"].floats("cryoganShiftHalfWidthAngst")[0] <= tiny().max_shift
    assert (folder / "figures" / "views.png").exists()
    assert "From where the particles are seen" in (folder / "report.html").read_text()


def test_a_prior_on_the_views_is_turned_written_and_drawn(particles: Path, tmp_path: Path) -> None:
    columns = {"rlnAngleRot": [10.0, 80.0], "rlnAngleTilt": [30.0, 90.0], "cryoganViewDensity": [1.0, 3.0]}
    write_star(tmp_path / "prior.star", {"views": columns})
    few = {"box": 16, "search_steps": 2, "starts": 1, "marching_steps": 1}
    folder, chosen = tmp_path / "run", tiny(pose_prior=tmp_path / "prior.star", **few)
    reconstruct(particles / "particles.star", folder, chosen, console=Console(file=io.StringIO()))
    found = read_star(folder / "views.star")
    assert found["views"].floats("cryoganViewDensity").max() > 2
    fit = found["prior"].floats("cryoganPriorCorrelation")[0]
    report = (folder / "report.html").read_text()
    assert f"correlation {fit:.2f} with the views" in report
    assert ("The prior on the views does not fit" in report) == (fit < 0.5)
    assert (folder / "figures" / "views.png").exists()
    # What one run has found is a prior for another.
    assert len(read_pose_prior(folder / "views.star")) == 768


def test_stages_and_a_prior_with_the_convolutional_critic(particles: Path, tmp_path: Path) -> None:
    write_star(tmp_path / "prior.star", {"views": {"rlnAngleRot": [10.0], "rlnAngleTilt": [30.0]}})
    chosen = tiny("wasserstein", stages="16:3,24:2", pose_prior=str(tmp_path / "prior.star"))
    folder = tmp_path / "run"
    reconstruct(particles / "particles.star", folder, chosen, console=Console(file=io.StringIO()))
    assert [r["box"] for r in RunFolder(folder).records(1)] == [16, 16, 16, 24, 24]
    assert read_volume(folder / "map.mrc")[0].shape == (24, 24, 24)
    assert read_star(folder / "views.star")["views"].floats("cryoganViewDensity").max() > 10


def test_poses_are_learned_by_the_view_critic_only(particles: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--learn-poses needs --critic matching"):
        reconstruct(particles / "particles.star", tmp_path / "run", tiny("wasserstein", learn_poses=True))


def test_a_run_is_not_overwritten(result: Result, particles: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in result.folder.rglob("*")}
    with pytest.raises(InputError, match="is not an empty folder"):
        reconstruct(particles / "particles.star", result.folder, tiny())
    assert {file: file.stat().st_mtime_ns for file in result.folder.rglob("*")} == before


def test_an_interrupted_run_goes_on_to_the_same_maps(
    critic: str, result: Result, particles: Path, tmp_path: Path
) -> None:
    out, chosen = tmp_path / "out", tmp_path / "settings.toml"
    chosen.write_text(tomli_w.dumps(TINY[critic]))
    inputs = (particles / "particles.star", "--noise", particles / "noise.star", "--config", chosen)
    command = ("reconstruct", *inputs, "--out", out)
    process = cryogan(*command)
    wait_for_records(out, process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert f"cryogan reconstruct --resume {out}" in err.replace("\n", "")
    assert not (out / "map.mrc").exists()

    process = cryogan("reconstruct", "--resume", out)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for name in (*MAPS, "mask.mrc"):
        np.testing.assert_array_equal(read_volume(out / name)[0], read_volume(result.folder / name)[0])
    assert (out / "fsc.csv").read_text() == (result.folder / "fsc.csv").read_text()


def test_two_runs_in_one_folder_are_kept_apart(result: Result, particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = cryogan("reconstruct", particles / "particles.star", "--out", out, "--max-shift", 4)
    wait_for_records(out, first)
    with pytest.raises(InputError, match="Another process works in"):
        resume(out)
    with pytest.raises(InputError, match="not finished"):
        figures(out)
    first.terminate()
    first.communicate(timeout=120)
    with locked(result.folder / ".lock", wait=False), pytest.raises(InputError, match="Another process works in"):
        figures(result.folder)


def test_a_run_goes_on_when_a_full_disk_has_room_again(particles: Path, tmp_path: Path) -> None:
    out = prepared(tmp_path / "out", particles, tiny(search_steps=3, starts=1))
    process = cryogan("reconstruct", "--resume", out, largest_file=200_000)  # a map fits, a checkpoint does not
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert "Cannot write" in err
    assert f"cryogan reconstruct --resume {out}" in err
    assert not [file for file in out.rglob("*") if file.suffix in (".tmp", ".part")]

    process = cryogan("reconstruct", "--resume", out)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert all((out / name).exists() for name in MAPS)


def test_figures_are_drawn_anew(result: Result) -> None:
    before = {name: read_volume(result.folder / name)[0] for name in MAPS}
    drawn = sorted((result.folder / "figures").glob("*.png"))
    kept = [path for path in drawn if path.stem not in ("gallery", "power_spectra")]  # drawn while training
    for path in kept:
        path.unlink()
    folder = RunFolder(result.folder)
    folder.record_outcome(Outcome.STOPPED)  # as if the comparison had been cut short
    again = figures(result.folder)
    assert folder.state() == "finished"
    assert sorted((result.folder / "figures").glob("*.png")) == drawn
    assert again.resolution == result.resolution
    for name, volume in before.items():
        np.testing.assert_array_equal(read_volume(result.folder / name)[0], volume)


@pytest.mark.slow
def test_a_run_that_is_killed_30_times_ends_with_the_same_maps(result: Result, particles: Path, tmp_path: Path) -> None:
    out, chosen = tmp_path / "out", tmp_path / "settings.toml"
    settings = tomllib.loads((result.folder / "run.toml").read_text())["settings"] | {"checkpoint_minutes": 0.01}
    chosen.write_text(tomli_w.dumps(settings))
    inputs = (particles / "particles.star", "--noise", particles / "noise.star", "--config", chosen)
    process = cryogan("reconstruct", *inputs, "--out", out)
    wait_for_records(out, process)
    generator = np.random.default_rng(0)
    for _ in range(30):
        time.sleep(generator.uniform(0, 12))
        process.kill()
        process.communicate(timeout=60)
        process = cryogan("reconstruct", "--resume", out)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for name in (*MAPS, "mask.mrc"):
        np.testing.assert_array_equal(read_volume(out / name)[0], read_volume(result.folder / name)[0])


@pytest.mark.slow
def test_particles_of_pure_noise_give_no_map(critic: str, tmp_path: Path) -> None:
    """Negative control, "Einstein from noise": what two halves of noise share is what aligning them makes.

    Two unrelated maps are turned until they agree best, which alone lifts the FSC over 0.143 in the first five
    or six shells, whatever the critic.
    """
    box, pixel_size = 32, 6.0
    simulate(phantom(box, pixel_size, 1), pixel_size, tmp_path / "set", count=600, snr=1e-6, seed=5)
    few = {"seed": 3, "critic": critic, "starts": 1, "steps": 150, "coarse_steps": 150, "critic_width": 8}
    done = reconstruct(
        tmp_path / "set" / "particles.star",
        tmp_path / "out",
        resolve("default", None, few),
        noise=tmp_path / "set" / "noise.star",
    )
    assert done.alignment.correlation < 0.3
    assert done.resolution > 30
    assert done.resolution_unmasked > 30
    assert "The half maps disagree" in (tmp_path / "out" / "report.html").read_text()
    refined = refine(tmp_path / "out")
    assert refined.resolution > 30
