"""A collection that is followed from end to end, killed, and gone on with."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest
from rich.console import Console

from cryogan.config import resolve
from cryogan.errors import InputError
from cryogan.files import locked
from cryogan.live.clock import Clock
from cryogan.live.folder import LiveFolder, read_json
from cryogan.live.follow import Follower
from cryogan.live.ledger import SOURCE_NAME
from cryogan.live.schedule import Pace
from cryogan.live.start import follow, require_same
from cryogan.models.phantom import phantom
from cryogan.particles import read_star
from cryogan.simulation import simulate
from processes import cryogan

SECONDS = 300.0  # in which something has to happen, on a machine that is busy
SETTINGS: dict[str, object] = {
    "symmetry": "D2",
    "max_shift": 4.0,
    "seed": 3,
    "starts": 1,
    "orientations": 800,
    "search_steps": 20,
    "search_batch": 60,
    "marching_steps": 1,
    "marching_images": 400,
    "box": 24,
}
FLAGS = [text for name, value in SETTINGS.items() for text in (f"--{name.replace('_', '-')}", str(value))]
PACE = ["--first", "300", "--portion", "50", "--portion-minutes", "0.01", "--interval", "0.2", "--no-page"]


def portion(collection: Path, number: int, count: int, **options: object) -> None:
    """Let particles appear, as a job that writes a folder for each micrograph's batch."""
    made = collection.parent / f"made{number}"
    simulate(
        phantom(32, 4.0, 1), 4.0, made, count=count, snr=10.0, max_shift=4.0, micrographs=10, seed=number, **options
    )
    collection.mkdir(exist_ok=True)
    for name in ("noise.star", "noise.mrcs", "truth.star", "truth.mrc"):
        (made / name).unlink()
    made.rename(collection / f"part{number}")


def waits_for(happens: Callable[[], bool], process: Popen[str] | None = None) -> None:
    end = time.monotonic() + SECONDS
    while not happens():
        assert process is None or process.poll() is None, process and process.communicate()
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a collection that was followed through a kill to its end."""
    root = tmp_path_factory.mktemp("collection")
    collection, folder = root / "collection", LiveFolder(root / "live")
    first = folder.map_run(1)
    portion(collection, 1, 320)
    command = ("live", collection, "--out", folder.path, *FLAGS, *PACE)
    process = cryogan(*command)
    waits_for(lambda: first.progress.exists() and bool(first.progress.read_text()), process)
    process.kill()
    process.communicate()
    (root / "before").write_text(first.progress.read_text().rpartition("\n")[0])
    waits_for(lambda: not first.is_busy)  # what it has started ends, too
    again = cryogan(*command)
    waits_for(lambda: 1 in folder.map_numbers(), again)
    portion(collection, 2, 90)
    waits_for(lambda: 2 in folder.map_numbers(), again)
    asked = cryogan(*command, "--finish")
    assert "makes the final run" in asked.communicate(timeout=SECONDS)[0]
    out, err = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, err
    assert "The final run" in out
    return root


@pytest.mark.slow
def test_a_collection_to_its_end(ended: Path) -> None:
    folder = LiveFolder(ended / "live")
    first, second = (read_json(folder.map_record(number)) for number in (1, 2))
    assert (first["particles"], first["start"], first["last"]) == (320, "zero", None)
    assert folder.map_run(1).progress.read_text().startswith((ended / "before").read_text())  # it went on
    assert first["verdict"] == "resolved"
    assert (second["particles"], second["start"], second["last"]) == (410, "last", 1)
    assert second["verdict"] == "resolved"
    assert second["held_out_A"] <= 1.2 * first["held_out_A"]
    assert not folder.map_run(1).snapshots.exists()
    halves = [recorded(folder.map_run(number).particles) for number in (1, 2)]
    assert {name: halves[1][name] for name in halves[0]} == halves[0]
    judged = read_json(folder.portion_record(2))
    assert judged["map"] == 1
    assert judged["share"] > 0.8
    assert read_json(folder.status)["state"] == "finished"
    assert folder.final.is_finished
    assert folder.final.report.exists()
    names = read_star(folder.final.particles)["particles"].texts("rlnImageName")
    assert len(names) == len(set(names)) == 410
    assert all(Path(name.partition("@")[2]).is_relative_to(ended / "collection") for name in names)


def recorded(star: Path) -> dict[str, str]:
    table = read_star(star)["particles"]
    return dict(zip(table.texts(SOURCE_NAME), table.texts("rlnRandomSubset"), strict=True))


# What needs no map.

NEVER = Pace(first=100_000, portion=50, portion_minutes=0.0)


class Ticks:
    """A clock of which a test says how late it is."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> Clock:
        return Clock(0.0, lambda: 1e9, lambda: self.seconds)


def follower(root: Path, pace: Pace = NEVER, ticks: Ticks | None = None, collection: str = "collection") -> Follower:
    quiet = Console(quiet=True)
    settings = resolve("default", None, SETTINGS)
    clock = (ticks or Ticks()).clock()
    return Follower(LiveFolder(root / "live"), root / collection, settings, pace, console=quiet, clock=clock)


def codes(one: Follower) -> list[str]:
    file = one.folder.alerts
    return [json.loads(line)["code"] for line in file.read_text().splitlines()] if file.exists() else []


def test_a_folder_that_goes_away_is_said_and_the_end_waits_for_it(tmp_path: Path) -> None:
    ticks = Ticks()
    portion(tmp_path / "collection", 1, 60)
    one = follower(tmp_path, ticks=ticks)
    for _ in range(3):
        assert one.step()
    assert read_json(one.folder.status)["particles"] == 60
    (tmp_path / "collection").rename(tmp_path / "away")
    ticks.seconds = 7200.0  # longer than the hour after which the end is made
    one.step()
    assert codes(one) == ["input-away"]
    assert read_json(one.folder.status)["state"] == "input away"
    (tmp_path / "away").rename(tmp_path / "collection")
    one.step()
    assert codes(one) == ["input-away", "input-back"]
    assert read_json(one.folder.status)["state"] == "collecting"
    assert read_json(one.folder.status)["particles"] == 60


def test_a_file_that_stays_unreadable_is_said(tmp_path: Path) -> None:
    portion(tmp_path / "collection", 1, 60)
    star = tmp_path / "collection" / "part1" / "particles.star"
    whole = star.read_text()
    one = follower(tmp_path)
    star.write_text(whole[:200])  # as far as it is written
    for _ in range(2):
        one.step()
    assert codes(one) == []
    star.write_text(whole.replace("_rlnDefocusU #", "_rlnDefocusV #"))
    for _ in range(3):
        one.step()
    assert codes(one) == ["input-unreadable"]
    assert f"{star}, line" in one.folder.alerts.read_text()
    star.write_text(whole)
    for _ in range(3):
        one.step()
    assert read_json(one.folder.status)["particles"] == 60


def test_an_end_that_cannot_be_made_can_be_asked_for_again(tmp_path: Path) -> None:
    portion(tmp_path / "collection", 1, 20)  # fewer than two batches
    command = ("live", tmp_path / "collection", "--out", tmp_path / "live", *FLAGS, *PACE, "--batch-size", "16")
    ended = cryogan(*command, "--finish")
    _, err = ended.communicate(timeout=SECONDS)
    assert ended.returncode == 2
    assert "too few for two halves" in err
    folder = LiveFolder(tmp_path / "live")
    assert not folder.final_record.exists()
    assert not folder.finish_request.exists()
    assert read_json(folder.status)["state"] == "stopped"


def test_few_particles_wait_for_more_or_for_a_time(tmp_path: Path) -> None:
    ticks = Ticks()
    portion(tmp_path / "collection", 1, 40)
    one = follower(tmp_path, Pace(first=100_000, portion=50, portion_minutes=2.0), ticks)
    for _ in range(3):
        one.step()
    assert read_json(one.folder.status)["particles"] == 0
    assert read_json(one.folder.status)["waiting"] == 40
    ticks.seconds = 121.0
    one.step()
    assert read_json(one.folder.status)["particles"] == 40


def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    portion(tmp_path / "collection", 1, 120)
    folder, sent = LiveFolder(tmp_path / "live"), tmp_path / "sent.txt"
    alert = f"sh -c 'echo \"$1\" >> {sent}' -"
    command = ("live", tmp_path / "collection", "--out", folder.path, *FLAGS, *PACE, "--on-alert", alert)
    process = cryogan(*command, largest_file=60_000)  # the stack of the portion is larger
    waits_for(lambda: sent.exists() and bool(sent.read_text()), process)
    assert "Nothing can be written" in sent.read_text()
    assert folder.portion_numbers() == []
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=SECONDS)[0] == ""
    again = cryogan(*command)
    waits_for(lambda: folder.portion_numbers() == [1], again)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=SECONDS)
    assert again.returncode == 130
    assert read_json(folder.status)["state"] == "stopped"


def test_two_starts_and_other_inputs_are_refused(tmp_path: Path) -> None:
    settings = resolve("default", None, SETTINGS)
    portion(tmp_path / "collection", 1, 20)
    folder = LiveFolder(tmp_path / "live")

    def start(path: str = "collection", **changes: object) -> None:
        follow(tmp_path / path, folder.path, settings.model_copy(update=changes), NEVER)

    with pytest.raises(InputError, match="is not a folder"):
        start("nowhere/particles.star")
    assert not folder.path.exists()
    folder.path.mkdir()
    (folder.path / "other").touch()
    with pytest.raises(InputError, match="not an empty folder"):
        start()
    (folder.path / "other").unlink()
    with locked(folder.lock, wait=False):
        folder.record.unlink(missing_ok=True)
    folder.lock.unlink()
    require_same(folder, tmp_path / "collection", settings)
    with locked(folder.lock, wait=False), pytest.raises(InputError, match="Another process works"):
        start()
    with pytest.raises(InputError, match="another --symmetry"):
        start(symmetry="C1")
    with pytest.raises(InputError, match="follows"):
        start("elsewhere")


def test_little_of_the_machine_is_taken() -> None:
    script = """
import os, sys
from cryogan.live.start import be_polite
be_polite(1)
assert "torch" not in sys.modules
print(os.nice(0), len(os.sched_getaffinity(0)))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["10", "1"]
