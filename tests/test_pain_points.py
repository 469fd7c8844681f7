"""What users of this field run into, where no other file has it; docs/troubleshooting.md has the list."""

import queue
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import prepared
from cryogan.config import Settings, resolve
from cryogan.critics.matching.templates import TemplateBank, Templates
from cryogan.critics.micro_batch import MicroBatch
from cryogan.critics.wasserstein.discriminator import Discriminator
from cryogan.errors import InputError
from cryogan.parallel.launch import STOPPING
from cryogan.particles import ParticleImages, open_stack, read_particles, read_volume
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import search_poses
from cryogan.refinement.refine import refine
from cryogan.run.build import build_trainer
from cryogan.run.inputs import read_inputs
from cryogan.run.messages import Message
from cryogan.run.outcome import Outcome
from cryogan.run.plan import Plan
from cryogan.run.processes import train_half
from cryogan.run.reconstruct import resume

FEW: dict[str, Any] = {
    "symmetry": "D2",
    "max_shift": 4.0,
    "threads": 1,
    "starts": 1,
    "orientations": 400,
    "search_steps": 2,
    "search_batch": 50,
    "marching_steps": 1,
    "marching_images": 200,
    "batch_size": 16,
    "critic_width": 4,
    "coarse_to_fine": False,
    "steps": 3,
    "critic_warmup": 2,
    "penalty_every": 2,
}


def planned(particles: Path, **changes: Any) -> Plan:
    plan, *_ = read_inputs(particles / "particles.star", None, None, resolve("default", None, FEW | changes))
    return plan


# Image formats


@pytest.mark.parametrize(("mode", "kind"), [(12, "f2"), (1, "i2"), (6, "u2"), (2, "f4")])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_of_stack_gives_the_same_images(
    mode: int, kind: str, order: str, copied: Callable[..., Path]
) -> None:
    star = copied()
    stack = star.with_name("particles.mrcs")
    expected = ParticleImages(read_particles(star), 24, 50.0).batch(np.arange(50))
    pixels, header = np.array(open_stack(stack), dtype=np.float64), bytearray(stack.read_bytes()[:1024])
    pixels = pixels * 1000 + (20000 if kind == "u2" else 0)
    pixels = (pixels.round() if "f" not in kind else pixels / 1000).astype(f"{order}{kind}")
    words = np.frombuffer(bytes(header), "<i4").copy()
    words[3] = mode
    text = words[52:53].copy(), words[56:].copy()  # "MAP " and the labels keep their bytes
    words = words.astype(f"{order}i4")
    raw = bytearray(words.tobytes())
    raw[208:212], raw[224:] = text[0].tobytes(), text[1].tobytes()
    raw[212:216] = bytes([0x44, 0x44, 0, 0] if order == "<" else [0x11, 0x11, 0, 0])
    stack.write_bytes(bytes(raw) + pixels.tobytes())
    read = ParticleImages(read_particles(star), 24, 50.0).batch(np.arange(50))
    assert read.dtype == np.float32
    assert read.dtype.isnative
    np.testing.assert_allclose(read, expected, atol=0.01)


# Memory


def forgetful(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, most: int) -> list[int]:
    """Let a method run out of memory for more than `most` images; the sizes that it was given come back."""
    real, sizes = getattr(owner, name), []

    def limited(self: Any, images: Any, *arguments: Any, **keywords: Any) -> Any:
        sizes.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return real(self, images, *arguments, **keywords)

    monkeypatch.setattr(owner, name, limited)
    return sizes


@pytest.mark.parametrize("allocate", [torch.empty, np.empty])
def test_memory_that_the_machine_does_not_have(allocate: Callable[[int], object]) -> None:
    def task(size: int) -> int:
        if size > 3:
            allocate(size * 10**15)  # beyond any machine's address space
        return size

    batch = MicroBatch(50)
    assert batch.run(task) == batch.size == 2  # 50, 25, 13, 7, 4, 2


@pytest.mark.parametrize(
    ("critic", "stage", "owner", "method", "most", "left"),
    [
        ("matching", 0, TemplateBank, "log_likelihood_ratios", 20, 13),  # 50, 25, 13
        ("matching", 1, TemplateBank, "best", 20, 16),  # 128, 64, 32, 16
        ("wasserstein", 0, Discriminator, "forward", 5, 4),  # 16, 8, 4
    ],
)
def test_out_of_memory_gives_smaller_batches_and_the_same_map(
    critic: str,
    stage: int,
    owner: type,
    method: str,
    most: int,
    left: int,
    particles: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(particles, critic=critic)

    def trained() -> Any:
        training = build_trainer(plan, stage, plan.particles, 1)
        start = np.random.default_rng(0).random((plan.stages[stage].box,) * 3, dtype=np.float32)
        training.volume.start_from(torch.from_numpy(start) / 1000)
        records = list(training.run(until=2))
        assert len(records) == 2
        return training, records

    undisturbed, told = trained()
    sizes = forgetful(monkeypatch, owner, method, most)
    disturbed, told_again = trained()
    assert max(sizes) > most
    assert undisturbed.micro_batch.size > most
    assert disturbed.micro_batch.size == left
    one, other = undisturbed.result(), disturbed.result()
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * one.abs().max().item())
    for record, again in zip(told, told_again, strict=True):
        for name in ("critic_gap", "critic_auc", "map_change"):
            assert again[name] == pytest.approx(record[name], rel=1e-3, abs=1e-4)


def test_out_of_memory_in_the_matching_gives_the_same_poses(particles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(particles)
    truth = torch.from_numpy(read_volume(particles / "truth.mrc")[0])
    undisturbed = search_poses(HalfSet(plan, plan.particles, 1), truth, 10.0)
    forgetful(monkeypatch, TemplateBank, "log_likelihood_ratios", 40)
    half = HalfSet(plan, plan.particles, 1)
    disturbed = search_poses(half, truth, 10.0)
    assert half.micro_batch.size == 32
    ratios = disturbed.log_likelihood_ratio, undisturbed.log_likelihood_ratio
    torch.testing.assert_close(*ratios, rtol=1e-4, atol=1e-2)
    same = torch.isclose(disturbed.rotations, undisturbed.rotations, atol=1e-3).all((1, 2))
    assert same.float().mean() > 0.95  # those of two equal poses may change places


@pytest.fixture
def run(particles: Path, tmp_path: Path) -> Iterator[Path]:
    """A run's folder as its halves find it; `train_half` takes the signals of its process."""
    numbers = (signal.SIGINT, *STOPPING)
    before = [signal.getsignal(number) for number in numbers]
    yield prepared(tmp_path / "run", particles, Settings(**FEW), noise=False)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def told(run: Path) -> list[Message]:
    messages: queue.Queue[Message] = queue.Queue()
    train_half(run, 2, messages)  # type: ignore[arg-type]
    return [message for message in messages.queue if message.record is None]


def test_smaller_batches_are_said_once_a_stage(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful(monkeypatch, TemplateBank, "log_likelihood_ratios", 40)
    *remarks, last = told(run)
    assert last.outcome is Outcome.FINISHED
    findings = [message.finding for message in remarks if message.finding is not None]
    assert [finding.code for finding in findings] == ["smaller-batches", "smaller-batches"]
    assert (
        findings[0].sentence
        == "Half 2 at box 32 ran out of memory and continues with 25 images at a time. The result is the same."
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: Error code 12"),
        MemoryError(),
    ],
)
def test_no_memory_for_one_image_ends_in_one_line(error: Exception, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(TemplateBank, "log_likelihood_ratios", fail)
    (last,) = told(run)
    assert last.outcome is Outcome.FAILED
    assert re.match(r"Out of memory\. Give a smaller --box", last.text)


def test_other_errors_are_no_lack_of_memory(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("The size of tensor a must match the size of tensor b")

    monkeypatch.setattr(TemplateBank, "log_likelihood_ratios", fail)
    with pytest.raises(RuntimeError, match="size of tensor"):
        told(run)


# Numbers that are none


def test_a_map_that_is_not_finite_ends_the_run_with_the_remedy(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Templates.shift_phase

    def poisoned(self: Templates, shifts: torch.Tensor) -> torch.Tensor:
        return real(self, shifts) * float("nan")

    monkeypatch.setattr(Templates, "shift_phase", poisoned)
    (last,) = told(run)
    assert last.outcome is Outcome.FAILED
    assert "Half 2: the map is not finite after step 1. Lower the rates" in last.text
    assert not list((run / "snapshots").iterdir())


# The machine


def test_the_device_is_said(particles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert planned(particles).machine == "Device: cpu, 1 thread for each half; no CUDA device is visible."
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H200")
    assert (
        planned(particles, threads=3).machine == "Device: cpu, 3 threads for each half; not used: H200 (--device cuda)."
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_run_that_was_begun_on_another_device_does_not_change_it(run: Path) -> None:
    file = run / "run.toml"
    file.write_text(file.read_text().replace('device = "cpu"', 'device = "cuda"'))
    for verb in (resume, refine):
        with pytest.raises(InputError, match=r"no device 'cuda' here\. Go on where there is one, or .*run\.toml"):
            verb(run)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused(particles: Path) -> None:
    with pytest.raises(InputError, match=r"There is no device 'cuda' here\. Use --device cpu"):
        planned(particles, device="cuda")
