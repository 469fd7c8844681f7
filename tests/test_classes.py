"""Several classes: two conformations come apart, from search to files."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.optimize import linear_sum_assignment

from cryogan.config import Settings
from cryogan.errors import InputError
from cryogan.models.phantom import conformations
from cryogan.particles import read_star, read_volume
from cryogan.run.postprocess import Result
from cryogan.run.reconstruct import reconstruct
from cryogan.simulation import simulate
from cryogan.validation import align

BOX, PIXEL = 32, 4.0
VALUES: dict[str, object] = {
    "classes": 2,
    "class_steps": 8,
    "max_shift": 0.0,
    "orientations": 1000,
    "search_steps": 120,
    "search_batch": 80,
    "marching_steps": 1,
    "starts": 1,
    "threads": 1,
    "seed": 1,
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 particles, of two conformations in turn."""
    folder = tmp_path_factory.mktemp("mixed") / "set"
    simulate(conformations(BOX, PIXEL, 1), PIXEL, folder, count=800, snr=4.0, max_shift=0.0, micrographs=20, seed=1)
    return folder


@pytest.fixture(scope="module")
def result(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("run") / "out"
    console = Console(file=io.StringIO())
    return reconstruct(mixed / "particles.star", out, Settings(**VALUES), noise=mixed / "noise.star", console=console)


def number(name: str) -> int:
    return int(name.split("@")[0]) - 1


def test_two_conformations_come_apart(mixed: Path, result: Result) -> None:
    true = read_star(mixed / "truth.star")["particles"].floats("rlnClassNumber").astype(int)
    found = np.zeros(len(true), dtype=int)
    for k, class_map in enumerate(result.classes, 1):
        table = read_star(class_map.folder / "particles.star")["particles"]
        assert set(table.texts("rlnClassNumber")) == {str(k)}
        assert (table.floats("rlnMaxValueProbDistribution") >= 0.5).all()
        assert set(table.texts("rlnRandomSubset")) == {"1", "2"}
        rows = [number(name) for name in table.texts("rlnImageName")]
        assert len(rows) == class_map.particles
        found[rows] = k
    assert (found > 0).all()  # each particle is in one class
    counts = np.array([[((true == i) & (found == k)).sum() for k in (1, 2)] for i in (1, 2)])
    pairs = linear_sum_assignment(-counts)
    assert counts[pairs].sum() / counts.sum() > 0.9
    assert all(class_map.share == pytest.approx(0.5, abs=0.1) for class_map in result.classes)

    truths = [read_volume(mixed / f"truth{i}.mrc")[0] for i in (1, 2)]
    for true_class, k in zip(*pairs, strict=True):
        volume, _ = read_volume(result.classes[k].folder / "map.mrc")
        volume = align(volume, truths[true_class], PIXEL).apply(volume, PIXEL)
        likeness = [np.corrcoef(volume.ravel(), truth.ravel())[0, 1] for truth in truths]
        assert likeness[true_class] > likeness[1 - true_class] + 0.05


def test_each_class_has_the_files_of_a_run(result: Result) -> None:
    maps = []
    for class_map in result.classes:
        names = {file.name for file in class_map.folder.iterdir()}
        halves = {"half1_map_unfil.mrc", "half2_map_unfil.mrc"}
        assert {*halves, "map.mrc", "mask.mrc", "fsc.star", "fsc.csv", "open.cxc", "particles.star"} <= names
        maps.append([read_volume(class_map.folder / name)[0] for name in sorted(halves)])
    # The halves' classes are paired.
    same, other = (
        np.mean([np.corrcoef(maps[i][0].ravel(), maps[j][1].ravel())[0, 1] for i, j in pairs])
        for pairs in ([(0, 0), (1, 1)], [(0, 1), (1, 0)])
    )
    assert same > other + 0.05
    assert result.classes[0].share >= result.classes[1].share
    # Above them is their mean.
    weights = read_star(result.folder / "snapshots" / "half1_classes.star")["weights"].floats("cryoganClassWeight")
    of_half = [read_volume(result.folder / "snapshots" / f"half1_class{k}.mrc")[0] for k in (1, 2)]
    mean = sum(weight * volume for weight, volume in zip(weights, of_half, strict=True))
    np.testing.assert_allclose(read_volume(result.folder / "half1_map_unfil.mrc")[0], mean, atol=1e-4 * mean.max())
    report = (result.folder / "report.html").read_text()
    assert all(class_map.sentence in report for class_map in result.classes)
    assert "class1/" in (result.folder / "README.txt").read_text()


def test_classes_need_the_view_critic(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--classes needs --critic matching"):
        reconstruct(mixed / "particles.star", tmp_path / "run", Settings(classes=2, critic="wasserstein"))
