"""Patches with none, one or several particles: how many are drawn, where they stand, and what the patches show."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cryogan.fourier import to_images
from cryogan.models.phantom import phantom
from cryogan.physics.ctf import CtfParameters
from cryogan.physics.noise import WhiteNoise
from cryogan.physics.projector import FourierProjector
from cryogan.physics.unpicked import Unpicked, UnpickedSimulator
from cryogan.rotations import uniform_rotations

CPU = torch.device("cpu")
BOX, PIXEL = 32, 5.0
RADIUS = 8 * PIXEL
IN_PATCH = 0.6  # particles with their centre in a patch, on average


def simulator(contrast: float = 0.1, box: int = BOX) -> UnpickedSimulator:
    """Patches of 7 micrographs; with an amplitude contrast of 1 and no defocus their CTF is 1."""
    ones = torch.ones(7)
    defocus = (0 if contrast == 1 else 1) * (8000 + 1000 * torch.arange(7.0))
    cs = 0 * ones if contrast == 1 else 2.7 * ones
    return UnpickedSimulator(
        FourierProjector(box, device=CPU),
        CtfParameters(defocus, defocus, 0 * ones, 300 * ones, cs, contrast * ones, 0 * ones, 0 * ones, ones),
        WhiteNoise(box),
        pixel_size=PIXEL,
        generator=torch.Generator().manual_seed(3),
        density=IN_PATCH / (BOX * PIXEL) ** 2,
        radius_A=RADIUS,
    )


@pytest.fixture(scope="module")
def particle() -> Tensor:
    """A phantom of 16 pixels, the radius in which it lies 8, in the patch's box."""
    return torch.nn.functional.pad(torch.from_numpy(phantom(16, PIXEL, 2)), (8,) * 6)


def placed(shifts: list[tuple[float, float]]) -> Unpicked:
    """One patch with particles at minus these shifts, A."""
    rotations = uniform_rotations(len(shifts), torch.Generator().manual_seed(1))
    return Unpicked(
        rotations, torch.tensor(shifts), torch.tensor([2]), patch=torch.zeros(len(shifts), dtype=torch.int64)
    )


def test_as_many_particles_as_the_density_says() -> None:
    count = 20000
    phi = simulator().sample(count)
    width = BOX * PIXEL
    inside = (phi.shifts.abs() < width / 2).all(1)
    numbers = torch.bincount(phi.patch[inside], minlength=count).double()
    assert numbers.mean().item() == pytest.approx(IN_PATCH, abs=4 * (IN_PATCH / count) ** 0.5)
    assert numbers.var().item() == pytest.approx(IN_PATCH, rel=0.06)  # Poisson
    shares = [(numbers == k).double().mean().item() for k in range(3)]
    expected = [np.exp(-IN_PATCH) * IN_PATCH**k / max(1, k) for k in range(3)]  # none, one and two
    np.testing.assert_allclose(shares, expected, atol=0.015)
    reach = width / 2 + RADIUS
    assert phi.shifts.abs().max() <= reach
    counts, _, _ = np.histogram2d(*phi.shifts.T.numpy(), bins=6, range=[[-reach, reach]] * 2)
    expected_count = len(phi.shifts) / 36
    assert ((counts - expected_count) ** 2 / expected_count).sum() < 70  # chi^2, 35 degrees of freedom
    assert phi.particles.unique().tolist() == list(range(7))


@torch.no_grad()
def test_a_patch_is_the_sum_of_its_particles(particle: Tensor) -> None:
    one = simulator()
    spectrum = one.projector.transform(particle)
    places = [(10.0, -20.0), (-95.0, 40.0), (0.0, 0.0), (70.0, 70.0)]
    together = placed(places)
    alone = [
        one.clean(
            spectrum,
            Unpicked(together.rotations[i : i + 1], together.shifts[i : i + 1], together.particles, patch=zero),
        )
        for i, zero in enumerate(torch.zeros(4, 1, dtype=torch.int64))
    ]
    patch = one.clean(spectrum, together)
    assert patch.shape == (1, BOX, BOX)
    torch.testing.assert_close(patch, torch.stack(alone).sum(0))
    assert all(image.abs().max() > 0.02 * patch.abs().max() for image in alone)
    none = Unpicked(torch.zeros(0, 3, 3), torch.zeros(0, 2), torch.tensor([2]), patch=torch.zeros(0, dtype=torch.int64))
    assert (one.clean(spectrum, none) == 0).all()


@torch.no_grad()
def test_some_patches_are_those_of_all(particle: Tensor) -> None:
    one = simulator()
    spectrum, phi = one.projector.transform(particle), one.sample(30)
    torch.testing.assert_close(one.clean(spectrum, phi)[10:17], one.clean(spectrum, phi[10:17]))
    torch.testing.assert_close(one.project(spectrum, phi)[:6], one.project(spectrum, phi[:6]))


@torch.no_grad()
def test_a_centred_particle_is_a_picked_one(particle: Tensor) -> None:
    one, phi = simulator(contrast=1.0), placed([(0.0, 0.0)])
    spectrum = one.projector.transform(particle)
    expected = one.projector(particle, phi.rotations)
    patch = one.clean(spectrum, phi)
    torch.testing.assert_close(patch, expected, atol=1e-4 * float(expected.max()), rtol=0)
    torch.testing.assert_close(to_images(one.project(spectrum, phi)), patch, atol=1e-4, rtol=0)


@torch.no_grad()
def test_what_leaves_a_patch_does_not_come_back(particle: Tensor) -> None:
    """A particle on the edge is cut as in a field of view of twice the side."""
    one, wide = simulator(), simulator(box=2 * BOX)
    phi = placed([(-15 * PIXEL, 4 * PIXEL)])
    patch = one.clean(one.projector.transform(particle), phi)[0]
    large = torch.nn.functional.pad(particle, (BOX // 2,) * 6)
    expected = wide.clean(wide.projector.transform(large), phi)[0, BOX // 2 : -BOX // 2, BOX // 2 : -BOX // 2]
    assert (patch - expected).norm() < 0.03 * expected.norm()
    assert patch[:, -6:].square().mean() > 20 * patch[:, :6].square().mean()  # at plus x, and not at minus x
