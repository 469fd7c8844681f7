"""What is said of portions that are compared with a right map: a clean one, junk, a wrong defocus, little signal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import finished
from cryogan.config import resolve
from cryogan.live.alerts import of_portion, of_views
from cryogan.live.folder import LiveFolder, read_json, write_json
from cryogan.live.judging import judge_portion
from cryogan.live.ledger import Ledger
from cryogan.live.source import Source
from cryogan.models.phantom import phantom
from cryogan.particles import read_star, write_volume
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import Poses
from cryogan.refinement.scores import score_particles
from cryogan.rotations import euler_to_rotations
from cryogan.run.folder import RunFolder
from cryogan.run.plan import Plan
from cryogan.simulation import simulate
from cryogan.simulation.disturbances import Disturbances

BOX, PIXEL, SNR = 32, 5.0, 1.0
CHANGES: dict[str, object] = {"symmetry": "D2", "max_shift": 5.0, "seed": 3, "threads": 1, "orientations": 1500}
PORTIONS: dict[str, tuple[float, dict[str, float]]] = {
    "clean": (SNR, {}),
    "junk": (SNR, {"junk_empty": 0.4, "junk_contaminant": 0.4}),
    "defocus": (SNR, {"defocus_error": 5000.0}),
    "dim": (SNR / 8, {}),
    "views": (SNR, {"preferred_views": 20.0}),
}


def make(out: Path, seed: int, count: int, snr: float, disturbances: dict[str, float]) -> None:
    options = {"max_shift": 5.0, "micrographs": 10, "disturbances": Disturbances(**disturbances)}
    simulate(phantom(BOX, PIXEL, 1), PIXEL, out, count=count, snr=snr, seed=seed, **options)


def in_the_images_unit(run: RunFolder, truth: Path) -> None:
    """Scale the half maps so that the projections at the true poses have the particles' amplitude."""
    half, density = HalfSet(Plan.read(run.path), run.particles, 1), torch.from_numpy(phantom(BOX, PIXEL, 1))
    table, rows = read_star(truth)["particles"], half.images.table.source_row
    rotations = euler_to_rotations(*(table.floats(f"rlnAngle{name}")[rows] for name in ("Rot", "Tilt", "Psi"))).float()
    shifts = torch.from_numpy(np.stack([table.floats(f"rlnOrigin{axis}Angst")[rows] for axis in "XY"], 1)).float()
    poses = Poses(rotations, shifts, *torch.zeros(2, len(rows)))
    scale = float(score_particles(half, density, poses, 12.0).amplitude.median())
    for path in (*run.half_maps, run.map):
        write_volume(path, (scale * density).numpy(), PIXEL)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Records of portions, judged against the true map."""
    root = tmp_path_factory.mktemp("judged")
    folder = LiveFolder(root / "live")
    folder.make()
    make(root / "made", 1, 300, SNR, {})
    run = RunFolder(finished(folder.map_run(1).path, root / "made", phantom(BOX, PIXEL, 1), **CHANGES))
    in_the_images_unit(run, root / "made" / "truth.star")
    folder.map_sample(1).write_text(run.particles.read_text())
    write_json(folder.map_record(1), {"particles": 300, "last_portion": 0})
    ledger = Ledger(folder, resolve("default", None, CHANGES))
    records = {}
    for number, (name, (snr, disturbances)) in enumerate(PORTIONS.items(), start=1):
        make(root / name, 10 + number, 150, snr, disturbances)
        source = Source(root / name / "particles.star", folder.copies)
        source.look()
        assert ledger.take_up(source, ledger.new(source.look()), 0.0).portion == number
        judge_portion(folder, number, 1)
        records[name] = read_json(folder.portion_record(number))
    return records


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("clean", set()),
        ("junk", {"bad-portion"}),
        ("defocus", {"defocus-wrong"}),
        ("dim", {"bad-portion", "snr-fell"}),
        ("views", set()),
    ],
)
def test_what_is_wrong_is_said_and_nothing_else(judged: dict[str, dict[str, Any]], name: str, codes: set[str]) -> None:
    assert {finding.code for finding in of_portion(judged[name])} == codes


def test_a_portion_of_preferred_views_covers_less(judged: dict[str, dict[str, Any]]) -> None:
    views = {name: np.array(judged[name]["views"]) for name in ("clean", "views")}
    assert views["views"].std() > 2 * views["clean"].std()
    assert judged["clean"]["missing"] == 0.0
    assert of_views(judged["clean"], 450, None) is None


def test_each_micrograph_has_its_share(judged: dict[str, dict[str, Any]]) -> None:
    for record in judged.values():
        counts, weights, _ = zip(*record["micrographs"].values(), strict=True)
        assert sum(counts) == record["judged"] == 150
        assert sum(weights) == pytest.approx(150 * record["share"], abs=0.1)
