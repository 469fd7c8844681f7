"""Resolution by number of particles: the line in closed form, the subsets and their maps, and a run from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan.cli import main
from cryogan.config import resolve
from cryogan.models.phantom import phantom
from cryogan.particles import read_star, write_particles, write_volume
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.least_squares import least_squares_map
from cryogan.refinement.pose_search import Poses
from cryogan.refinement.posterior import Posterior
from cryogan.refinement.reslog import STEPS, nested_subsets, subset_map
from cryogan.rotations import euler_to_rotations
from cryogan.run.folder import RunFolder
from cryogan.run.inputs import read_inputs
from cryogan.run.outcome import Outcome
from cryogan.run.plan import Plan
from cryogan.run.reslog import ResLog, figure_path, read_reslog, write_reslog
from cryogan.simulation import simulate
from cryogan.validation import low_pass

BOX, PIXEL = 32, 4.0
COUNTS = (100, 200, 400, 800)


def reslog(*resolution: float) -> ResLog:
    return ResLog(COUNTS[-len(resolution) :], resolution, PIXEL, BOX)


def test_points_on_a_line_give_the_line() -> None:
    found = reslog(*(1 / (0.06 + 0.01 * step) for step in range(4))).line
    assert found is not None
    assert found.slope == pytest.approx(0.01)
    assert found.doubled == pytest.approx(0.1)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_the_error_is_that_of_least_squares() -> None:
    measured = reslog(15.2, 13.9, 11.1, 10.3)
    design = np.stack([np.log2(COUNTS), np.ones(4)], axis=1)
    coefficients, squares, *_ = np.linalg.lstsq(design, 1 / np.array(measured.resolution_A))
    ahead = np.array([np.log2(2 * COUNTS[-1]), 1.0])
    variance = ahead @ np.linalg.inv(design.T @ design) @ ahead * squares[0] / (4 - 2)
    assert measured.line is not None
    assert measured.line.doubled == pytest.approx(ahead @ coefficients)
    assert measured.line.error == pytest.approx(np.sqrt(variance))
    assert measured.sentence.startswith(f"Twice the particles would give about {1 / measured.line.doubled:.1f} A (")


@pytest.mark.parametrize(
    ("resolution", "words"),
    [
        ((11.0, 10.0, 9.0, 8.0), "limited by the pixel size"),
        ((40.0, 30.0, 14.0, 13.0), "2 of 4 subsets"),
        ((14.0, 13.0), "2 of 2 subsets"),
        ((12.0, 13.0, 14.0, 15.0), "does not grow"),
        ((11.5, 10.3, 9.2, 8.4), "to the Nyquist frequency, 8.00 A"),
    ],
)
def test_what_cannot_be_said_is_not_said(resolution: tuple[float, ...], words: str) -> None:
    sentence = reslog(*resolution).sentence
    assert words in sentence
    assert "would give about" not in sentence


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = reslog(15.2, 13.9, 11.1, 10.3)
    write_reslog(RunFolder(tmp_path), written)
    assert read_reslog(RunFolder(tmp_path)) == written


def test_subsets_are_nested_and_of_the_particles_that_show_the_map() -> None:
    used = torch.arange(0, 800, 2)
    subsets = nested_subsets(used, torch.Generator().manual_seed(0))
    assert [len(subset) for subset in subsets] == [50, 100, 200, 400]
    for small, large in zip(subsets, [*subsets[1:], used], strict=True):
        assert set(small.tolist()) <= set(large.tolist())
    assert subsets[0].tolist() != nested_subsets(used, torch.Generator().manual_seed(1))[0].tolist()


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 600 particles of the D2 phantom, a tenth as strong as their noise."""
    folder = tmp_path_factory.mktemp("noisy") / "set"
    volume = phantom(BOX, PIXEL, 1)
    simulate(volume, PIXEL, folder, count=600, snr=0.1, max_shift=4.0, micrographs=40, seed=1)
    return folder


@pytest.fixture(scope="module")
def run(noisy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `cryogan reconstruct` leaves it, with half maps of 12 A."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    settings = resolve("default", None, {"symmetry": "D2", "max_shift": 4.0, "threads": 1})
    inputs = read_inputs(noisy / "particles.star", noisy / "noise.star", None, settings)
    folder.mkdir()
    inputs.plan.write(folder)
    write_particles(folder / "particles.star", inputs.images.table, random_subset=inputs.halves.subset)
    truth, generator = phantom(BOX, PIXEL, 1), np.random.default_rng(0)
    scale = 0.1**0.5 * 6.6 / 10**0.5  # of the phantom in the particles, whose unit is the noise's s.d.
    for path in RunFolder(folder).half_maps:
        noise = 0.3 * truth.std() * generator.standard_normal(truth.shape)
        write_volume(path, scale * low_pass(truth + noise, PIXEL, 12.0).astype(np.float32), PIXEL)
    RunFolder(folder).record_outcome(Outcome.FINISHED)
    return folder


def true_poses(run: Path, noisy: Path, half: int) -> Poses:
    table = read_star(noisy / "truth.star")["particles"]
    rows = torch.from_numpy(read_star(run / "particles.star")["particles"].floats("rlnRandomSubset") == half)
    rotations = euler_to_rotations(*(table.floats(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi"))).float()
    shifts = torch.from_numpy(np.stack([table.floats(f"rlnOrigin{axis}Angst") for axis in "XY"], 1)).float()
    return Poses(rotations[rows], shifts[rows], *[torch.zeros(int(rows.sum()))] * 2)


def test_the_map_of_a_subset_is_that_of_all_with_the_others_weighted_by_zero(run: Path, noisy: Path) -> None:
    half, poses = HalfSet(Plan.read(run), run / "particles.star", 1), true_poses(run, noisy, 1)
    rows = torch.arange(5, len(half), 3)
    weights = torch.zeros(len(half), 1)
    weights[rows] = 1
    weighted = Posterior(poses.rotations[:, None], poses.shifts[:, None], weights)
    expected = least_squares_map(half, torch.zeros(BOX, BOX, BOX), weighted, BOX / 2, STEPS)
    found = subset_map(half, poses, rows)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    truth = torch.from_numpy(phantom(BOX, PIXEL, 1)).float()
    assert torch.corrcoef(torch.stack([found.flatten(), truth.flatten()]))[0, 1] > 0.7


def test_more_particles_give_a_better_map(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["reslog", str(run), "--quiet", "--json"])
    values, folder = json.loads(capsys.readouterr().out), RunFolder(run)
    found = read_reslog(folder)
    assert found is not None
    assert values["sentence"] == found.sentence
    assert values["resolution_A"] == list(found.resolution_A)
    assert len(found.particle_counts) == 4
    np.testing.assert_allclose(np.array(found.particle_counts) * [8, 4, 2, 1] / found.particle_counts[-1], 1, rtol=0.05)
    assert found.particle_counts[-1] > 550  # but for outliers
    assert found.resolution_A[0] > found.resolution_A[-1]
    assert found.line is not None
    assert found.line.slope > 0
    assert figure_path(folder).read_bytes().startswith(b"\x89PNG")
