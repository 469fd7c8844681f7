"""The experiment on Theorem 1: its molecules, its test, and that its page says what its record says."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def theorem1(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import theorem1

    monkeypatch.setattr(theorem1, "IMAGES", 500)
    return theorem1


def test_molecules_turn_and_mirror(theorem1: ModuleType) -> None:
    molecule = theorem1.Molecule.random(torch.Generator().manual_seed(0))
    volume = molecule.volume()[1:, 1:, 1:]  # without the edge planes, quarter turns and mirrors are permutations
    mirrored = molecule.turned(torch.diag(torch.tensor([-1.0, 1.0, 1.0]))).volume()[1:, 1:, 1:]
    torch.testing.assert_close(mirrored, volume.flip(2))
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # about z, x to y
    torch.testing.assert_close(molecule.turned(quarter).volume()[1:, 1:, 1:], torch.rot90(volume, -1, (1, 2)))
    assert not torch.allclose(volume, volume.flip(2), atol=0.1)
    torch.testing.assert_close(molecule.centres.mean((0, 1)), torch.zeros(3), atol=1e-5, rtol=0)


def test_the_test_tells_a_moved_domain_apart_and_a_rotation_not(theorem1: ModuleType) -> None:
    generator = torch.Generator().manual_seed(1)
    molecule = theorem1.Molecule.random(generator)
    scale = theorem1.scale(molecule)
    compared = {pair.name: pair for pair in theorem1.pairs(molecule, generator)}

    def images(name: str) -> Tensor:
        result: Tensor = theorem1.images(compared[name].molecule.volume() * scale, generator, 1.0, False)
        return result

    first = images("the same")
    rotated = theorem1.two_sample_test(first, images("rotated and mirrored"), np.random.default_rng(0))
    moved = theorem1.two_sample_test(first, images("a domain moved by 16 A"), np.random.default_rng(0))
    assert rotated[1] > 0.05
    assert moved[1] < 0.001
    assert moved[0] > 0.6


def test_p_is_uniform_where_nothing_differs(theorem1: ModuleType) -> None:
    generator = torch.Generator().manual_seed(2)
    chances = []
    for seed in range(20):
        first, second = torch.randn(2, 100, 32, 32, generator=generator)
        chances.append(theorem1.two_sample_test(first, second, np.random.default_rng(seed))[1])
    assert 0.25 < np.mean(chances) < 0.75
    assert sum(p < 0.05 for p in chances) <= 4


def test_the_page_says_what_the_record_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import report

    record = json.loads((ROOT / "docs" / "runs" / "theorem1.json").read_text())
    assert (ROOT / "docs" / "theorem.md").read_text() == report.theorem(record)
