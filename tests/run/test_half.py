"""The training of one half: stages, checkpoints, and how it ends."""

import dataclasses
import itertools
import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from builders import prepared, tiny
from cryogan.parallel.launch import STOPPING
from cryogan.particles import read_volume
from cryogan.run.build import build_trainer
from cryogan.run.folder import Outcome, RunFolder
from cryogan.run.messages import Message
from cryogan.run.plan import Plan
from cryogan.run.processes import train_half


class StopAfter(queue.Queue[Message]):
    """Interrupts its process once it was told of this many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def put(self, item: Message, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._left -= item.record is not None
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


@pytest.mark.usefixtures("handlers")
def test_a_half_is_resumed_within_and_between_stages(critic: str, particles: Path, tmp_path: Path) -> None:
    if critic == "matching":
        chosen, first = tiny(critic, search_steps=5, marching_steps=1), 32
    else:
        chosen, first = tiny(critic, stages="16:5,32:4", starts=2), 16
    whole, parts = (prepared(tmp_path / name, particles, chosen) for name in ("whole", "parts"))
    assert [(stage.box, stage.steps) for stage in Plan.read(whole).stages] == [(first, 5), (first, 5), (32, 4)]
    undisturbed: queue.Queue[Message] = queue.Queue()
    train_half(whole, 2, undisturbed)  # type: ignore[arg-type]
    assert last(undisturbed).outcome is Outcome.FINISHED, last(undisturbed).text
    # Half 2, as half 1 draws pictures, which takes longer than these steps.
    told: list[float] = []
    for steps in (2, 3, 2, 5):  # within a stage, at its end, within the next, within the last
        stopped = StopAfter(steps)
        train_half(parts, 2, stopped)  # type: ignore[arg-type]
        assert last(stopped).outcome is Outcome.STOPPED, last(stopped).text
        told += [m.record["step"] for m in stopped.queue if m.record is not None]
    again: queue.Queue[Message] = queue.Queue()
    train_half(parts, 2, again)  # type: ignore[arg-type]
    assert last(again).outcome is Outcome.FINISHED, last(again).text
    told += [m.record["step"] for m in again.queue if m.record is not None]
    assert told == list(range(1, 15))  # no step twice, none left out
    final = "snapshots/half2_final.mrc"
    np.testing.assert_array_equal(read_volume(parts / final)[0], read_volume(whole / final)[0])


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("symmetry", "kept"), [("D2", True), ("C1", False)])
def test_the_map_of_the_search_is_kept_before_a_symmetry_is_imposed(
    symmetry: str, kept: bool, critic: str, particles: Path, tmp_path: Path
) -> None:
    chosen = tiny(critic, symmetry=symmetry, starts=1)
    folder = RunFolder(prepared(tmp_path / "run", particles, chosen))
    messages: queue.Queue[Message] = queue.Queue()
    train_half(folder.path, 2, messages)  # type: ignore[arg-type]
    assert last(messages).outcome is Outcome.FINISHED, last(messages).text
    assert folder.searched(2).exists() is (kept and critic == "matching")  # the other learns with the symmetry
    if folder.searched(2).exists():
        search = build_trainer(Plan.read(folder.path), 0, folder.particles, 2)
        search.load_state_dict(torch.load(folder.checkpoint(2))["best"])
        np.testing.assert_array_equal(read_volume(folder.searched(2))[0], search.result().numpy())


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
    if not in_memory:
        monkeypatch.setattr("cryogan.run.build.MEMORY_LIMIT", 0)
    chosen = tiny(search_steps=5, marching_steps=1, starts=1)
    folders = [prepared(tmp_path / name, copied().parent, chosen) for name in ("whole", "parts")]
    undisturbed: queue.Queue[Message] = queue.Queue()
    train_half(folders[0], 2, undisturbed)  # type: ignore[arg-type]
    assert last(undisturbed).outcome is Outcome.FINISHED, last(undisturbed).text

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
    assert last(spoilt).outcome is Outcome.FAILED
    assert "particles.mrcs: " + ("cannot be read" if spoiling == "gone" else "has changed") in last(spoilt).text
    assert "--resume" in last(spoilt).text

    stack.write_bytes(whole)
    os.utime(stack, ns=times)
    again: queue.Queue[Message] = queue.Queue()
    train_half(folders[1], 2, again)  # type: ignore[arg-type]
    assert last(again).outcome is Outcome.FINISHED, last(again).text
    maps = [read_volume(RunFolder(folder).final(2))[0] for folder in folders]
    np.testing.assert_array_equal(*maps)


@pytest.mark.usefixtures("handlers")
def test_a_clock_that_goes_backwards_changes_nothing(
    particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryogan.run.observers.LATEST_SECONDS", 0.0)
    seconds = itertools.count(2e9, -3600.0)
    monkeypatch.setattr(time, "time", lambda: next(seconds))
    chosen = tiny(search_steps=5, marching_steps=1, starts=1, checkpoint_minutes=1e-9)
    folder = prepared(tmp_path / "run", particles, chosen)
    latest = folder / "snapshots" / "half2_latest.mrc"
    written: list[tuple[bytes, bytes]] = []
    messages = Spoiling(3, lambda: written.append((latest.read_bytes(), (folder / "half2.pt").read_bytes())))
    train_half(folder, 2, messages)  # type: ignore[arg-type]
    assert last(messages).outcome is Outcome.FINISHED, last(messages).text
    minutes = [message.record["minutes"] for message in messages.queue if message.record is not None]
    assert minutes == sorted(minutes)
    assert minutes[0] > 0
    assert written[0] != (latest.read_bytes(), (folder / "half2.pt").read_bytes())


@pytest.mark.usefixtures("handlers")
def test_a_half_ends_in_time_with_the_map_that_it_has(critic: str, particles: Path, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "run", particles, tiny(critic, max_minutes=0.5001))
    messages: queue.Queue[Message] = queue.Queue()
    train_half(folder, 2, messages)  # type: ignore[arg-type]
    assert last(messages).outcome is Outcome.OUT_OF_TIME, last(messages).text
    assert torch.load(folder / "half2.pt")["training"]["step"] == 1
    assert read_volume(RunFolder(folder).final(2))[0].any()


@pytest.mark.usefixtures("handlers")
def test_a_trial_that_time_cuts_short_leaves_the_map_of_a_whole_one(particles: Path, tmp_path: Path) -> None:
    chosen = tiny(search_steps=5, marching_steps=1)
    folder = prepared(tmp_path / "run", particles, chosen)
    train_half(folder, 2, StopAfter(7))  # type: ignore[arg-type]
    saved = torch.load(folder / "half2.pt")
    assert (saved["best_stage"], saved["stage"], saved["training"]["step"]) == (0, 1, 2)
    plan = dataclasses.replace(Plan.read(folder), settings=chosen.model_copy(update={"max_minutes": 0.5001}))
    plan.write(folder)
    messages: queue.Queue[Message] = queue.Queue()
    train_half(folder, 2, messages)  # type: ignore[arg-type]
    assert last(messages).outcome is Outcome.OUT_OF_TIME, last(messages).text
    whole = build_trainer(plan, 0, RunFolder(folder).particles, 2)
    whole.load_state_dict(saved["best"])
    np.testing.assert_array_equal(read_volume(RunFolder(folder).final(2))[0], whole.result().numpy())


@pytest.mark.usefixtures("handlers")
def test_a_spoilt_checkpoint_ends_in_one_line(particles: Path, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "run", particles, tiny())
    (folder / "half2.pt").write_bytes(bytes(3000))
    messages: queue.Queue[Message] = queue.Queue()
    train_half(folder, 2, messages)  # type: ignore[arg-type]
    assert last(messages).outcome is Outcome.FAILED
    assert "half2.pt is not a checkpoint" in last(messages).text
    assert "\n" not in last(messages).text
