"""The memory that a half is said to take, against what its process has taken."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from cryogan.config import resolve
from cryogan.critics import Memory
from cryogan.models.phantom import phantom
from cryogan.run.build import build_trainer
from cryogan.run.inputs import read_inputs
from cryogan.simulation import simulate

BOX = 96
FLAGS = {"box": BOX, "symmetry": "D2", "max_shift": 5.0, "marching_images": 256, "coarse_to_fine": False}
FLAGS |= {"critic_warmup": 1, "critic_steps": 1, "batch_size": 48}


def peak_gib() -> float:
    """Most memory that this program had, GiB; unlike `getrusage`, nothing of the process that started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def peak_of_a_step(folder: Path, critic: str, result: Any) -> None:
    plan, *_ = read_inputs(folder / "particles.star", None, None, resolve("default", None, FLAGS | {"critic": critic}))
    training = build_trainer(plan, len(plan.stages) - 1, folder / "particles.star", 1)
    if critic == "matching":
        training.step = training.steps - 1  # all frequencies
    list(training.run(until=training.step + 1))
    result.put((plan.cost.memory_gib, peak_gib()))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "set"
    simulate(phantom(BOX, 2.5, 0), 2.5, folder, count=200, snr=1.0, max_shift=5.0, noise="none")
    return folder


@pytest.mark.parametrize("critic", ["matching", "wasserstein"])
def test_the_estimate_is_near_what_a_process_takes(critic: str, large: Path) -> None:
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    process = context.Process(target=peak_of_a_step, args=(large, critic, result))
    process.start()
    estimate, peak = result.get(timeout=300)
    process.join()
    assert peak > 0.7  # GiB; else it would be the libraries' memory that is compared
    assert 0.8 * peak < estimate < 1.3 * peak


def test_as_many_images_at_once_as_memory_holds() -> None:
    memory = Memory(fixed=100.0, per_image=10.0, at_once=32)
    assert memory.total == 420
    assert [memory.images_within(free) for free in (1e6, 420.0, 255.0, 105.0, 0.0)] == [32, 32, 15, 1, 1]


def test_it_is_said_before_the_start(particles: Path) -> None:
    small, large = (
        read_inputs(particles / "particles.star", None, None, resolve("default", None, {"box": box}))
        for box in (16, 32)
    )
    (found,) = [finding for finding in large.findings if finding.code == "memory"]
    assert found.values["gib"] == large.plan.cost.memory_gib
    assert f"about {large.plan.cost.memory_gib:.1f} GiB" in found.sentence
    assert small.plan.cost.memory_gib < large.plan.cost.memory_gib
