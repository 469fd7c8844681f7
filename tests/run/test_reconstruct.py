"""From particles to two half maps, on a set that takes seconds."""

import csv
import io
import itertools
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from rich.console import Console

from cryogan.config import Settings, resolve
from cryogan.errors import InputError
from cryogan.files import locked
from cryogan.models.phantom import phantom
from cryogan.parallel.launch import STOPPING
from cryogan.particles import ParticleImages, read_pose_prior, read_star, read_volume, write_particles, write_star
from cryogan.refinement.refine import refine
from cryogan.run.figures import records, snapshot_path
from cryogan.run.half import Message, build_training, half_rows, train_half
from cryogan.run.plan import Plan, make_plan
from cryogan.run.postprocess import Result
from cryogan.run.reconstruct import figures, reconstruct, resume
from cryogan.simulation import simulate
from cryogan.validation import resolution_at
from processes import cryogan

SHARED: dict[str, object] = {"symmetry": "D2", "max_shift": 4.0, "seed": 3, "threads": 1, "batch_size": 16}
VALUES: dict[str, dict[str, object]] = {
    "matching": SHARED
    | {
        "critic": "matching",
        "orientations": 800,
        "search_steps": 10,
        "search_batch": 50,
        "marching_steps": 1,
        "marching_images": 200,
        "starts": 2,
    },
    "wasserstein": SHARED
    | {
        "critic": "wasserstein",
        "steps": 30,
        "critic_steps": 2,
        "penalty_every": 2,
        "critic_width": 4,
        "coarse_to_fine": False,
        "starts": 1,
        "critic_warmup": 4,
    },
}
STEPS = {"matching": 10 + 10 + 4, "wasserstein": 30}
MAPS = ("half1_map_unfil.mrc", "half2_map_unfil.mrc", "map.mrc")


def settings(critic: str = "matching", **changes: object) -> Settings:
    return resolve("default", None, VALUES[critic] | changes)


@pytest.fixture(scope="module", params=VALUES)
def critic(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def result(critic: str, particles: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("run") / "out"
    console = Console(file=(out.parent / "said.txt").open("w"), width=200)
    done = reconstruct(
        particles / "particles.star", out, settings(critic), noise=particles / "noise.star", console=console
    )
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
    assert (subset == 1).sum() == (subset == 2).sum() == 200
    # What the file says is what the halves were trained on.
    np.testing.assert_array_equal(np.flatnonzero(subset == 1), half_rows(400, 1, 3))
    np.testing.assert_array_equal(np.flatnonzero(subset == 2), half_rows(400, 2, 3))


@pytest.mark.parametrize("count", [2, 7, 100])
def test_half_rows_part_the_set(count: int) -> None:
    first, second = half_rows(count, 1, 5), half_rows(count, 2, 5)
    assert sorted([*first, *second]) == list(range(count))
    assert abs(len(first) - len(second)) <= 1
    if count == 100:
        assert not np.array_equal(first, half_rows(count, 1, 6))
        np.testing.assert_array_equal(first, half_rows(count, 1, 5))
        assert 30 < (first < 50).sum() / len(first) * 100 < 70  # spread over the file


def test_progress_and_run_record(critic: str, result: Result) -> None:
    records = [json.loads(line) for line in (result.folder / "progress.jsonl").read_text().splitlines()]
    for half in (1, 2):
        steps = [record["step"] for record in records if record["half"] == half]
        assert steps == sorted(steps)
        assert steps[-1] == STEPS[critic]
    assert all(np.isfinite(value) for record in records for value in record.values())
    run = tomllib.loads((result.folder / "run.toml").read_text())
    assert VALUES[critic].items() <= run["settings"].items()
    assert run["plan"]["box"] == 32
    assert run["plan"]["pixel_size"] == pytest.approx(4.0)


def test_a_run_from_a_cache_is_the_same(particles: Path, tmp_path: Path) -> None:
    chosen = settings(box=16, search_steps=2, starts=1, marching_steps=1)
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
    cached, direct = (read_volume(each.folder / "map.mrc")[0] for each in done)
    assert np.corrcoef(cached.ravel(), direct.ravel())[0, 1] > 0.995  # float16
    texts = [(each.folder / "particles.star").read_text() for each in done]
    assert texts[0] == texts[1]  # it names the original images


def test_learned_poses_are_written_and_drawn(particles: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    reconstruct(particles / "particles.star", folder, settings(learn_poses=True), console=Console(file=io.StringIO()))
    found = read_star(folder / "views.star")
    assert found["views"].floats("cryoganViewDensity").mean() == pytest.approx(1.0, abs=1e-4)
    assert 0 < found["shifts"].floats("cryoganShiftHalfWidthAngst")[0] <= settings().max_shift
    assert (folder / "figures" / "views.png").exists()
    assert "From where the particles are seen" in (folder / "report.html").read_text()


def test_a_prior_on_the_views_is_turned_written_and_drawn(particles: Path, tmp_path: Path) -> None:
    columns = {"rlnAngleRot": [10.0, 80.0], "rlnAngleTilt": [30.0, 90.0], "cryoganViewDensity": [1.0, 3.0]}
    write_star(tmp_path / "prior.star", {"views": columns})
    few = {"box": 16, "search_steps": 2, "starts": 1, "marching_steps": 1}
    folder, chosen = tmp_path / "run", settings(pose_prior=tmp_path / "prior.star", **few)
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
    values = VALUES["wasserstein"] | {"stages": "16:3,24:2", "pose_prior": str(tmp_path / "prior.star")}
    for name in ("steps", "coarse_to_fine"):
        del values[name]
    folder = tmp_path / "run"
    reconstruct(
        particles / "particles.star", folder, resolve("default", None, values), console=Console(file=io.StringIO())
    )
    assert [r["box"] for r in records(folder, 1)] == [16, 16, 16, 24, 24]
    assert read_volume(folder / "map.mrc")[0].shape == (24, 24, 24)
    assert read_star(folder / "views.star")["views"].floats("cryoganViewDensity").max() > 10


def test_poses_are_learned_by_the_view_critic_only(particles: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--learn-poses needs --critic matching"):
        reconstruct(particles / "particles.star", tmp_path / "run", settings("wasserstein", learn_poses=True))


def test_a_run_is_not_overwritten(result: Result, particles: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in result.folder.rglob("*")}
    with pytest.raises(InputError, match="is not an empty folder"):
        reconstruct(particles / "particles.star", result.folder, settings())
    assert {file: file.stat().st_mtime_ns for file in result.folder.rglob("*")} == before


def wait_for_records(log: Path, process: subprocess.Popen[str]) -> None:
    """Until both halves have made a step."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if log.exists() and {json.loads(line)["half"] for line in log.read_text().splitlines(True) if "\n" in line} == {
            1,
            2,
        }:
            return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"no progress: {process.communicate()[1]}")


def test_an_interrupted_run_goes_on_to_the_same_maps(
    critic: str, result: Result, particles: Path, tmp_path: Path
) -> None:
    out, chosen = tmp_path / "out", tmp_path / "settings.toml"
    chosen.write_text(tomli_w.dumps(VALUES[critic]))
    inputs = (particles / "particles.star", "--noise", particles / "noise.star", "--config", chosen)
    command = ("reconstruct", *inputs, "--out", out)
    process = cryogan(*command)
    wait_for_records(out / "progress.jsonl", process)
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


def test_sigterm_to_the_parent_alone_is_an_interruption(particles: Path, tmp_path: Path) -> None:
    process = cryogan("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--max-shift", 4)
    wait_for_records(tmp_path / "out" / "progress.jsonl", process)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert all((tmp_path / "out" / f"half{half}.pt").exists() for half in (1, 2))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes of a run are found in /proc")
def test_halves_that_are_killed_are_told_of(particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = cryogan("reconstruct", particles / "particles.star", "--out", out, "--max-shift", 4)
    wait_for_records(out / "progress.jsonl", process)
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "The process of half 1 was killed, as the system does when memory runs out" in err
    assert f"cryogan reconstruct --resume {out}" in err


def test_halves_end_when_their_parent_is_killed(particles: Path, tmp_path: Path) -> None:
    process = cryogan("reconstruct", particles / "particles.star", "--out", tmp_path / "out", "--max-shift", 4)
    wait_for_records(tmp_path / "out" / "progress.jsonl", process)
    process.kill()
    process.communicate(timeout=60)  # until nobody holds its pipes: the halves have ended, too
    assert all((tmp_path / "out" / f"half{half}.pt").exists() for half in (1, 2))


def test_two_runs_in_one_folder_are_kept_apart(result: Result, particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = cryogan("reconstruct", particles / "particles.star", "--out", out, "--max-shift", 4)
    wait_for_records(out / "progress.jsonl", first)
    with pytest.raises(InputError, match="Another process works in"):
        resume(out)
    with pytest.raises(InputError, match="not finished"):
        figures(out)
    first.terminate()
    first.communicate(timeout=120)
    with locked(result.folder / ".lock", wait=False), pytest.raises(InputError, match="Another process works in"):
        figures(result.folder)


def test_a_run_goes_on_when_a_full_disk_has_room_again(particles: Path, tmp_path: Path) -> None:
    out = planned(tmp_path / "out", particles, settings(search_steps=3, starts=1))
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
    again = figures(result.folder)
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
    wait_for_records(out / "progress.jsonl", process)
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


class StopAfter(queue.Queue[Message]):
    """Interrupts its process once it was told of this many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def put(self, item: Message, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._left -= item.kind == "record"
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def handlers() -> Iterator[None]:
    """`train_half` takes the signals of its process; give them back."""
    numbers = (signal.SIGINT, *STOPPING)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def last(messages: "queue.Queue[Message]") -> Message:
    *_, message = list(messages.queue)
    assert isinstance(message, Message)
    return message


def planned(folder: Path, particles: Path, chosen: Settings) -> Path:
    """A run's folder as its halves find it."""
    plan, images, _ = make_plan(particles / "particles.star", particles / "noise.star", None, chosen)
    (folder / "snapshots").mkdir(parents=True)
    (folder / "figures").mkdir()
    plan.write(folder)
    write_particles(folder / "particles.star", images.table)
    return folder


@pytest.mark.usefixtures("handlers")
def test_a_half_is_resumed_within_and_between_stages(
    critic: str, particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryogan.critics.wasserstein.method.COARSE_BOXES", (16,))  # smaller than by default, for speed
    monkeypatch.setattr("cryogan.critics.matching.method.SEARCH_BOX", 16)
    if critic == "matching":
        chosen = settings(critic, search_steps=5, marching_steps=1)
    else:
        chosen = settings(critic, steps=4, coarse_to_fine=True, coarse_steps=5, starts=2)
    whole, parts = (planned(tmp_path / name, particles, chosen) for name in ("whole", "parts"))
    assert [(stage.box, stage.steps) for stage in Plan.read(whole).stages] == [(16, 5), (16, 5), (32, 4)]
    undisturbed: queue.Queue[Message] = queue.Queue()
    train_half(whole, 2, undisturbed)  # type: ignore[arg-type]
    assert last(undisturbed).kind == "finished", last(undisturbed).text
    # Half 2, as half 1 draws pictures, which takes longer than these steps.
    told: list[float] = []
    for steps in (2, 3, 2, 5):  # within a stage, at its end, within the next, within the last
        stopped = StopAfter(steps)
        train_half(parts, 2, stopped)  # type: ignore[arg-type]
        assert last(stopped).kind == "stopped", last(stopped).text
        told += [m.record["step"] for m in stopped.queue if m.record is not None]
    again: queue.Queue[Message] = queue.Queue()
    train_half(parts, 2, again)  # type: ignore[arg-type]
    assert last(again).kind == "finished", last(again).text
    told += [m.record["step"] for m in again.queue if m.record is not None]
    assert told == list(range(1, 15))  # no step twice, none left out
    final = "snapshots/half2_step000014.mrc"
    np.testing.assert_array_equal(read_volume(parts / final)[0], read_volume(whole / final)[0])


class Spoiling(queue.Queue[Message]):
    """Does something to the particles' stack at the given step."""

    def __init__(self, step: int, spoil: Callable[[], object]) -> None:
        super().__init__()
        self._step, self._spoil = step, spoil

    def put(self, item: Message, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        if item.record is not None and item.record["step"] == self._step:
            self._spoil()


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("in_memory", "step", "spoiling"),
    [(False, 2, "cut"), (False, 2, "gone"), (True, 5, "touched")],  # read anew at each step; at each stage
)
def test_a_stack_that_changes_under_a_run_is_named(
    in_memory: bool,
    step: int,
    spoiling: str,
    copied: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cryogan.critics.matching.method.SEARCH_BOX", 16)
    if not in_memory:
        monkeypatch.setattr(ParticleImages.__init__, "__defaults__", (False, 0, None))
    chosen = settings(search_steps=5, marching_steps=1, starts=1)
    folders = [planned(tmp_path / name, copied().parent, chosen) for name in ("whole", "parts")]
    undisturbed: queue.Queue[Message] = queue.Queue()
    train_half(folders[0], 2, undisturbed)  # type: ignore[arg-type]
    assert last(undisturbed).kind == "finished", last(undisturbed).text

    stack = copied().parent / "particles.mrcs"
    whole, status = stack.read_bytes(), stack.stat()
    times = (status.st_atime_ns, status.st_mtime_ns)
    spoil: dict[str, Callable[[], object]] = {
        "cut": lambda: stack.write_bytes(whole[: len(whole) // 2]),
        "gone": stack.unlink,
        "touched": lambda: os.utime(stack, ns=(0, 0)),
    }
    spoilt = Spoiling(step, spoil[spoiling])
    train_half(folders[1], 2, spoilt)  # type: ignore[arg-type]
    assert last(spoilt).kind == "failed"
    assert "particles.mrcs: " + ("cannot be read" if spoiling == "gone" else "has changed") in last(spoilt).text
    assert "--resume" in last(spoilt).text

    stack.write_bytes(whole)
    os.utime(stack, ns=times)
    again: queue.Queue[Message] = queue.Queue()
    train_half(folders[1], 2, again)  # type: ignore[arg-type]
    assert last(again).kind == "finished", last(again).text
    maps = [read_volume(snapshot_path(folder, 2, Plan.read(folder).total_steps))[0] for folder in folders]
    np.testing.assert_array_equal(*maps)


@pytest.mark.usefixtures("handlers")
def test_a_clock_that_goes_backwards_changes_nothing(
    particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryogan.critics.matching.method.SEARCH_BOX", 16)
    monkeypatch.setattr("cryogan.run.half.LATEST_SECONDS", 0.0)
    seconds = itertools.count(2e9, -3600.0)
    monkeypatch.setattr(time, "time", lambda: next(seconds))
    chosen = settings(search_steps=5, marching_steps=1, starts=1, checkpoint_minutes=1e-9)
    folder = planned(tmp_path / "run", particles, chosen)
    latest = folder / "snapshots" / "half2_latest.mrc"
    written: list[tuple[bytes, bytes]] = []
    messages = Spoiling(3, lambda: written.append((latest.read_bytes(), (folder / "half2.pt").read_bytes())))
    train_half(folder, 2, messages)  # type: ignore[arg-type]
    assert last(messages).kind == "finished", last(messages).text
    minutes = [message.record["minutes"] for message in messages.queue if message.record is not None]
    assert minutes == sorted(minutes)
    assert minutes[0] > 0
    assert written[0] != (latest.read_bytes(), (folder / "half2.pt").read_bytes())


def test_a_record_that_was_cut_off_is_left_out(particles: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"half": 1, "step": step, "critic_gap": 1.0}) for step in (1, 2, 3)]
    # A disk that was full for a while, and a run that was killed.
    (tmp_path / "progress.jsonl").write_text(f"{lines[0]}\n{lines[1][:20]}{lines[1]}\n{lines[2]}\n{lines[0][:9]}")
    assert [record["step"] for record in records(tmp_path, 1)] == [1, 3]


@pytest.mark.usefixtures("handlers")
def test_a_half_ends_in_time_with_the_map_that_it_has(
    critic: str, particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryogan.critics.matching.method.SEARCH_BOX", 16)
    folder = planned(tmp_path / "run", particles, settings(critic, max_minutes=0.5001))
    messages: queue.Queue[Message] = queue.Queue()
    train_half(folder, 2, messages)  # type: ignore[arg-type]
    assert last(messages).kind == "finished", last(messages).text
    assert torch.load(folder / "half2.pt")["training"]["step"] == 1
    plan = Plan.read(folder)
    assert read_volume(snapshot_path(folder, 2, plan.total_steps))[0].any()


@pytest.mark.parametrize("noise", [True, False])
def test_the_seed_and_the_half_decide_the_map(critic: str, noise: bool, particles: Path) -> None:
    star, patches = particles / "particles.star", particles / "noise.star" if noise else None

    def map_of(half: int, seed: int) -> np.ndarray:
        plan, _, _ = make_plan(star, patches, None, settings(critic, seed=seed))
        training = build_training(plan, 0, star, half)
        assert not training.volume.density.any()  # from zero
        assert len(list(training.run(until=3))) == 3
        return training.result().numpy()

    one = map_of(1, 0)
    np.testing.assert_array_equal(one, map_of(1, 0))
    assert not np.allclose(one, map_of(1, 1))
    assert not np.allclose(one, map_of(2, 0))


def test_critics_start_alike_only_if_asked(particles: Path) -> None:
    for shared in (True, False):
        plan, _, _ = make_plan(
            particles / "particles.star", None, None, settings("wasserstein", shared_critic_start=shared)
        )
        critics = [build_training(plan, 0, plan.particles, half).critic for half in (1, 2)]
        weights = [torch.cat([p.flatten() for p in critic.parameters()]) for critic in critics]
        assert torch.equal(*weights) == shared


@pytest.mark.usefixtures("handlers")
def test_a_spoilt_checkpoint_ends_in_one_line(particles: Path, tmp_path: Path) -> None:
    folder = planned(tmp_path / "run", particles, settings())
    (folder / "half2.pt").write_bytes(bytes(3000))
    messages: queue.Queue[Message] = queue.Queue()
    train_half(folder, 2, messages)  # type: ignore[arg-type]
    assert last(messages).kind == "failed"
    assert "half2.pt is not a checkpoint" in last(messages).text
    assert "\n" not in last(messages).text


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
