"""What is drawn, and what images come of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import poisson
from torch import Tensor

from cryogan.errors import InputError
from cryogan.fourier import radial_power, to_half_planes, to_images
from cryogan.parallel.ranks import LOTS
from cryogan.particles import open_stack, read_star, read_volume
from cryogan.physics.ctf import CtfParameters
from cryogan.physics.noise import (
    ColouredNoise,
    Noise,
    PatchNoise,
    PoissonNoise,
    WhiteNoise,
    background_mask,
    background_power,
    normalise,
    random_turns,
    turn_and_mirror,
)
from cryogan.physics.projector import FourierProjector
from cryogan.physics.shifts import shift, triangular_shifts
from cryogan.physics.simulator import Simulator
from cryogan.rotations import euler_to_rotations, rotations_to_euler, uniform_rotations
from cryogan.simulation import simulate

CPU = torch.device("cpu")
BOX, PIXEL = 16, 4.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def optics(count: int) -> CtfParameters:
    ones = torch.ones(count)
    defocus = 8000 + 1000 * torch.arange(count, dtype=torch.float32)
    return CtfParameters(defocus, defocus, 0 * ones, 300 * ones, 2.7 * ones, 0.1 * ones, 0 * ones, 0 * ones, ones)


def make_simulator(noise: Noise, seed: int) -> Simulator:
    project = FourierProjector(BOX, device=CPU)
    return Simulator(project, optics(5), noise, pixel_size=PIXEL, max_shift=8.0, generator=seeded(seed))


def spectrum_of_a_map(simulator: Simulator) -> Tensor:
    return simulator.projector.transform(torch.rand(BOX, BOX, BOX, generator=seeded(9)))


@pytest.mark.parametrize("name", ["bgal_paper", "bgal_hard", "ribo_c1"])
def test_clean_images_agree_with_relions(name: str, data_set: Callable[[str], Path], tmp_path: Path) -> None:
    folder = data_set(name)
    volume, pixel_size = read_volume(folder / "truth.mrc")
    simulate(volume, pixel_size, tmp_path / "out", count=100, poses=folder / "truth.star", noise="none")
    images = open_stack(tmp_path / "out" / "particles.mrcs").astype(float).reshape(100, -1)
    expected = open_stack(folder / "clean_first100.mrcs").astype(float).reshape(100, -1)
    correlation = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(images, expected, strict=True)])
    assert correlation.mean() >= 0.999
    assert correlation.min() >= 0.995
    # Contrast and scale agree too, not only the pattern.
    assert (images * expected).sum() / (images**2).sum() == pytest.approx(1, abs=0.02)


def test_poses_are_uniform() -> None:
    count = 40_000
    turned = uniform_rotations(count, seeded(), torch.float64)
    torch.testing.assert_close(turned @ turned.mT, torch.eye(3, dtype=torch.float64).expand_as(turned))
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(count, dtype=torch.float64))
    tolerance = 5 / count**0.5
    # Haar measure: E R = 0, E R_ij R_kl = delta_ik delta_jl / 3, and every coordinate is uniform on [-1, 1].
    assert turned.mean(0).abs().max() < tolerance
    flat = turned.flatten(1)
    assert (flat.T @ flat / count - torch.eye(9) / 3).abs().max() < tolerance
    for coordinate in flat.T:
        histogram = torch.histc(coordinate, 20, -1, 1) / count
        assert (histogram - 0.05).abs().max() < tolerance * 0.22  # s.d. of a bin: sqrt(0.05 x 0.95 / count)
    # The rotation angle has density (1 - cos) / pi on [0, pi]: mean cosine of it -1/2.
    assert ((turned.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).mean().item() == pytest.approx(-0.5, abs=tolerance)


def test_euler_angles_round_trip() -> None:
    turned = uniform_rotations(200, seeded(1), torch.float64)
    angles = rotations_to_euler(turned)
    assert angles.shape == (200, 3)
    torch.testing.assert_close(euler_to_rotations(*angles.T), turned, atol=1e-12, rtol=0)


def test_euler_angles_are_relions() -> None:
    # RELION's matrix A (Rz(psi) Ry(tilt) Rz(rot), passive) takes volume to image; ours is its inverse.
    rot, tilt, psi = np.radians([25.0, 70.0, -130.0])
    ca, sa, cb, sb, cg, sg = np.cos(rot), np.sin(rot), np.cos(tilt), np.sin(tilt), np.cos(psi), np.sin(psi)
    a = [
        [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
        [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
        [sb * ca, sb * sa, cb],
    ]
    (ours,) = euler_to_rotations(*np.array([[25.0], [70.0], [-130.0]]))
    np.testing.assert_allclose(ours, np.array(a).T, atol=1e-12)


def test_shifts_are_triangular() -> None:
    count, width = 100_000, 7.0
    shifts = triangular_shifts(count, width, seeded())
    assert shifts.shape == (count, 2)
    assert shifts.abs().max() <= width
    assert shifts.abs().max() > 0.98 * width
    assert shifts.mean(0).abs().max() < 0.05
    np.testing.assert_allclose(shifts.var(0), width**2 / 6, rtol=0.02)
    assert abs(torch.corrcoef(shifts.T)[0, 1]) < 0.02
    # P(|s| < w / 2) = 3/4 for a triangle.
    assert (shifts.abs() < width / 2).float().mean().item() == pytest.approx(0.75, abs=0.01)


def test_content_stands_at_minus_the_shift() -> None:
    images = torch.zeros(2, BOX, BOX, dtype=torch.float64)
    images[:, BOX // 2, BOX // 2] = 1
    shifts = torch.tensor([[2 * PIXEL, 0.0], [-3 * PIXEL, 5 * PIXEL]], dtype=torch.float64)
    moved = to_images(shift(to_half_planes(images), shifts, PIXEL))
    expected = torch.zeros_like(images)
    expected[0, BOX // 2, BOX // 2 - 2] = 1
    expected[1, BOX // 2 - 5, BOX // 2 + 3] = 1
    torch.testing.assert_close(moved, expected, atol=1e-9, rtol=0)


def test_patches_come_from_the_particles_own_micrograph() -> None:
    patch_names = np.array(["b", "a", "c", "b", "a", "b"])
    values = torch.tensor([20.0, 10.0, 30.0, 21.0, 11.0, 22.0])
    patches = values[:, None, None].expand(-1, 4, 4).contiguous()
    particle_names = np.array(["c", "b", "a", "b"])
    noise = PatchNoise(patches, patch_names, particle_names)
    rows = torch.tensor([0, 1, 2, 3] * 200)
    drawn = noise.sample(rows, seeded())
    assert (drawn == drawn[:, :1, :1]).all()
    by_row = [set(drawn[rows == row, 0, 0].tolist()) for row in range(4)]
    # Of its micrograph's patches each is drawn, and no other.
    assert by_row == [{30.0}, {20.0, 21.0, 22.0}, {10.0, 11.0}, {20.0, 21.0, 22.0}]


def test_turn_and_mirror_draws_each_of_the_eight_symmetries_of_the_square() -> None:
    image = torch.arange(9.0).view(3, 3)
    expected = {
        tuple(part.flatten().tolist())
        for quarter in range(4)
        for part in (image.rot90(quarter, (0, 1)), image.rot90(quarter, (0, 1)).T)
    }
    drawn = turn_and_mirror(image.expand(400, 3, 3), random_turns(400, seeded()))
    seen = [tuple(part.flatten().tolist()) for part in drawn]
    assert set(seen) == expected
    assert len(expected) == 8
    assert min(seen.count(part) for part in expected) > 20


def lorentzian(box: int) -> Tensor:
    return 0.3 + 2 / (1 + (torch.arange(box // 2 + 1) / 4.0).square())


def test_coloured_noise_has_the_spectrum_asked_for() -> None:
    box = 32
    power = lorentzian(box)
    noise = ColouredNoise(power, box).sample(torch.zeros(2000, dtype=torch.int64), seeded())
    assert noise.shape == (2000, box, box)
    np.testing.assert_allclose(radial_power(noise)[1:], power[1:], rtol=0.05)


def test_background_power_is_the_noise_without_the_particle() -> None:
    box, radius = 48, 17
    power = lorentzian(box)
    images = ColouredNoise(power, box).sample(torch.zeros(1000, dtype=torch.int64), seeded(1))
    background = background_mask(box, radius, CPU)
    particle = 5 * (~background).float()
    measured = background_power(images + particle, background)
    np.testing.assert_allclose(measured[2:-1], power[2:-1], rtol=0.12)
    torch.testing.assert_close(measured, background_power(images, background))


def test_white_noise_is_independent_of_the_rows() -> None:
    noise = WhiteNoise(BOX).sample(torch.zeros(500, dtype=torch.int64), seeded())
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert torch.corrcoef(noise[:20].flatten(1)).triu(1).abs().max() < 0.35


def test_background_mask_is_round_about_the_centre_pixel() -> None:
    mask = background_mask(16, 5, CPU)
    assert not mask[8, 13]
    assert mask[8, 14]
    assert not mask[8, 3]
    assert mask[8, 2]
    assert (mask == mask.T).all()


def test_normalise_gives_the_region_mean_0_and_deviation_1() -> None:
    region = background_mask(BOX, 5, CPU)
    images = 3 + 7 * torch.randn(4, BOX, BOX, generator=seeded(), dtype=torch.float64)
    images[:, ~region] += 100
    normal = normalise(images, region)
    torch.testing.assert_close(normal[:, region].mean(1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(normal[:, region].std(1, correction=0), torch.ones(4, dtype=torch.float64))
    # It is affine in each image: nothing but level and scale changes.
    correlation = torch.corrcoef(torch.stack([images[2].flatten(), normal[2].flatten()]))[0, 1]
    assert correlation.item() == pytest.approx(1)


def test_same_seed_same_images_other_seed_others() -> None:
    def images(seed: int) -> Tensor:
        simulator = make_simulator(WhiteNoise(BOX), seed)
        with torch.no_grad():
            y: Tensor = simulator(spectrum_of_a_map(simulator), simulator.sample(6))
        return y

    torch.testing.assert_close(images(3), images(3), atol=0, rtol=0)
    both = torch.corrcoef(torch.stack([images(3).flatten(), images(4).flatten()]))[0, 1]
    assert both.abs() < 0.9
    assert not torch.equal(images(3)[0], images(3)[1])


def test_sampling_gives_every_particles_ctf() -> None:
    simulator = make_simulator(WhiteNoise(BOX), 0)
    phi = simulator.sample(500)
    assert len(phi) == 500
    assert set(phi.particles.tolist()) == set(range(5))
    assert phi.shifts.abs().max() <= 8.0
    assert len(phi[10:30]) == 20


def test_image_is_scaled_signal_plus_scaled_noise() -> None:
    patches = torch.randn(3, BOX, BOX, generator=seeded(5))
    simulator = make_simulator(PatchNoise(patches, np.array(["m"] * 3), np.array(["m"] * 5)), 1)
    spectrum, phi = spectrum_of_a_map(simulator), replace(simulator.sample(4), seeds=None)
    with torch.no_grad():
        simulator.log_signal.fill_(np.log(2.0))
        simulator.log_noise.fill_(np.log(3.0))
        state = simulator.generator.get_state()
        images = simulator(spectrum, phi)
        simulator.generator.set_state(state)
        noise = simulator.noise.sample(phi.particles, simulator.generator)
        clean = simulator.clean(spectrum, phi)
    torch.testing.assert_close(images, 2 * clean + 3 * noise)


def noises() -> dict[str, Noise]:
    patches = torch.randn(30, BOX, BOX, generator=seeded(5))
    return {
        "white": WhiteNoise(BOX),
        "coloured": ColouredNoise(lorentzian(BOX), BOX),
        "poisson": PoissonNoise(20.0, BOX),
        "patches": PatchNoise(patches, np.array(["m"] * 30), np.array(["m"] * 5)),
    }


@pytest.mark.parametrize("name", noises())
def test_lots_of_a_batch_are_the_same_images_alone(name: str) -> None:
    simulator = make_simulator(noises()[name], 1)
    count = 5 * LOTS  # in lots of 5
    spectrum, phi = spectrum_of_a_map(simulator), simulator.sample(count)
    with torch.no_grad():
        whole = simulator(spectrum, phi)
        parts = torch.cat([simulator(spectrum, phi[rows]) for rows in (slice(0, 35), slice(35, 50), slice(50, count))])
        # A lot that is cut in two is drawn anew, without repeating itself.
        cut = simulator(spectrum, phi[2:5]) - simulator.clean(spectrum, phi[2:5])
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-5)
    start = (whole - simulator.clean(spectrum, phi).detach())[0:3]
    assert not torch.allclose(cut, start, atol=1e-2)


@pytest.mark.parametrize("electrons", [5.0, 20.0, 300.0])
def test_poisson_noise_has_mean_s_and_variance_1_plus_s_over_root_n(electrons: float) -> None:
    levels, count = torch.tensor([-1.5, 0.0, 2.0]), 400
    clean = levels.repeat_interleave(count)[:, None, None].expand(-1, BOX, BOX)
    images = PoissonNoise(electrons, BOX).add(clean, torch.zeros(len(clean), dtype=torch.int64), seeded())
    counts = images * electrons**0.5 + electrons
    torch.testing.assert_close(counts, counts.round().clamp(min=0), atol=1e-3, rtol=0)  # electrons are whole
    drawn = images.view(3, -1).double()
    variance = 1 + levels / electrons**0.5
    np.testing.assert_allclose(drawn.mean(1), levels, atol=5 * (variance.max() / drawn.shape[1]) ** 0.5)
    np.testing.assert_allclose(drawn.var(1), variance, rtol=0.03)
    skewness = ((drawn - drawn.mean(1, keepdim=True)) ** 3).mean(1) / drawn.var(1) ** 1.5
    np.testing.assert_allclose(skewness, (electrons * variance) ** -0.5, atol=0.06)  # Gaussian noise has none


def test_poisson_background_is_noise_of_mean_0_and_deviation_1() -> None:
    drawn = PoissonNoise(20.0, BOX).sample(torch.zeros(400, dtype=torch.int64), seeded())
    assert drawn.shape == (400, BOX, BOX)
    assert abs(drawn.mean()) < 0.02
    assert drawn.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("power", "bias"),
    [(1, 0.0), (2, 0.0), (3, 0.5)],  # the cubic's is 1 / (2 N): half the third cumulant's slope
)
def test_poisson_gradient_is_that_of_the_expectation(power: int, bias: float) -> None:
    electrons, step = 20.0, 1e-4
    noise = PoissonNoise(electrons, BOX)
    for level in (-1.0, 0.5, 2.0):

        def expectation(s: float) -> float:
            counts = np.arange(400)
            values = ((counts - electrons) / electrons**0.5) ** power
            return float((values * poisson.pmf(counts, electrons + electrons**0.5 * s)).sum())

        expected = (expectation(level + step) - expectation(level - step)) / (2 * step) + bias / electrons
        clean = torch.full((4000, BOX, BOX), level, requires_grad=True)
        images = noise.add(clean, torch.zeros(len(clean), dtype=torch.int64), seeded())
        images.pow(power).sum().backward()  # type: ignore[no-untyped-call]
        assert clean.grad is not None
        error = float(clean.grad.std()) / clean.numel() ** 0.5
        assert clean.grad.double().mean().item() == pytest.approx(expected, abs=4 * error + 1e-5)


def test_a_pixel_darker_than_no_electron_stays_finite() -> None:
    clean = torch.full((2, BOX, BOX), -100.0, requires_grad=True)
    images = PoissonNoise(20.0, BOX).add(clean, torch.zeros(2, dtype=torch.int64), seeded())
    images.sum().backward()  # type: ignore[no-untyped-call]
    assert images.detach().mean().item() == pytest.approx(-(20.0**0.5), abs=0.01)  # dark is all it can be
    assert clean.grad is not None
    assert not clean.grad.any()


def test_poisson_images_teach_the_volume() -> None:
    simulator = make_simulator(PoissonNoise(20.0, BOX), 2)
    volume = torch.rand(BOX, BOX, BOX, generator=seeded(9), requires_grad=True)
    simulator(simulator.projector.transform(volume / 50), simulator.sample(8)).square().sum().backward()
    assert volume.grad is not None
    assert volume.grad.isfinite().all()
    assert volume.grad.any()
    assert simulator.log_noise.grad.abs() > 0


@pytest.mark.parametrize("name", ["log_signal", "log_noise"])
def test_scales_are_learned(name: str) -> None:
    simulator = make_simulator(WhiteNoise(BOX), 2)
    simulator(spectrum_of_a_map(simulator), simulator.sample(3)).square().sum().backward()
    assert getattr(simulator, name).grad.abs() > 0


@pytest.mark.parametrize("noise", ["white", "coloured", "poisson"])
def test_simulated_particles_are_normalised_and_have_the_asked_snr(noise: str, tmp_path: Path) -> None:
    box, snr = 32, 2.0
    axis = np.arange(box) - box // 2
    r2 = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    volume = np.exp(-r2 / 18).astype(np.float32)
    simulate(volume, PIXEL, tmp_path / "out", count=300, noise=noise, snr=snr, max_shift=0, micrographs=7, seed=3)
    images, patches = (open_stack(tmp_path / "out" / f"{name}.mrcs").astype(float) for name in ("particles", "noise"))
    background = background_mask(box, 0.875 * box / 2, CPU).numpy()
    for stack in (images, patches):
        np.testing.assert_allclose(stack[:, background].mean(1), 0, atol=2e-3)
        np.testing.assert_allclose(stack[:, background].std(1), 1, atol=2e-3)
    signal = images[:, ~background].var() - patches[:, ~background].var()
    assert signal == pytest.approx(snr, rel=0.15)
    particle, patch = (read_star(tmp_path / "out" / f"{name}.star") for name in ("particles", "noise"))
    names = particle["particles"].texts("rlnMicrographName")
    assert len(set(names)) == 7
    assert set(patch["noise"].texts("rlnMicrographName")) == set(names)
    assert "rlnAngleRot" not in particle["particles"]  # an input of a reconstruction says nothing of its poses


def test_a_dose_too_small_for_the_contrast_is_refused(tmp_path: Path) -> None:
    volume = np.zeros((16, 16, 16), dtype=np.float32)
    volume[6:10, 6:10, 6:10] = 1
    with pytest.raises(InputError, match=r"At 0\.1 electrons per square A a pixel gets 1\.6, .* larger --dose"):
        simulate(volume, PIXEL, tmp_path / "out", count=50, noise="poisson", dose=0.1, snr=5.0)
    assert not (tmp_path / "out").exists()
