"""The External job of cryoSPARC: the client of cryosparc-tools talks to a server that refuses what the API refuses."""

import gc
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from cryosparc.dataset import Dataset
from fake_cryosparc import FakeCryoSPARC, serving

from builders import TINY
from cryogan.cli import main
from cryogan.models.phantom import phantom
from cryogan.particles import read_particles, read_volume, write_cs_particles
from cryogan.simulation import simulate

BOX, PIXEL, COUNT = 48, 3.0, 120
UIDS = np.arange(1, COUNT + 1, dtype=np.uint64) * np.uint64(2**57 // 3)


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with the particles of J10, and its dataset beside it."""
    folder = tmp_path_factory.mktemp("cryosparc") / "project"
    job = folder / "J10"
    density = phantom(BOX, PIXEL, 1)
    simulate(density, PIXEL, job, count=COUNT, snr=10.0, max_shift=4.0, micrographs=10, float32=True, seed=1)
    table = read_particles(job / "particles.star")
    halves = np.arange(COUNT) % 2 + 1
    write_cs_particles(folder.parent / "particles.cs", table, np.zeros((COUNT, 3)), np.zeros((COUNT, 2)), halves)
    dataset = Dataset.load(folder.parent / "particles.cs")
    dataset["blob/path"] = [">J10/particles.mrcs"] * COUNT  # as cryoSPARC names it, from its project
    dataset["uid"] = UIDS
    dataset.save(folder.parent / "particles.cs")
    settings = TINY["matching"] | {"box": 32, "starts": 1}
    (folder.parent / "settings.toml").write_text(tomli_w.dumps(settings))
    return folder


@pytest.fixture
def instance(
    particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FakeCryoSPARC, list[str]]]:
    """A new instance with these particles, and the command of the page for it."""
    for name, value in {"CRYOSPARC_EMAIL": "a@b.org", "CRYOSPARC_PASSWORD": "b", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    project = tmp_path / "project"
    shutil.copytree(particles, project)
    fake = FakeCryoSPARC(project, Dataset.load(particles.parent / "particles.cs"))
    with serving(fake) as url:
        command = ["cryosparc", "--url", url, "--project", "P1", "--workspace", "W1", "--source", "J10"]
        yield fake, [*command, "--config", str(particles.parent / "settings.toml")]
        with warnings.catch_warnings():  # cryosparc-tools closes its connections when its client is collected
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.mark.slow
def test_the_particles_come_back_with_their_uids(instance: tuple[FakeCryoSPARC, list[str]]) -> None:
    fake, command = instance
    main([*command, "--quiet"])
    job = fake.jobs["J11"]
    assert fake.refused == []
    assert job["status"] == "completed"
    kept, rejected = (fake.saved["J11", f"{name}_out"] for name in ("particles", "rejected"))
    np.testing.assert_array_equal(np.sort(np.concatenate([kept["uid"], rejected["uid"]])), UIDS)
    assert np.ptp(kept["alignments3D/pose"], axis=0).min() > 1
    assert set(kept["alignments3D/split"]) == {0, 1}
    volume = fake.saved["J11", "volume"]
    for slot in ("map", "map_half_A", "map_half_B"):
        density, pixel_size = read_volume(fake.project / volume[f"{slot}/path"][0])
        assert (density.shape, pixel_size) == ((BOX,) * 3, pytest.approx(PIXEL))
        np.testing.assert_array_equal(volume[f"{slot}/shape"][0], density.shape)
    assert (fake.project / fake.saved["J11", "mask"]["mask/path"][0]).exists()
    texts = [event["text"] for event in fake.events]
    assert any(text.startswith("Verdict: ") for text in texts)
    assert {"FSC of the half maps", "Report"} <= set(texts)
    assert job["ui_tile_images"]


def test_a_job_killed_in_the_middle_stays_killed(
    instance: tuple[FakeCryoSPARC, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, command = instance
    monkeypatch.setattr("cryogan.integrations.cryosparc_job.STATUS_SECONDS", 0.1)

    def kill_at_the_first_line(call: Callable[..., object]) -> Callable[..., object]:
        def add(values: dict[str, str], body: bytes) -> object:
            fake.jobs["J11"]["status"] = "killed"
            return call(values, body)

        return add

    fake.add_event_log = kill_at_the_first_line(fake.add_event_log)  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--search-steps", "1000"])
    assert ended.value.code == 130
    assert fake.jobs["J11"]["status"] == "killed"
    assert ("J11", "volume") not in fake.saved
    assert "The job was stopped." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--project": "P2"}, "P2 J10 does not exist"),
        ({"--workspace": "W2"}, "P1 W2 does not exist"),
        ({"--output": "volume"}, "does not have output volume"),
        ({"--box": "15"}, "Input should be greater than or equal to 16"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    instance: tuple[FakeCryoSPARC, list[str]],
    changed: dict[str, str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake, command = instance
    for flag, value in changed.items():
        if flag in command:
            command[command.index(flag) + 1] = value
        else:
            command += [flag, value]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not any(job["status"] == "running" for job in fake.jobs.values())


def test_a_job_that_fails_says_why_in_its_log(
    instance: tuple[FakeCryoSPARC, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    fake, command = instance
    with pytest.raises(SystemExit):
        main([*command, "--noise", "absent.star"])
    assert fake.jobs["J11"]["status"] == "failed"
    assert fake.events[-1]["text"].startswith("absent.star: cannot be read")
