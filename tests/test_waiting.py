"""Within a step nothing is asked of the device: a GPU would be waited for."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import cryogan
from cryogan.config import resolve
from cryogan.critics import Trainer
from cryogan.critics.matching import likely_poses
from cryogan.physics.projector import FourierProjector
from cryogan.run.build import build_trainer
from cryogan.run.inputs import read_inputs

FEW = {
    "orientations": 200,
    "search_steps": 3,
    "search_batch": 20,
    "marching_images": 256,
    "marching_steps": 3,
    "starts": 1,
}
FEW |= {"steps": 3, "critic_warmup": 2, "coarse_to_fine": False, "batch_size": 8}
TRAININGS = {
    "search": (0, {"critic": "matching"}),
    "marching": (1, {"critic": "matching", "symmetry": "D2", "learn_poses": True}),
    "convolutional": (0, {"critic": "wasserstein", "learn_scales": True, "scale_clip": 1.0, "smoothing": 4.0}),
}
# Operations whose result, or its size, the CPU has to know; and what asks for a tensor's values.
ASKING = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "_linalg_check_errors", "equal", "unique_dim"}
ASKING |= {"_unique2", "is_nonzero", "repeat_interleave", "histc"}
METHODS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")
# These ask tensors that are always on the CPU: the rows of a batch, a rotation and the seeds of the CPU's generator.
ON_THE_CPU = {("read_ahead.py", "_read"), ("read_ahead.py", "__call__"), ("rotations.py", "spread_rotations")}
ON_THE_CPU |= {("simulator.py", "forward")}
PACKAGE = str(Path(cryogan.__file__).parent)


def asked_for(particles: Path, noise: Path, name: str, device: str = "cpu") -> Trainer:
    index, flags = TRAININGS[name]
    plan, *_ = read_inputs(particles, noise, None, resolve("default", None, FEW | {"device": device} | flags))
    return build_trainer(plan, index, particles, 1)


class Counted(TorchDispatchMode):
    """Notes where in `cryogan` something is asked of a tensor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.questions: list[str] = []
        for name in METHODS:
            monkeypatch.setattr(torch.Tensor, name, self._noting(name, getattr(torch.Tensor, name)))

    def _noting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._note(name)
            return method(tensor, *args, **kwargs)

        return noted

    def _note(self, what: str) -> None:
        frame = sys._getframe(2)
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        assert frame is not None
        place = (Path(frame.f_code.co_filename).name, frame.f_code.co_name)
        if place not in ON_THE_CPU:
            self.questions.append(f"{what} in {place[0]}, line {frame.f_lineno}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        mask = name in ("index", "index_put_", "index_put") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in ASKING or mask:
            self._note(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", TRAININGS)
def test_a_step_asks_nothing_of_the_device(name: str, particles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a GPU: the compiled loops are for tensors that are on the CPU.
    monkeypatch.setattr(FourierProjector, "is_compiled", staticmethod(lambda spectrum: False))
    monkeypatch.setattr(likely_poses, "find_few", lambda *_: None)
    training = asked_for(particles / "particles.star", particles / "noise.star", name)
    *_, first = training.run(until=1)
    counted = Counted(monkeypatch)
    with counted:
        *_, record = training.run(until=3)
    assert counted.questions == []
    with counted:
        change = record["map_change"]  # what is looked at is asked for, once for all numbers
        assert counted.questions == [question for question in counted.questions if "records.py" in question] != []
    asked = len(counted.questions)
    with counted:
        assert dict(record)["map_change"] == change
    assert len(counted.questions) == asked
    assert record["step"] == 3 != first["step"]


def test_questions_are_noticed(particles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is not empty because it is blind."""
    training = asked_for(particles / "particles.star", particles / "noise.star", "search")
    update = training.update

    def asking() -> Any:
        real, simulated = update()
        training.volume.clip(float(real.mean() * 0))
        return real[real > -torch.inf], simulated

    monkeypatch.setattr(training, "update", asking)
    monkeypatch.setattr(sys.modules[__name__], "ON_THE_CPU", set())
    counted = Counted(monkeypatch)
    with counted:
        list(training.run(until=1))
    assert any("__float__" in question for question in counted.questions)
    assert any("index" in question for question in counted.questions)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", TRAININGS)
def test_a_step_waits_for_no_gpu(name: str, particles: Path) -> None:
    training = asked_for(particles / "particles.star", particles / "noise.star", name, "cuda")
    list(training.run(until=1))
    try:
        torch.cuda.set_sync_debug_mode("error")
        list(training.run(until=3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
