"""The verdict: what it says for which evidence, right and wrong maps, runs and maps of other programs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from builders import finished, verdict
from cryogan.cli import main
from cryogan.config import resolve
from cryogan.grids import centred_radius, falling_cosine
from cryogan.models.phantom import phantom
from cryogan.particles import write_particles, write_volume
from cryogan.refinement.half_map_test import HalfMapTest
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.likeness import auc, measure_likeness
from cryogan.refinement.verdict import searched_symmetry
from cryogan.run import warnings
from cryogan.run.folder import RunFolder
from cryogan.run.inputs import read_inputs
from cryogan.run.likeness import auc_deviation
from cryogan.run.plan import Plan
from cryogan.run.verdict import Verdict, read_verdict, record_path, write_verdict
from cryogan.validation import Alignment, SymmetryScore, molecule_diameter, radial_average, shape_of

BOX, PIXEL = 32, 4.0


def truth() -> np.ndarray:
    return phantom(BOX, PIXEL, 1)


def ball() -> np.ndarray:
    return falling_cosine(centred_radius(BOX, axes=3), 8, 2) * truth().max() / 2


def other_molecule() -> np.ndarray:
    return phantom(BOX, PIXEL, 2)


@pytest.fixture(scope="module")
def star(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The particles, with their halves."""
    folder = tmp_path_factory.mktemp("halves")
    inputs = read_inputs(particles / "particles.star", None, None, resolve("default", None, {}))
    write_particles(folder / "particles.star", inputs.images.table, random_subset=inputs.halves.subset)
    for name in ("particles.mrcs", "noise.mrcs", "noise.star"):
        (folder / name).symlink_to(particles / name)
    return folder / "particles.star"


def judged(star: Path, tmp_path: Path, *maps: np.ndarray, options: Sequence[str] = ()) -> list[str]:
    """Arguments of the command on these maps, the unit of which is not that of the particles."""
    paths = [tmp_path / f"map{number}.mrc" for number in range(len(maps))]
    for path, density in zip(paths, maps, strict=True):
        write_volume(path, (17.0 * density).astype(np.float32), PIXEL)
    noise = str(star.parent / "noise.star")
    common = ["--symmetry", "D2", "--max-shift", "4", "--threads", "1", "--noise", noise, "--json", "--quiet"]
    return ["verdict", *map(str, paths), str(star), *common, *options]


def test_right_half_maps_of_any_scale_are_resolved(
    star: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(judged(star, tmp_path, truth(), truth(), options=["--out", str(tmp_path / "out"), "--strict"]))
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "resolved"
    assert found["verdict_A"] == found["held_out_A"] < 9.5
    likeness = found["evidence"]["likeness"]
    assert likeness["match"] == pytest.approx(1.0, abs=0.15)
    assert 1.0 <= likeness["views_left"] < 0.1 * likeness["views"]
    assert np.median(likeness["power"]) == pytest.approx(1.0, abs=0.2)
    record = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert record["verdict"] == "resolved"
    for name in ("held_out.png", "likeness.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", [ball, other_molecule])
def test_wrong_half_maps_are_not_resolved(
    wrong: Callable[[], np.ndarray], star: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(judged(star, tmp_path, wrong(), wrong(), options=["--strict"]))
    assert ended.value.code == 3
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] in ("undecided", "featureless", "low-resolution-shape", "mismatch")
    assert found["evidence"]["half_map_resolution"] < 8.1  # they are equal


def test_one_map_is_judged_as_one_of_other_particles(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        [word for word in judged(particles / "particles.star", tmp_path, truth()) if word not in ("--quiet", "--json")]
    )
    told = capsys.readouterr()
    assert "held out only if none of them had a part in it" in told.err
    assert told.out.startswith("Verdict: Resolved to ")
    assert "there is one map" in told.out


def test_half_maps_without_the_halves_of_the_particles_are_refused(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(judged(particles / "particles.star", tmp_path, truth(), truth()))
    assert ended.value.code == 2
    assert "does not say of which half map each particle is" in json.loads(capsys.readouterr().out)["error"]


def test_a_map_narrower_than_the_particles_is_refused(
    star: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = truth()[4:-4, 4:-4, 4:-4]
    with pytest.raises(SystemExit):
        main(judged(star, tmp_path, narrow, narrow))
    assert "96 A wide, the particles are 128 A" in json.loads(capsys.readouterr().out)["error"]


def test_the_verdict_follows_the_evidence() -> None:
    resolved = verdict(last=12)
    assert resolved.finding.code == "resolved"
    assert resolved.is_resolved
    assert resolved.resolution == 128 / 12
    assert "Resolved to 10.7 A (half maps agree to 9.0 A, held-out particles support it to 10.7 A)" in resolved.sentence


def changed(found: Verdict, **values: object) -> Verdict:
    return Verdict(replace(found.evidence, **values))  # type: ignore[arg-type]


def test_no_resolution_is_finer_than_the_half_maps_or_what_is_held_out() -> None:
    assert changed(verdict(last=12), finest=13.0, half_map_resolution=14.0).resolution == 13.0
    assert verdict(last=9).resolution == 128 / 9
    assert changed(verdict(last=12), half_map_resolution=None).resolution == 128 / 12
    assert verdict(last=None).resolution is None


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"correlation": 0.7}, "resolved"),
        ({"contrast": -1}, "wrong-contrast"),
        ({"contrast": 0}, "resolved"),
        ({"finest": 31.0, "half_map_resolution": 32.0, "diameter": 100.0}, "low-resolution-shape"),
        ({"finest": 31.0, "half_map_resolution": 32.0, "diameter": 300.0}, "resolved"),
    ],
)
def test_what_else_the_verdict_rests_on(values: dict[str, object], code: str) -> None:
    found = changed(verdict(last=12), **values)
    assert found.finding.code == code
    assert found.is_resolved is (code == "resolved")


def test_half_maps_that_are_right_but_noisy_are_not_told_to_disagree() -> None:
    findings = [warnings.HALVES_DISAGREE(correlation=0.7), warnings.HAND_UNKNOWN()]
    resolved, nothing = verdict(last=12), verdict(last=None)
    assert resolved.beside(findings) == [resolved.finding, findings[1]]
    assert nothing.beside(findings) == [nothing.finding, *findings]


def test_without_support_it_is_wrong_or_undecided_or_featureless() -> None:
    nothing = verdict(last=None)
    assert nothing.finding.code == "undecided"
    assert changed(nothing, correlation=0.7).finding.code == "halves-differ"
    round_ = changed(nothing, shape=replace(nothing.evidence.shape, radial_share=0.97))
    assert round_.finding.code == "featureless"
    assert "97%" in round_.sentence


def test_a_half_map_that_is_wrong_alone_is_named() -> None:
    resolved, nothing = verdict(last=12), verdict(last=None)
    held_out = resolved.evidence.held_out
    right, wrong = held_out.bands[0].z, nothing.evidence.held_out.bands[0].z
    alone = replace(held_out, bands=(replace(held_out.bands[0], half_z=(wrong, right)),))
    found = changed(resolved, held_out=alone)
    assert found.finding.code == "one-half"
    assert "Only half map 2 is supported by held-out particles, to 10.7 A" in found.sentence
    assert not found.is_resolved
    assert changed(found, half_map_resolution=None).finding.code == "resolved"  # one map, which is both


def test_the_diameter_is_that_of_a_ball_whatever_the_noise() -> None:
    generator = np.random.default_rng(0)
    density = ball() > 0.5 * ball().max()
    expected = (6 / np.pi * density.sum()) ** (1 / 3) * PIXEL
    assert molecule_diameter(density, PIXEL) == pytest.approx(expected, rel=0.15)
    noisy = density + 0.5 * generator.standard_normal(density.shape)
    assert molecule_diameter(noisy, PIXEL) == pytest.approx(expected, rel=0.2)


def test_an_inverted_map_is_told() -> None:
    """All images may agree with it: a wrong sign of the defocus does that."""
    mask = np.ones((32, 32, 32))
    assert shape_of(truth(), PIXEL, 12.0, mask, 60.0).skewness > 1
    upside_down = shape_of(-truth(), PIXEL, 12.0, mask, 60.0)
    assert upside_down.skewness < -1
    told = changed(verdict(last=12), shape=upside_down)
    assert told.finding.code == "inverted-map"
    assert told.resolution is None
    assert changed(verdict(last=None), shape=upside_down).finding.code == "undecided"


def with_share(found: Verdict, share: float, deviation: float) -> Verdict:
    """Half maps of which the particles hold this share at shell 8."""
    held_out = found.evidence.held_out
    shares = tuple(tuple(value if shell == 8 else None for shell in range(16)) for value in (share, deviation))
    band = replace(held_out.bands[0], share=shares[0], share_deviation=shares[1])
    return changed(found, held_out=replace(held_out, bands=(band,)))


def test_half_maps_that_agree_on_more_than_particles_hold_are_told() -> None:
    mismatch = with_share(verdict(last=12), 0.5, 0.05)
    assert mismatch.finding.code == "mismatch"
    assert mismatch.resolution is None
    assert "particles hold only 50% of what the half maps agree on at 16.0 A" in mismatch.sentence
    assert with_share(verdict(last=12), 0.5, 0.15).is_resolved
    assert with_share(verdict(last=12), 0.9, 0.05).is_resolved


def with_score(found: Verdict, value: float, error: float = 0.02) -> Verdict:
    """Half maps with D3 imposed, which has this score on the maps of the search."""
    return changed(found, searched=SymmetryScore("D3", 0.9 * value, 0.9, error, value, value))


def test_a_symmetry_that_the_search_surely_did_not_find_is_told() -> None:
    wrong = with_score(verdict(last=12), 0.3)
    assert wrong.finding.code == "wrong-symmetry"
    assert wrong.resolution is None
    assert "found a map that does not have D3: its score is 0.30 +- 0.02" in wrong.sentence
    assert "score 0.30 +- 0.02" in wrong.sentences["Symmetry"]
    for value, error in ((0.98, 0.02), (0.8, 0.02), (0.3, 0.11)):
        assert with_score(verdict(last=12), value, error).is_resolved
    assert "Symmetry" not in verdict(last=12).sentences


def search_maps(run: Path, *volumes: np.ndarray) -> SymmetryScore | None:
    """Put maps of 32 px in the place of those of the search, and score the run's symmetry on them."""
    folder = RunFolder(run)
    for half, volume in enumerate(volumes, 1):
        write_volume(folder.searched(half), volume.astype(np.float32), PIXEL)
    return searched_symmetry(folder, Plan.read(run))


@pytest.mark.parametrize(("symmetry", "lacking"), [("D2", False), ("D3", True)])
def test_the_imposed_symmetry_is_scored_on_the_maps_of_the_search(
    symmetry: str, lacking: bool, particles: Path, tmp_path: Path
) -> None:
    """The phantom has D2; each half's map is in a frame of its own."""
    run = finished(tmp_path / "run", particles, truth(), symmetry=symmetry)
    assert search_maps(run) is None
    generator = np.random.default_rng(0)
    turned = Alignment(Rotation.random(random_state=5).as_matrix(), np.array([3.0, -4.0, 2.0]), True, 1.0, np.nan)
    first, second = (
        volume + 0.02 * truth().max() * generator.standard_normal((BOX,) * 3)
        for volume in (truth(), turned.apply(truth(), PIXEL))
    )
    score = search_maps(run, first, second)
    assert score is not None
    assert score.is_lacking is lacking
    assert score.score == pytest.approx(1, abs=0.05) if symmetry == "D2" else score.score < 0.5
    assert search_maps(run, first, generator.standard_normal((BOX,) * 3)) is None
    assert search_maps(run, first, np.zeros((BOX,) * 3)) is None


def test_the_symmetry_of_several_classes_is_not_scored(particles: Path, tmp_path: Path) -> None:
    run = finished(tmp_path / "run", particles, truth(), symmetry="D3", classes=2)
    assert search_maps(run, truth(), truth()) is None


def test_particles_that_hold_more_than_a_clear_map_are_told_beside_the_verdict() -> None:
    found = with_share(verdict(last=12), 0.5, 0.05)
    (band,) = found.evidence.held_out.bands
    clear = replace(band, window_z=tuple(None if z is None else 4 * z for z in band.window_z))
    told = changed(found, held_out=replace(found.evidence.held_out, bands=(clear,)))
    assert told.is_resolved
    assert [finding.code for finding in told.beside([])] == ["resolved", "more-signal"]


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_verdict(folder) is None
    for written in (verdict(last=9), with_score(verdict(last=9), 0.3)):
        write_verdict(record_path(folder), written)
        assert read_verdict(folder) == written


def test_a_record_from_before_the_symmetry_was_scored_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    values = json.loads(json.dumps(verdict(last=9).values))
    del values["evidence"]["searched"]
    folder.verdict.mkdir()
    record_path(folder).write_text(json.dumps(values))
    assert read_verdict(folder) == verdict(last=9)


def test_auc_is_the_probability_that_a_positive_one_is_larger() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.5
    assert auc(np.array([0.0, 2.0]), np.array([1.0, 3.0])) == 0.25


def test_auc_of_one_distribution_scatters_as_stated() -> None:
    generator = np.random.default_rng(0)
    areas = [auc(*generator.standard_normal((2, 50))) for _ in range(400)]
    assert np.std(areas) == pytest.approx(auc_deviation(50, 50), rel=0.15)


def test_the_radial_average_of_a_ball_is_the_ball() -> None:
    assert np.corrcoef(radial_average(ball()).ravel(), ball().ravel())[0, 1] > 0.99
    mask = np.ones((BOX,) * 3)
    assert shape_of(ball(), PIXEL, 12.0, mask, 60.0).radial_share > 0.97
    assert shape_of(truth(), PIXEL, 12.0, mask, 60.0).radial_share < 0.8


def test_the_border_of_a_map_that_fills_its_sphere_is_as_dense_as_the_molecule() -> None:
    wide = np.random.default_rng(0).standard_normal((BOX,) * 3)
    inside = falling_cosine(centred_radius(BOX, axes=3), 8, 2)
    assert shape_of(wide, PIXEL, 10.0, inside, 60.0).border > 0.7
    assert shape_of(ball(), PIXEL, 10.0, inside, 60.0).border < 0.1


class Simulated:
    """Images that are simulated from a map, in the place of particles."""

    def __init__(self, half: HalfSet, density: torch.Tensor) -> None:
        self._half, self._spectrum, self.table = half, half.projector.transform(density), half.images.table

    def batch(self, rows: np.ndarray) -> np.ndarray:
        phi, particles = self._half.simulator.sample(len(rows)), torch.from_numpy(rows)
        images: np.ndarray = self._half.simulator(self._spectrum, replace(phi, particles=particles)).numpy()
        return images


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_images_that_are_simulated_from_the_map_cannot_be_told_apart(
    scale: float, particles: Path, tmp_path: Path
) -> None:
    test = HalfMapTest.of_run(finished(tmp_path / "run", particles, scale * truth()))
    for side, half in enumerate(test.halves):
        half.images = Simulated(half, test.maps[side])  # type: ignore[assignment]
    likeness = measure_likeness(test)
    for name, area in likeness.auc.items():
        assert abs(area - 0.5) < 4 * likeness.auc_deviation, name
    assert abs(likeness.match - 1) < 4 * likeness.match_deviation
    for name, level in (("power", 1.0), ("variance", 1.0), ("mean", 0.0)):
        z = (np.array(getattr(likeness, name)) - level) / np.array(getattr(likeness, f"{name}_deviation"))
        assert np.abs(z).max() < 4.5, name
        assert 0.5 < z.std() < 1.6, name
    assert likeness.micrographs is not None
    assert likeness.micrographs < 0.1
