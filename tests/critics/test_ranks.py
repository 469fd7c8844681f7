"""Two processes of a half map take the steps that one takes alone."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from test_wasserstein import BOX, COUNT, CPU, PIXEL, flat, make_training, particles
from torch import Tensor

from cryogan.config import Settings
from cryogan.critics import Stage, Task, TrainerInputs
from cryogan.critics.matching.marching import FrequencyMarching
from cryogan.critics.matching.search import InitialSearch
from cryogan.critics.micro_batch import MicroBatch, T
from cryogan.critics.read_ahead import HeldImages
from cryogan.models.phantom import phantom
from cryogan.parallel.ranks import LOTS, Ranks, lot_size, lots
from cryogan.physics.pose_distribution import PoseDistribution

KINDS = ("convolutional", "convolutional, uneven", "search", "marching")
SHORT = ", one short of memory"
KINDS += tuple(kind + SHORT for kind in ("convolutional", "search", "marching"))


class Short(MicroBatch):
    """Memory runs out at the end of whatever more than 3 images are worked on for."""

    def run(self, task: Callable[[int], T]) -> T:
        def limited(size: int) -> T:
            result = task(size)
            if size > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return result

        return super().run(limited)


def two_steps(name: str, ranks: Ranks) -> dict[str, Tensor]:
    """The state afterwards, and the last record."""
    kind = name.removesuffix(SHORT)
    torch.set_num_threads(1)
    if kind.startswith("convolutional"):
        batch_size = 7 if "uneven" in kind else 8
        training: Any = make_training(2, ranks=ranks, learn_scales=True, batch_size=batch_size)
        for optimiser in (training.critic_optimiser, training.volume_optimiser):
            for group in optimiser.param_groups:
                group["eps"] = 1e-2  # else Adam makes a step of a gradient that is zero but for rounding
    else:
        simulator = make_training().simulator
        simulator.views = PoseDistribution(CPU)
        settings = Settings(
            orientations=200, learn_poses=True, search_batch=50, classes=2, class_steps=1, symmetry="D2"
        )
        task = Task(settings, BOX, PIXEL, mask_radius=7 * PIXEL, particles=COUNT)
        images, stages = HeldImages(particles()), (Stage(BOX, 10),)
        trainer = InitialSearch if kind == "search" else FrequencyMarching
        training = trainer(TrainerInputs(task, stages, 0, images, simulator, 1.0, 0, 0, ranks))
        training.volume.start_from(torch.from_numpy(phantom(BOX, PIXEL, 1)).float())
    if kind != name and ranks.index == 1:
        training.micro_batch = Short(training.micro_batch.size)
    *_, record = training.run(until=2)
    assert training.micro_batch.size <= 3 or kind == name or ranks.index == 0
    state = flat(training.state_dict() | {"record": dict(record)})
    for name in ("/seconds", "/record/minutes"):
        del state[name]
    return {name: torch.as_tensor(value) for name, value in state.items() if value is not None}


def one_of_two(index: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=index, world_size=2, timeout=timedelta(seconds=120))
    assert dist.group.WORLD is not None
    ranks = Ranks(dist.group.WORLD)
    torch.save({kind: two_steps(kind, ranks) for kind in KINDS}, folder / f"{index}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What either process ends with."""
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(one_of_two, (folder,), nprocs=2)
    return [torch.load(folder / f"{index}.pt") for index in (0, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_take_the_steps_of_one(kind: str, both: list[dict[str, dict[str, Tensor]]]) -> None:
    alone, first, second = two_steps(kind, Ranks()), both[0][kind], both[1][kind]
    assert alone["/volume/density"].any()
    assert alone.keys() == first.keys() == second.keys()
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        if value.is_floating_point():
            largest = value.abs().max().item()
            torch.testing.assert_close(
                first[name], value, rtol=0, atol=1e-4 * largest + 1e-7, msg=lambda m, n=name: f"{n}: {m}"
            )
        else:  # generators, and what was drawn with them
            assert torch.equal(first[name], value), name


@pytest.mark.parametrize("count", [1, 7, 8, 16, 17, 32, 200])
@pytest.mark.parametrize("processes", [1, 2, 3, 16])
def test_parts_are_whole_lots_and_make_up_the_batch(count: int, processes: int) -> None:
    assert lots(count) <= LOTS
    parts = []
    for index in range(processes):
        ranks = Ranks()
        ranks.index, ranks.count = index, processes
        parts.append(ranks.part(count))
    assert [row for part in parts for row in range(count)[part]] == list(range(count))
    assert all(part.start % lot_size(count) == 0 for part in parts)
    if lots(count) >= processes:
        assert all(range(count)[part] for part in parts)
