"""Held-out evidence: its null distribution, right and wrong maps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders import finished
from cryogan.grids import centred_radius, falling_cosine, frequency_radius
from cryogan.models.phantom import phantom
from cryogan.particles import open_stack, read_star, write_stack
from cryogan.refinement.half_map_test import HalfMapTest, finest_shell
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.held_out import compare_beyond, cutoffs, guard_band, measure_held_out, shell_evidence
from cryogan.refinement.pose_search import Poses, search_poses
from cryogan.refinement.random_phases import shell_products
from cryogan.rotations import euler_to_rotations
from cryogan.run.folder import HALVES
from cryogan.run.held_out import HeldOut, HeldOutShells
from cryogan.run.plan import Plan

BOX, PIXEL = 32, 4.0
SCALE = 6.6  # of the phantom in the particles, whose unit is the noise's s.d.


def halves(run: Path) -> list[HalfSet]:
    return [HalfSet(Plan.read(run), run / "particles.star", half) for half in HALVES]


def truth() -> np.ndarray:
    return SCALE * phantom(BOX, PIXEL, 1)


def low_and_high(low: np.ndarray, high: np.ndarray, shell: int) -> np.ndarray:
    """One map below a shell, another from there on."""
    beyond = frequency_radius(BOX, axes=3) >= shell
    spectrum = np.where(beyond, np.fft.rfftn(high), np.fft.rfftn(low))
    return np.fft.irfftn(spectrum, s=low.shape, axes=(0, 1, 2))


@pytest.fixture(scope="module")
def run(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("held_out") / "run", particles, truth())


@pytest.fixture(scope="module")
def noise(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> list[HalfSet]:
    """Particles that are white noise, and so is the background."""
    folder, generator = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for name in ("particles", "noise"):
        shape = open_stack(particles / f"{name}.mrcs").shape
        write_stack(folder / f"{name}.mrcs", generator.standard_normal(shape, dtype=np.float32), PIXEL)
        (folder / f"{name}.star").write_text((particles / f"{name}.star").read_text())
    return halves(finished(folder / "run", folder, truth()))


def test_guard_band_is_the_lobe_of_the_outline_and_one_more() -> None:
    assert guard_band(64, 64) == 3
    assert guard_band(64, 32) == 4


def test_guard_band_ends_beyond_the_main_lobe_of_a_ball() -> None:
    amplitude = np.abs(np.fft.rfftn(falling_cosine(centred_radius(64, axes=3), 12, 0)))
    beyond = frequency_radius(64, axes=3) >= guard_band(64, 24) - 1
    assert amplitude[beyond].max() < 0.1 * amplitude.max()
    assert amplitude[~beyond].max() == amplitude.max()


def test_cutoffs_go_from_five_shells_to_two_thirds_of_the_resolution() -> None:
    assert cutoffs(30) == [5, 12, 20]
    assert cutoffs(8) == [5]
    assert cutoffs(7) == []


def test_a_right_map_at_true_poses_has_one_amplitude_in_all_shells(run: Path, particles: Path) -> None:
    """The statistic is what it is expected to be, although one is from the volume and the other from the images."""
    table, density = read_star(particles / "truth.star")["particles"], torch.from_numpy(truth()).float()
    subset = read_star(run / "particles.star")["particles"].floats("rlnRandomSubset")
    rotations = euler_to_rotations(*(table.floats(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi"))).float()
    shifts = torch.from_numpy(np.stack([table.floats(f"rlnOrigin{axis}Angst") for axis in "XY"], 1)).float()
    half = halves(run)[0]
    rows, nothing = torch.from_numpy(subset == 1), torch.zeros(len(half))
    evidence = compare_beyond(half, density, Poses(rotations[rows], shifts[rows], *[nothing] * 2), 3)
    products = shell_products(torch.fft.rfftn(density), evidence.back_projection, half.back.shell)
    amplitude = (products / evidence.expected)[6:15].numpy()
    np.testing.assert_allclose(amplitude, 1.0, atol=0.15)  # shells of images are not quite those of volumes


def unrelated(seed: int) -> torch.Tensor:
    return torch.from_numpy(SCALE * phantom(BOX, PIXEL, seed)).float()


def test_noise_gives_the_normal_distribution_of_the_closed_form(noise: list[HalfSet]) -> None:
    """With z by the null of random phases, and by the variance of white noise, which agree."""
    first, z, closed = 9, [], []
    for seed in range(2, 8):
        density, evidence = unrelated(seed), []
        for half in noise:
            evidence.append([compare_beyond(half, density, search_poses(half, density, 5.0), first)])
        (band,) = shell_evidence(noise, [density] * 2, evidence, [(5, first)])
        z += [value for value in band.z if value is not None]
        spectrum, shell = torch.fft.rfftn(density), noise[0].back.shell
        statistic = sum(shell_products(spectrum, found.back_projection, shell) for (found,) in evidence)
        variance = sum(found.noise_variance for (found,) in evidence)
        closed += (statistic / variance.sqrt())[first : BOX // 2].tolist()
    assert len(z) == len(closed) == 42
    for values in (np.array(z), np.array(closed)):
        assert abs(values.mean()) < 3 / 42**0.5
        assert 0.7 < values.std() < 1.3
        assert values.max() < 3.5
    assert np.corrcoef(z, closed)[0, 1] > 0.9


def measured(folder: Path, particles: Path, density: np.ndarray) -> HeldOut:
    return measure_held_out(HalfMapTest.of_run(finished(folder / "run", particles, density)))


def test_a_right_map_is_supported_to_its_end(run: Path) -> None:
    held_out = measure_held_out(HalfMapTest.of_run(run))
    assert held_out.resolution is not None
    assert held_out.resolution < 9.5


def test_the_half_map_that_is_wrong_alone_is_found(run: Path) -> None:
    """The particles of half 1 see the map of half 2, which is right; those of half 2 one that is not."""
    maps, both, first = [torch.from_numpy(truth()).float(), unrelated(2)], halves(run), 9
    evidence = [
        [compare_beyond(half, density, search_poses(half, density, 5.0), first)]
        for half, density in zip(both, maps, strict=True)
    ]
    (band,) = shell_evidence(both, maps, evidence, [(5, first)])
    half, last = band.only_half or (None, 0)
    assert half == 1
    assert last >= first + 4
    assert not band.both_halves


def ball() -> np.ndarray:
    return falling_cosine(centred_radius(BOX, axes=3), 8, 2) * truth().max() / 2


def other_molecule() -> np.ndarray:
    return SCALE * phantom(BOX, PIXEL, 2)


def right_to_18_A_then_noise() -> np.ndarray:
    return low_and_high(truth(), np.random.default_rng(0).standard_normal((BOX,) * 3), 7)


@pytest.mark.parametrize("wrong", [ball, other_molecule, right_to_18_A_then_noise])
def test_a_wrong_map_is_not_supported(wrong: Callable[[], np.ndarray], particles: Path, tmp_path: Path) -> None:
    held_out = measured(tmp_path, particles, wrong())
    assert held_out.half_map_resolution < 8.1  # the half maps are equal
    assert held_out.resolution is None or held_out.resolution > 12


def test_phases_that_are_random_beyond_a_shell_are_not_supported(run: Path, particles: Path, tmp_path: Path) -> None:
    """A right map, and particles with nothing of it beyond a shell."""
    for name in ("particles.star", "noise.star", "noise.mrcs"):
        (tmp_path / name).write_bytes((particles / name).read_bytes())
    images = open_stack(particles / "particles.mrcs").astype(np.float64)
    generator = np.random.default_rng(0)
    spectra, white = np.fft.rfft2(images), np.fft.rfft2(generator.standard_normal(images.shape))
    beyond = frequency_radius(BOX) >= 7
    mixed = np.where(beyond, np.abs(spectra) * white / np.abs(white), spectra)
    write_stack(tmp_path / "particles.mrcs", np.fft.irfft2(mixed, s=images.shape[1:]).astype(np.float32), PIXEL)
    held_out = measured(tmp_path, tmp_path, truth())
    assert held_out.resolution is None or held_out.resolution > 16


def shells(last: int) -> HeldOutShells:
    z = tuple(None if shell < 8 else 5.0 if shell <= last else 0.5 for shell in range(16))
    return HeldOutShells(5, 8, z, z, z, half_z=(z, z))


def test_a_half_map_is_supported_alone_only_where_the_other_is_surely_not() -> None:
    right, wrong = shells(10).z, shells(7).z
    weak = tuple(None if z is None else 2.9 for z in right)
    one, both = replace(shells(10), half_z=(wrong, right)), shells(10)
    assert HeldOut(128.0, 400, 9.0, (one,)).only_half == (1, 128 / 10)
    assert HeldOut(128.0, 400, 9.0, (one, both)).only_half is None
    assert HeldOut(128.0, 400, 9.0, (replace(one, half_z=(right, wrong)), one)).only_half is None
    assert HeldOut(128.0, 400, 9.0, (replace(one, half_z=(weak, right)),)).only_half is None


@pytest.mark.parametrize(
    ("curve", "last"),
    [
        ([1, 0.9, 0.8, 0.3, 0.1, 0.0], 3),
        ([1, 0.9, 0.1, 0.6, 0.2, 0.1], 4),  # a dip, as of a hollow molecule
        ([1, 0.9, 0.1, 0.4, 0.2, 0.1], 1),  # noise may come back so far
        ([1, 0.9, 0.8, 0.7, 0.6, 0.4], 5),
        ([1, 0.1, 0.0, 0.2, 0.0, 0.0], 1),
    ],
)
def test_half_maps_agree_up_to_where_only_dips_are_passed(curve: list[float], last: int) -> None:
    assert finest_shell(np.array(curve)) == last


def test_the_resolution_is_the_finest_of_the_cutoffs_up_to_the_first_gap() -> None:
    assert shells(10).last == 10
    assert shells(7).last is None
    assert HeldOut(128.0, 400, 9.0, (shells(10), shells(12))).resolution == 128 / 12
    assert HeldOut(128.0, 400, 9.0, (shells(7),)).resolution is None


def test_what_is_said_follows_the_evidence() -> None:
    assert "support the map to 14.22 A" in HeldOut(128.0, 400, 9.0, (shells(9),)).sentence
    assert "nothing at 16.0 A or finer" in HeldOut(128.0, 400, 9.0, (shells(7),)).sentence
    assert "not tested" in HeldOut(128.0, 400, 30.0, ()).sentence


def wrong_symmetry() -> np.ndarray:
    """The phantom, which has D2, averaged over D4: half of what it shows is in the particles."""
    return (truth() + np.roll(np.rot90(truth(), axes=(1, 2)), 1, axis=1)) / 2


@pytest.mark.parametrize(("density", "least", "most"), [(truth, 0.85, 1.15), (wrong_symmetry, 0.0, 0.8)])
def test_the_share_is_1_for_a_right_map_and_less_for_one_of_a_wrong_symmetry(
    density: Callable[[], np.ndarray], least: float, most: float, particles: Path, tmp_path: Path
) -> None:
    held_out = measured(tmp_path, particles, density())
    shares = [
        share for band in held_out.bands for share in band.share[band.first : band.first + 2] if share is not None
    ]
    assert len(shares) >= 4
    assert least < np.median(shares) < most


def test_the_share_of_the_finest_cutoff_that_has_one_contradicts() -> None:
    def band(cutoff: int, share: float | None) -> HeldOutShells:
        shares = tuple(None if shell < 8 else share for shell in range(16))
        return replace(shells(12), cutoff=cutoff, share=shares, share_deviation=(0.05,) * 16)

    def contradiction(*shares: float | None) -> tuple[float, float] | None:
        bands = tuple(band(5 + number, share) for number, share in enumerate(shares))
        return HeldOut(128.0, 400, 9.0, bands).contradiction

    assert contradiction(0.4, 1.0, None) is None
    assert contradiction(1.0, 0.4, None) == (16.0, 0.4)
    assert contradiction(None, None) is None


def test_a_small_share_of_a_clear_map_contradicts_an_imposed_symmetry_alone() -> None:
    def held_out(z: float, symmetric: bool) -> HeldOut:
        clear = tuple(None if shell < 8 else z for shell in range(16))
        share = {"share": (0.5,) * 16, "share_deviation": (0.05,) * 16}
        return HeldOut(128.0, 400, 9.0, (replace(shells(12), window_z=clear, symmetric=symmetric, **share),))

    for z, symmetric in ((20.0, True), (5.0, False)):
        assert held_out(z, symmetric).contradiction == (16.0, 0.5)
        assert held_out(z, symmetric).more_signal is None
        assert held_out(z, symmetric).resolution is None
    assert held_out(20.0, False).contradiction is None
    assert held_out(20.0, False).more_signal == (16.0, 0.5)
    assert held_out(20.0, False).resolution is not None
