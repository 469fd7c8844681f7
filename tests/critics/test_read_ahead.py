"""The next batch is read while the last one is worked on, and nothing but time depends on it."""

import threading

import numpy as np
import pytest
import torch

from cryogan.critics.sampler import Sampler
from cryogan.errors import InputError

COUNT, BATCH = 23, 5
CPU = torch.device("cpu")


class Numbered:
    """Images of one pixel, their row; which rows were read."""

    def __init__(self) -> None:
        self.read: list[list[int]] = []
        self.again = threading.Semaphore(0)

    def __len__(self) -> int:
        return COUNT

    def batch(self, rows: np.ndarray) -> np.ndarray:
        self.read.append(rows.tolist())
        self.again.release()
        if 13 in rows and len(self.read) > 100:
            raise InputError("image 13 cannot be read")
        return rows.astype(np.float32)[:, None, None]


def following(ours: Sampler) -> tuple[torch.Tensor, torch.Tensor]:
    return ours.load(ours.rows())


def sampler(images: Numbered) -> Sampler:
    return Sampler(images, BATCH, torch.Generator().manual_seed(0), CPU)


def test_the_next_batch_is_read_before_it_is_asked_for() -> None:
    images = Numbered()
    ours = sampler(images)
    following(ours)
    for _ in range(2):
        assert images.again.acquire(timeout=60)
    _, rows = following(ours)
    assert images.read[1] == rows.tolist()


def test_passes_and_saved_places_are_those_of_the_images_that_were_used() -> None:
    images = Numbered()
    ours, order = sampler(images), []
    for step in range(20):
        pixels, rows = following(ours)
        assert pixels.flatten().tolist() == rows.tolist()
        order += rows.tolist()
        if step in (2, 3, 8):  # in a pass, at the end of one, across two
            state = {name: value.clone() for name, value in ours.state_dict().items()}
            other = sampler(Numbered())
            other.load_state_dict(state)
            after = [[following(passes)[1].tolist() for _ in range(7)] for passes in (ours, other)]
            assert after[0] == after[1]
            ours.load_state_dict(state)  # what was read ahead is not taken
    for start in range(0, len(order) - COUNT, COUNT):
        assert sorted(order[start : start + COUNT]) == list(range(COUNT))
    assert ours.first(3)[1].tolist() == [0, 1, 2]


def test_an_image_that_cannot_be_read_ahead_is_said_when_it_is_asked_for() -> None:
    images = Numbered()
    ours = sampler(images)
    with pytest.raises(InputError, match="image 13"):
        _ = [following(ours) for _ in range(200)]
    assert 13 in images.read[-1]
