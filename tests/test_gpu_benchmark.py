"""The benchmark for GPUs: each part on the CPU at a reduced size, what becomes of parts that fail, and its page."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cryogan.fourier import to_images
from cryogan.particles import open_stack, read_volume
from cryogan.physics.ctf import ctf
from cryogan.physics.noise import background_mask
from cryogan.physics.projector import FourierProjector
from cryogan.simulation.particles import particles_from_star

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    return gpu


@pytest.fixture
def gpu_page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_page

    return gpu_page


def require_particles(folder: Path) -> None:
    """Each image is its pose's projection by the program, with its CTF and noise of the SNR."""
    made, volume = (
        particles_from_star(folder / "truth.star", 200),
        torch.from_numpy(read_volume(folder / "truth.mrc")[0]),
    )
    projector = FourierProjector(32, device=torch.device("cpu"))
    slices = projector.slices(projector.transform(volume), made.phi.rotations.float())
    inside = ~background_mask(32, 14.0, volume.device)
    expected = to_images(slices * ctf(made.optics, 32, 6.0))[:, inside]
    images = torch.from_numpy(open_stack(folder / "particles.mrcs").astype("float32"))[:, inside]
    assert len(images) == 200
    both = torch.stack([expected.flatten(), images.flatten()])
    assert torch.corrcoef(both)[0, 1] == pytest.approx((0.55 / 1.55) ** 0.5, abs=0.03)


def test_particles_and_operations_on_a_cpu(gpu: ModuleType, gpu_page: ModuleType, tmp_path: Path) -> None:
    parts = gpu.parts(gpu.SIZES["quick"], torch.device("cpu"), tmp_path)
    parts["particles"].run()
    require_particles(tmp_path / "particles")
    found = parts["operations at 24 px"].run()
    text = "\n".join(gpu_page.operations({"operations": found}))
    for name in ("samples", "adjoint", "normal equations", "Gauss-Newton step", "CTF", "FSC"):
        assert f"| {name} | 24 |" in text


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(gpu_page: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--quick", "--minutes", "30"]
    done = subprocess.run(
        [*command, "--scratch", str(tmp_path / "scratch"), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(out.read_text())
    parts = record["parts"]
    assert list(parts) == ["particles", "tests", "operations at 24 px", "default at 24 px", "paper preset"]
    assert all(part["status"] == "done" for part in parts.values())
    assert {row["operation"] for row in parts["operations at 24 px"]["rows"]} > {"samples", "adjoint", "CTF", "FSC"}
    for name in ("default at 24 px", "paper preset"):
        run = parts[name]
        assert run["before_s"] > 0
        assert run["steps_s"] >= 0
        assert run["before_s"] + run["steps_s"] + run["after_s"] == pytest.approx(60 * run["minutes"])
        assert 16 <= run["truth_05"] <= 192
        assert run["memory_gib"] > 0
    text = "\n".join(gpu_page.measured(record))
    for name in parts:
        assert f"| {name} | done" in text


def test_a_part_that_fails_does_not_end_the_others_and_is_run_again(gpu: ModuleType) -> None:
    def fail() -> dict[str, Any]:
        raise ValueError("no such thing")

    def part(run: Any, seconds: float = 0.0) -> Any:
        return gpu.Part(seconds, run)

    record: dict[str, Any] = {"parts": {}}
    kept = []
    planned = {
        "fails": part(fail),
        "dies": part(lambda: os.system("echo last words") or os._exit(3)),
        "works": part(lambda: {"found": 1}),
        "is long": part(lambda: {"found": 2}, 1e6),
    }
    gpu.run_parts(record, planned, time.monotonic() + 60, lambda record: kept.append(len(record["parts"])))
    parts = record["parts"]
    statuses = {name: found["status"] for name, found in parts.items()}
    assert statuses == {"fails": "failed", "dies": "failed", "works": "done", "is long": "left"}
    assert kept == [1, 2, 3, 4]
    assert "no such thing" in parts["fails"]["error"]
    assert "exit code 3" in parts["dies"]["error"]
    assert "last words" in parts["dies"]["printed"]
    assert parts["works"]["found"] == 1
    again = dict.fromkeys(planned, part(lambda: {"found": 3}))
    gpu.run_parts(record, again, time.monotonic() + 60, lambda record: None)
    assert [found["found"] for found in parts.values()] == [3, 3, 1, 3]


def test_a_part_that_takes_too_long_is_stopped(gpu: ModuleType) -> None:
    found = gpu.apart(lambda: time.sleep(600), 1.0)
    assert found["status"] == "failed"
    assert "the time was over" in found["error"]
    assert found["seconds"] < 300


def test_a_missing_device_is_told(gpu: ModuleType, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(SystemExit, match="No CUDA device is visible"):
        gpu.begin(tmp_path / "gpu.json", "full", torch.device("cuda"))


def test_the_page_says_what_the_records_say(gpu_page: ModuleType) -> None:
    runs, page = ROOT / "docs" / "runs", (ROOT / "docs" / "gpu.md").read_text()
    path = runs / "gpu.json"
    record = json.loads(path.read_text()) if path.exists() else None
    assert page == gpu_page.page(json.loads((runs / "gpu_first.json").read_text()), record)
