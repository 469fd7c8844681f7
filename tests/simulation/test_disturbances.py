"""Each disturbance of simulated particles against its closed form, and what it leaves alone."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.models.phantom import phantom
from cryogan.particles import StarTable, open_stack, read_star, write_star
from cryogan.simulation import simulate
from cryogan.simulation.disturbances import JUNK_KINDS, Disturbances
from cryogan.simulation.molecule import molecule_radius
from cryogan.simulation.particles import preferred_rotations, student_shifts

BOX, PIXEL, COUNT = 32, 4.0, 200
JUNK = {"junk_empty": 0.1, "junk_contaminant": 0.05, "junk_broken": 0.2, "junk_aggregate": 0.15}
ALL = JUNK | {
    "neighbours": 0.3,
    "miscentring": 4.0,
    "defocus_error": 200.0,
    "snr_spread": 0.4,
    "ice_gradient": 0.6,
    "b_factor": 80.0,
    "preferred_views": 2.0,
    "belt": 0.5,
}
AXIS = np.arange(BOX) - BOX // 2
CIRCLE = np.hypot(AXIS[:, None], AXIS) <= 0.4375 * BOX


def ball(width: float = 1.2) -> NDArray[np.float32]:
    """A Gaussian at the centre, s.d. in pixels; 99 % of it lie within 3.4 s.d."""
    squared = AXIS[:, None, None] ** 2 + AXIS[:, None] ** 2 + AXIS**2
    return np.exp(-squared / (2 * width**2)).astype(np.float32)


def without_ctf(path: Path, count: int = COUNT) -> Path:
    """A STAR of random poses whose CTF is 1: no defocus, an amplitude contrast of 1. Five particles a micrograph."""
    rng = np.random.default_rng(0)
    zeros = [0.0] * count
    particles: dict[str, list[Any]] = {
        "rlnAngleRot": (360 * rng.random(count)).tolist(),
        "rlnAngleTilt": np.degrees(np.arccos(2 * rng.random(count) - 1)).tolist(),
        "rlnAnglePsi": (360 * rng.random(count)).tolist(),
        "rlnMicrographName": [f"m{i // 5}.mrc" for i in range(count)],
        "rlnVoltage": [300.0] * count,
        "rlnAmplitudeContrast": [1.0] * count,
    }
    particles |= {f"rln{name}": zeros for name in ("DefocusU", "DefocusV", "DefocusAngle", "SphericalAberration")}
    write_star(path, {"particles": particles})
    return path


def made(
    folder: Path,
    volume: NDArray[np.float32] | None = None,
    disturbances: dict[str, float] | None = None,
    **options: Any,
) -> tuple[NDArray[np.float64], StarTable]:
    """Images and truth.star of a simulation in a new folder."""
    options = {"count": COUNT, "micrographs": 40, "float32": True, "max_shift": 4.0, "seed": 3} | options
    given = Disturbances(**disturbances) if disturbances else None
    simulate(phantom(BOX, PIXEL, 1) if volume is None else volume, PIXEL, folder, disturbances=given, **options)
    return open_stack(folder / "particles.mrcs").astype(float), read_star(folder / "truth.star")["particles"]


def centres(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres of mass (N, 2), x and y in A from the centre pixel."""
    mass = images.sum((1, 2))
    return PIXEL * np.stack([(images.sum(1) * AXIS).sum(1), (images.sum(2) * AXIS).sum(1)], axis=1) / mass[:, None]


def test_junk_has_its_share_and_leaves_the_other_images_alone(tmp_path: Path) -> None:
    plain, _ = made(tmp_path / "plain")
    images, truth = made(tmp_path / "junk", disturbances=JUNK)
    kinds = np.array(truth.texts("cryoganParticleKind"))
    expected = {kind: round(COUNT * JUNK[f"junk_{kind}"]) for kind in JUNK_KINDS}
    assert Counter(kinds.tolist()) == expected | {"particle": COUNT - sum(expected.values())}
    whole = kinds == "particle"
    np.testing.assert_array_equal(images[whole], plain[whole])
    assert (np.abs(images - plain)[~whole].max((1, 2)) > 0.1).all()
    patches = [open_stack(tmp_path / name / "noise.mrcs") for name in ("plain", "junk")]
    np.testing.assert_array_equal(*patches)
    # A particle's kind does not follow from its place in the file.
    assert len(set(kinds[: COUNT // 4])) > 2


def test_switching_one_disturbance_off_does_not_change_the_others(tmp_path: Path) -> None:
    _, everything = made(tmp_path / "all", disturbances=ALL)
    for name in ALL:
        _, rest = made(tmp_path / name, disturbances={key: ALL[key] for key in ALL if key != name}, noise="white")
        for column in rest.columns:
            if column.startswith("rlnDefocus") or column == "cryoganDefocusError":
                assert rest.columns[column] == everything.columns[column]
        kinds = [np.array(table.texts("cryoganParticleKind")) for table in (everything, rest)]
        kept = kinds[0] == kinds[1]
        if name.startswith("junk"):
            assert kept.mean() > 0.6  # a place that becomes free may be taken
        else:
            assert kept.all()
        if "cryoganSnr" in rest:
            assert rest.columns["cryoganSnr"] == everything.columns["cryoganSnr"]
        if "cryoganRampX" in rest:
            assert rest.columns["cryoganRampX"] == everything.columns["cryoganRampX"]


def test_all_columns_are_in_the_truth_alone(tmp_path: Path) -> None:
    _, truth = made(tmp_path / "out", disturbances=ALL)
    names = ["ParticleKind", "NeighbourXAngst", "NeighbourYAngst", "DefocusError", "Snr", "RampX", "RampY"]
    assert [name for name in truth.columns if name.startswith("cryogan")] == [f"cryogan{name}" for name in names]
    particles = read_star(tmp_path / "out" / "particles.star")["particles"]
    assert not [name for name in particles.columns if name.startswith(("cryogan", "rlnAngle", "rlnCtfB", "rlnOrigin"))]
    _, plain = made(tmp_path / "plain")
    assert not [name for name in plain.columns if name.startswith("cryogan")]


def test_empty_images_hold_noise_only(tmp_path: Path) -> None:
    images, truth = made(tmp_path / "clean", disturbances=JUNK, noise="none")
    empty = np.array(truth.texts("cryoganParticleKind")) == "empty"
    assert not images[empty].any()
    noisy, _ = made(tmp_path / "noisy", disturbances=JUNK)
    faint, _ = made(tmp_path / "faint", snr=1e-10)
    np.testing.assert_allclose(noisy[empty], faint[empty], atol=1e-4)


def test_contaminants_are_bright_and_four_times_as_strong(tmp_path: Path) -> None:
    plain, _ = made(tmp_path / "plain", noise="none")
    images, truth = made(tmp_path / "junk", disturbances=JUNK, noise="none")
    blobs = images[np.array(truth.texts("cryoganParticleKind")) == "contaminant"]
    assert blobs.min() >= 0
    np.testing.assert_allclose(blobs[:, CIRCLE].var(1), 4 * plain[:, CIRCLE].var(), rtol=0.02)
    places = blobs.reshape(len(blobs), -1).argmax(1)
    assert np.abs(np.stack(np.divmod(places, BOX)) - BOX // 2).max() <= round(BOX / 6)
    assert len(set(places)) > len(blobs) / 2


def test_broken_particles_show_half_of_the_molecule_in_its_pose(tmp_path: Path) -> None:
    star = without_ctf(tmp_path / "poses.star")
    plain, _ = made(tmp_path / "plain", noise="none", poses=star)
    images, truth = made(tmp_path / "junk", disturbances={"junk_broken": 0.5}, noise="none", poses=star)
    broken = np.array(truth.texts("cryoganParticleKind")) == "broken"
    share = images[broken].sum((1, 2)) / plain[broken].sum((1, 2))
    assert 0.3 < share.min() < share.max() < 0.7
    assert len(set(share.round(2))) <= 8  # fragments
    # A part of the same density in the same pose: nowhere is there less than nothing, or more than the whole.
    largest = plain[broken].max((1, 2), keepdims=True)
    assert (images[broken] / largest).min() > -0.1
    assert ((plain - images)[broken] / largest).min() > -0.1


def test_aggregates_hold_three_molecules_within_a_radius(tmp_path: Path) -> None:
    star = without_ctf(tmp_path / "poses.star")
    plain, _ = made(tmp_path / "plain", ball(), noise="none", poses=star)
    images, truth = made(tmp_path / "junk", ball(), {"junk_aggregate": 0.5}, noise="none", poses=star)
    chosen = np.array(truth.texts("cryoganParticleKind")) == "aggregate"
    np.testing.assert_allclose(images[chosen].sum((1, 2)) / plain[chosen].sum((1, 2)), 3, rtol=1e-3)
    radius = molecule_radius(ball(), PIXEL)
    squared = (centres(images[chosen]) ** 2).sum(1)
    assert squared.max() < radius**2
    # The mean of three places, each uniform in a disc of mean square radius^2 / 2.
    assert squared.mean() == pytest.approx(radius**2 / 6, rel=0.3)


def test_neighbours_are_one_to_one_and_a_quarter_diameters_away(tmp_path: Path) -> None:
    star = without_ctf(tmp_path / "poses.star")
    plain, _ = made(tmp_path / "plain", ball(), noise="none", poses=star)
    images, truth = made(tmp_path / "two", ball(), {"neighbours": 0.6}, noise="none", poses=star)
    places = np.stack([truth.floats(f"cryoganNeighbour{axis}Angst") for axis in "XY"], axis=1)
    beside = places.any(1)
    assert beside.sum() == round(0.6 * COUNT)
    np.testing.assert_array_equal(images[~beside], plain[~beside])
    np.testing.assert_allclose(centres((images - plain)[beside]), places[beside], atol=0.25)
    diameter = 2 * molecule_radius(ball(), PIXEL)
    distance = np.hypot(*places[beside].T)
    assert diameter * 0.999 <= distance.min()
    assert distance.max() <= 1.251 * diameter
    assert (distance**2).mean() == pytest.approx(diameter**2 * (1 + 1.25**2) / 2, rel=0.03)  # uniform over the ring


def test_a_neighbour_that_leaves_the_box_does_not_come_in_again(tmp_path: Path) -> None:
    star = without_ctf(tmp_path / "poses.star")
    plain, _ = made(tmp_path / "plain", ball(3.5), noise="none", poses=star)
    images, truth = made(tmp_path / "two", ball(3.5), {"neighbours": 1.0}, noise="none", poses=star)
    places = np.stack([truth.floats(f"cryoganNeighbour{axis}Angst") for axis in "XY"], axis=1) / PIXEL
    away = np.hypot(AXIS - places[:, 0, None, None], AXIS[:, None] - places[:, 1, None, None])
    added = np.abs(images - plain)
    assert added[away > 14].max() < 0.02 * plain.max()  # 4 s.d.
    assert added.max() > 0.05 * plain.max()


def test_ramp_has_the_amplitude_at_the_edge_after_normalisation(tmp_path: Path) -> None:
    plain, _ = made(tmp_path / "plain")
    images, truth = made(tmp_path / "ramp", disturbances={"ice_gradient": 0.6})
    x, y = (truth.floats(f"cryoganRamp{axis}") for axis in "XY")
    np.testing.assert_allclose(np.hypot(x, y), 0.6, atol=2e-6)
    edge = AXIS / (BOX / 2)
    expected = x[:, None, None] * edge + y[:, None, None] * edge[:, None]
    np.testing.assert_allclose(images - plain, expected, atol=1e-5)
    names = np.array(truth.texts("rlnMicrographName"))
    assert len(np.unique(np.stack([x, y]), axis=1).T) == len(set(names))
    patches = [open_stack(tmp_path / name / "noise.mrcs") for name in ("plain", "ramp")]
    np.testing.assert_array_equal(*patches)


def test_defocus_error_is_in_the_star_and_not_in_the_images(tmp_path: Path) -> None:
    plain, before = made(tmp_path / "plain", count=2000)
    images, truth = made(tmp_path / "error", disturbances={"defocus_error": 200.0}, count=2000)
    np.testing.assert_array_equal(images, plain)
    stated = read_star(tmp_path / "error" / "particles.star")["particles"]
    error = truth.floats("cryoganDefocusError")
    assert error.std() == pytest.approx(200, rel=0.05)  # three s.d. of an s.d. of 2,000
    assert abs(error.mean()) < 4 * 200 / 2000**0.5
    for name in ("rlnDefocusU", "rlnDefocusV"):
        assert truth.columns[name] == before.columns[name]
        np.testing.assert_allclose(stated.floats(name) - truth.floats(name), error, atol=5e-3)
    assert stated.columns["rlnDefocusAngle"] == truth.columns["rlnDefocusAngle"]


def test_snr_is_lognormal_by_micrograph_and_that_of_the_images(tmp_path: Path) -> None:
    star = without_ctf(tmp_path / "poses.star", 3000)
    options: dict[str, Any] = {"poses": star, "count": 3000}
    noise, plain = (made(tmp_path / str(snr), ball(), snr=snr, **options)[0] for snr in (1e-10, 0.5))
    images, truth = made(tmp_path / "spread", ball(), {"snr_spread": 0.7}, snr=0.5, **options)
    snr, names = truth.floats("cryoganSnr"), np.array(truth.texts("rlnMicrographName"))
    _, first = np.unique(names, return_index=True)
    assert len(set(zip(names, snr, strict=True))) == len(first)
    logarithms = np.log(snr[first] / 0.5)
    assert logarithms.std() == pytest.approx(0.7, rel=4 / (2 * len(first)) ** 0.5)
    assert abs(logarithms.mean()) < 4 * 0.7 / len(first) ** 0.5
    # The particle is small and has no CTF: the background that normalises is the same, and signal is added to it.
    signal, disturbed = (part[:, CIRCLE] - noise[:, CIRCLE] for part in (plain, images))
    factor = (signal * disturbed).sum(1) / (signal**2).sum(1)
    np.testing.assert_allclose(factor**2, snr / 0.5, rtol=1e-3)


def test_miscentring_is_students_t_with_two_degrees_of_freedom() -> None:
    shifts = student_shifts(50_000, 3.0, torch.Generator().manual_seed(0))
    assert shifts.shape == (50_000, 2)
    assert torch.corrcoef(torch.sign(shifts).T)[0, 1].abs() < 0.02
    for s in (0.5, 1.0, 3.0, 10.0):
        expected = s / (2 + s**2) ** 0.5
        assert (shifts.abs() < 3 * s).double().mean().item() == pytest.approx(expected, abs=0.008)
    assert (shifts > 0).double().mean().item() == pytest.approx(0.5, abs=0.008)


def test_true_shifts_are_those_of_the_images(tmp_path: Path) -> None:
    star = without_ctf(tmp_path / "poses.star")
    images, truth = made(tmp_path / "out", ball(), {"miscentring": 6.0}, noise="none", poses=star)
    shifts = np.stack([truth.floats(f"rlnOrigin{axis}Angst") for axis in "XY"], axis=1)
    assert np.abs(shifts).max() == BOX * PIXEL / 4  # the tails are cut
    np.testing.assert_allclose(centres(images), -shifts, atol=0.25)


def test_a_particle_that_leaves_the_box_does_not_come_in_again(tmp_path: Path) -> None:
    star = without_ctf(tmp_path / "poses.star")
    images, truth = made(tmp_path / "out", ball(3.0), {"miscentring": 30.0}, noise="none", poses=star)
    x, y = (-truth.floats(f"rlnOrigin{axis}Angst")[:, None, None] / PIXEL for axis in "XY")
    expected = np.exp(-((AXIS - x) ** 2 + (AXIS[:, None] - y) ** 2) / (2 * 3.0**2)) * 3.0 * (2 * np.pi) ** 0.5
    assert np.abs(x).max() == BOX / 4
    np.testing.assert_allclose(images, expected, atol=0.03 * expected.max())


@pytest.mark.parametrize("kappa", [0.5, 3.0, 40.0])
def test_preferred_views_have_the_density_of_von_mises_and_fisher(kappa: float) -> None:
    count = 40_000
    rotations = preferred_rotations(count, kappa, torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).double().expand_as(rotations), atol=1e-5, rtol=0)
    x, y, z = rotations[:, :, 2].T.numpy()
    assert z.mean() == pytest.approx(1 / np.tanh(kappa) - 1 / kappa, abs=4 * z.std() / count**0.5)
    for height in np.linspace(-0.9, 0.99, 12):
        expected = (np.exp(kappa * (height - 1)) - np.exp(-2 * kappa)) / (1 - np.exp(-2 * kappa))
        assert (z < height).mean() == pytest.approx(expected, abs=4 * 0.5 / count**0.5)
    # Azimuth and in-plane angle are uniform.
    azimuth, psi = np.arctan2(y, x), np.arctan2(*rotations[:, 2, [1, 0]].T.numpy())
    for angle in (azimuth, psi):
        assert abs(np.exp(1j * angle).mean()) < 4 / count**0.5


def test_b_factor_is_an_envelope_that_the_star_does_not_state(tmp_path: Path) -> None:
    plain, _ = made(tmp_path / "plain", noise="none")
    images, truth = made(tmp_path / "b", disturbances={"b_factor": 80.0}, noise="none")
    assert set(truth.floats("rlnCtfBfactor")) == {80.0}
    k2 = np.fft.fftfreq(BOX, PIXEL)[:, None] ** 2 + np.fft.rfftfreq(BOX, PIXEL) ** 2
    before, after = np.fft.rfft2(plain), np.fft.rfft2(images)
    np.testing.assert_allclose(after, before * np.exp(-80 / 4 * k2), atol=1e-4 * np.abs(before).max())


def test_belt_is_around_the_molecule_and_not_in_the_truth(tmp_path: Path) -> None:
    _, _ = made(tmp_path / "out", disturbances={"belt": 0.5})
    truth, belt = (open_stack(tmp_path / "out" / f"{name}.mrc") for name in ("truth", "belt"))
    np.testing.assert_array_equal(truth, phantom(BOX, PIXEL, 1))
    assert belt.max() > 0
    heights = AXIS[belt.max((1, 2)) > 0.1 * belt.max()] * PIXEL
    assert -32 < heights.min() < heights.max() < 32


@pytest.mark.parametrize("noise", ["coloured", "none"])
def test_several_volumes_are_disturbed_each_in_its_own_images(noise: str, tmp_path: Path) -> None:
    volumes = np.stack([phantom(BOX, PIXEL, 1), ball(2.0)])
    plain, _ = made(tmp_path / "plain", volumes, noise=noise)
    images, truth = made(tmp_path / "junk", volumes, JUNK, noise=noise)
    whole = np.array(truth.texts("cryoganParticleKind")) == "particle"
    np.testing.assert_array_equal(images[whole], plain[whole])


def test_junk_stands_in_micrographs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"write_micrographs": True, "particles_per_um2": 20.0, "micrographs": 5, "snr": 50.0}
    plain, _ = made(tmp_path / "plain", **options)
    images, truth = made(tmp_path / "junk", disturbances={"junk_empty": 0.5}, **options)
    empty = np.array(truth.texts("cryoganParticleKind")) == "empty"
    circle = CIRCLE & (np.hypot(AXIS[:, None], AXIS) < 8)
    assert np.median(images[empty][:, circle].var(1)) < 0.5 * np.median(plain[empty][:, circle].var(1))


def test_float32_stacks_are_the_float16_ones_before_rounding(tmp_path: Path) -> None:
    made(tmp_path / "single", disturbances=ALL)
    made(tmp_path / "half", disturbances=ALL, float32=False)
    for name in ("particles.mrcs", "noise.mrcs"):
        single, half = (open_stack(tmp_path / folder / name) for folder in ("single", "half"))
        assert (single.dtype, half.dtype) == (np.dtype("<f4"), np.dtype("<f2"))
        np.testing.assert_array_equal(single.astype("f2"), half)


@pytest.mark.parametrize(
    ("disturbances", "options", "message"),
    [
        ({"junk_empty": 0.6, "junk_broken": 0.6}, {}, "sum to 1.2"),
        ({"ice_gradient": 1.0}, {"noise": "none"}, "relative to the noise"),
        ({"snr_spread": 1.0}, {"noise": "none"}, "relative to the noise"),
        ({"ice_gradient": 1.0}, {"write_micrographs": True}, "Leave out --write-micrographs"),
        ({"neighbours": 1.0}, {"write_micrographs": True, "particles_per_um2": 9.0}, "by chance"),
        ({"preferred_views": 1.0}, {"poses": Path("poses.star")}, "Leave out one"),
    ],
)
def test_what_does_not_go_together_is_refused(
    disturbances: dict[str, float], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        made(tmp_path / "out", disturbances=disturbances, **options)
    assert not (tmp_path / "out").exists()


def test_every_option_is_off_by_default_and_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text()
    assert not Disturbances().any
    for name, value in Disturbances():
        assert value == 0
        assert f"`--{name.replace('_', '-')}`" in page
