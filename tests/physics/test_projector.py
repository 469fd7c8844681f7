"""The linear operators of equation (1): projector, shift, CTF, symmetry."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from cryogan.fourier import Disc, radial_power, shells, to_half_planes, to_images
from cryogan.physics.ctf import CtfParameters, ctf
from cryogan.physics.noise import WhiteNoise
from cryogan.physics.projector import FourierProjector, project_in_real_space
from cryogan.physics.shifts import shift
from cryogan.physics.simulator import Imaging, Simulator
from cryogan.physics.symmetry import Symmetriser
from cryogan.rotations import euler_to_rotations, uniform_rotations
from cryogan.testing import assert_adjoint

if TYPE_CHECKING:
    from conftest import Gaussians

CPU, F64 = torch.device("cpu"), torch.float64
BOX, PIXEL = 12, 3.0
Operator = Callable[[Tensor], Tensor]


def rotations(count: int, seed: int = 0) -> Tensor:
    return uniform_rotations(count, torch.Generator().manual_seed(seed), F64)


def optics(count: int) -> CtfParameters:
    spread = torch.linspace(0, 1, count, dtype=F64)
    return CtfParameters(
        defocus_u=9000 + 3000 * spread,
        defocus_v=11000 - 4000 * spread,
        defocus_angle=-60 + 90 * spread,
        voltage=300 + 0 * spread,
        spherical_aberration=2.7 + 0 * spread,
        amplitude_contrast=0.1 + 0 * spread,
        phase_shift=30 * spread,
        b_factor=40 * spread,
        scale=1 + 0 * spread,
    )


def projector(oversampling: float) -> Operator:
    project = FourierProjector(BOX, oversampling, device=CPU, dtype=F64)
    return lambda volume: project(volume, rotations(4))


def sampler(volume: Tensor) -> Tensor:
    project = FourierProjector(BOX, device=CPU, dtype=F64)
    frequencies = Disc(BOX, 5.0, device=CPU).frequencies.double()
    return torch.view_as_real(project.samples(project.transform(volume), rotations(4), frequencies))


def shifter(images: Tensor) -> Tensor:
    shifts = torch.tensor([[3.1, -7.2], [0.0, 5.0], [-11.0, 0.4]], dtype=F64)
    return to_images(shift(to_half_planes(images), shifts, PIXEL))


def modulator(images: Tensor) -> Tensor:
    return to_images(to_half_planes(images) * ctf(optics(3), BOX, PIXEL, envelope_at_nyquist=0.3))


VOLUME, IMAGES = (BOX, BOX, BOX), (3, BOX, BOX)
OPERATORS: dict[str, tuple[Operator, tuple[int, ...]]] = {
    **{f"Fourier projector at {o:g}": (projector(o), VOLUME) for o in (1.0, 1.5, 2.0)},
    "real-space projector": (lambda volume: project_in_real_space(volume, rotations(4)), VOLUME),
    "Fourier projector on a disc": (sampler, VOLUME),
    "shift": (shifter, IMAGES),
    "CTF": (modulator, IMAGES),
    **{f"symmetriser {n}": (Symmetriser(n, BOX, device=CPU, dtype=F64), VOLUME) for n in ("C1", "C5", "D2", "T", "O")},
}


@pytest.mark.parametrize(("box", "oversampling"), [(12, 2.0), (16, 1.5), (32, 2.0)])
def test_compiled_slices_agree_with_those_of_pytorch(box: int, oversampling: float) -> None:
    """In single precision, up to the Nyquist frequency, with the gradient."""
    generator, single, double = torch.Generator().manual_seed(4), torch.float32, F64
    volume, turned = torch.randn(box, box, box, generator=generator), uniform_rotations(50, generator)
    probe = torch.randn(50, box, box // 2 + 1, generator=generator)
    slices, gradients = [], []
    for dtype in (single, double):
        project = FourierProjector(box, oversampling, device=CPU, dtype=dtype)
        at = volume.to(dtype).requires_grad_()
        found = project.slices(project.transform(at), turned.to(dtype))
        (gradient,) = torch.autograd.grad((found.real * probe + found.imag * probe.flip(0)).sum(), at)
        slices.append(found.to(torch.complex128))
        gradients.append(gradient.double())
    assert (slices[0] - slices[1]).norm() < 1e-5 * slices[1].norm()
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_back_projection_does_not_depend_on_the_number_of_threads(threads: int) -> None:
    project, disc, before = FourierProjector(16, device=CPU), Disc(16, 8.0, device=CPU), torch.get_num_threads()
    values = torch.randn(200, len(disc), dtype=torch.complex64, generator=torch.Generator().manual_seed(5))
    turned, sums = rotations(200).float(), []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            sums.append(torch.zeros_like(project.transform(torch.zeros(16, 16, 16))))
            project.add_samples(sums[-1], turned, disc.frequencies, values)
    finally:
        torch.set_num_threads(before)
    assert sums[0].norm() > 0
    assert torch.equal(*sums)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_is_linear_and_autograd_gives_its_adjoint(name: str) -> None:
    operator, shape = OPERATORS[name]
    generator = torch.Generator().manual_seed(2)
    x, z = (torch.randn(shape, generator=generator, dtype=F64) for _ in range(2))
    at = z.clone().requires_grad_()  # not x: an operator that is not linear has another Jacobian there
    there, image = operator(at), operator(x)
    assert image.norm() > 0.05 * x.norm()

    def adjoint(y: Tensor) -> Tensor:
        return torch.autograd.grad(there, at, y, retain_graph=True)[0]

    assert_adjoint(operator, adjoint, z, generator=generator, rtol=1e-5)
    torch.testing.assert_close(operator(2 * x - 3 * z), 2 * image - 3 * there.detach(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("box", [16, 18, 32])
@pytest.mark.parametrize("oversampling", [1.0, 1.5, 2.0])
def test_a_delta_at_the_centre_voxel_stays_at_the_centre_pixel(box: int, oversampling: float) -> None:
    volume = torch.zeros(box, box, box, dtype=F64)
    volume[box // 2, box // 2, box // 2] = 1
    axes = euler_to_rotations(*torch.tensor([[0, 0, 0], [90, 90, 0], [0, 180, 30], [45, 90, -90]]).numpy().T)
    turned = torch.cat([axes, rotations(40)])
    images = FourierProjector(box, oversampling, device=CPU, dtype=F64)(volume, turned)
    assert images.flatten(1).argmax(1).tolist() == [box // 2 * box + box // 2] * len(turned)
    # Nothing of it leans to a side: the centre of its energy is that pixel, too.
    axis = torch.arange(box, dtype=F64) - box // 2
    energy = images[:, 1:, 1:].square()
    for profile in (energy.sum(1), energy.sum(2)):
        assert (profile @ axis[1:] / profile.sum(1)).abs().max() < 0.02


@pytest.mark.parametrize(("oversampling", "bound"), [(1.0, 0.085), (1.5, 0.036), (2.0, 0.02)])
def test_fourier_projector_agrees_with_analytic_projections(
    gaussians: "Gaussians", oversampling: float, bound: float
) -> None:
    turned = rotations(30)
    expected = gaussians.projections(turned, 32)
    images = FourierProjector(32, oversampling, device=CPU, dtype=F64)(gaussians.volume(32), turned)
    error = (images - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert error.mean() < bound
    assert error.max() < 1.4 * bound


def test_oversampling_makes_projections_better(gaussians: "Gaussians") -> None:
    turned = rotations(20)
    expected = gaussians.projections(turned, 32)
    errors = [
        (FourierProjector(32, o, device=CPU, dtype=F64)(gaussians.volume(32), turned) - expected).norm()
        for o in (1.0, 1.5, 2.0)
    ]
    assert errors[0] > 1.5 * errors[1]
    assert errors[1] > 1.3 * errors[2]


def test_fourier_projector_agrees_with_the_real_space_projector(gaussians: "Gaussians") -> None:
    volume, turned = gaussians.volume(32), rotations(10, seed=3)
    images = FourierProjector(32, device=CPU, dtype=F64)(volume, turned)
    oracle = project_in_real_space(volume, turned)
    # 1.5 % is the projector's error, 1.2 % that of the oracle's trilinear interpolation.
    assert (images - oracle).norm() < 0.03 * oracle.norm()
    correlation = torch.corrcoef(torch.stack([images.flatten(), oracle.flatten()]))[0, 1]
    assert correlation > 0.9995


def test_real_space_projector_agrees_with_sums_along_the_axes(gaussians: "Gaussians") -> None:
    volume = gaussians.volume(32)
    (image,) = project_in_real_space(volume, torch.eye(3, dtype=F64)[None])
    torch.testing.assert_close(image, volume.sum(0), atol=1e-9, rtol=1e-9)


def test_projector_refuses_an_odd_box() -> None:
    with pytest.raises(ValueError, match="odd"):
        FourierProjector(15, device=CPU)


def test_clean_images_pass_gradcheck_with_respect_to_the_volume() -> None:
    box = 8
    project = FourierProjector(box, device=CPU, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    simulator = Simulator(project, optics(3), WhiteNoise(box), pixel_size=PIXEL, max_shift=5.0, generator=generator)
    phi = Imaging(rotations(2), torch.tensor([[2.0, -4.0], [5.0, 1.0]], dtype=F64), torch.tensor([2, 0]))
    volume = torch.randn(box, box, box, generator=generator, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: simulator.clean(project.transform(x), phi), volume)


@pytest.mark.parametrize("box", [8, 10, 30])
def test_half_planes_go_back_and_forth(box: int) -> None:
    images = torch.randn(3, box, box, generator=torch.Generator().manual_seed(0), dtype=F64)
    torch.testing.assert_close(to_images(to_half_planes(images)), images, atol=1e-12, rtol=0)


def test_half_planes_have_their_phase_origin_at_the_centre_pixel() -> None:
    image = torch.zeros(1, 10, 10, dtype=F64)
    image[0, 5, 5] = 1
    torch.testing.assert_close(to_half_planes(image), torch.ones(1, 10, 6, dtype=torch.complex128))


def test_radial_power_of_white_noise_is_one_in_each_shell() -> None:
    box, count = 32, 400
    power = radial_power(torch.randn(count, box, box, generator=torch.Generator().manual_seed(1)))
    assert power.shape == (box // 2 + 1,)
    coefficients = torch.bincount(shells(box, device=CPU).flatten())[: box // 2 + 1] * count
    # A coefficient's power has s.d. 1, a real one's (few, here all of shell 0) sqrt 2.
    assert ((power - 1).abs() < 6 / coefficients.sqrt()).all()


@pytest.mark.parametrize(("box", "cutoff"), [(12, 4.0), (16, 8.0), (32, 9.5)])
def test_a_disc_has_each_coefficient_once(box: int, cutoff: float) -> None:
    """Parseval: twice the disc's power is that of the images between the mean and the cut-off."""
    disc = Disc(box, cutoff, device=CPU)
    images = torch.randn(3, box, box, generator=torch.Generator().manual_seed(0))
    k = torch.fft.fftfreq(box, 1 / box)
    radius = torch.hypot(k[:, None], k)
    whole = torch.fft.fft2(images).abs().square()[:, (radius > 0.5) & (radius < cutoff)].sum(1)
    taken = disc.take(to_half_planes(images))
    assert taken.shape == (3, len(disc))
    torch.testing.assert_close(2 * taken.abs().square().sum(1), whole)
    radius = disc.frequencies.norm(dim=0)
    assert radius.max() < cutoff
    mean = disc.mean_by_shell(radius)
    assert mean[0] == 0
    torch.testing.assert_close(mean[1:], torch.arange(1, len(mean)).float(), atol=0.5, rtol=0)


def test_a_disc_takes_what_the_projector_samples_there(gaussians: "Gaussians") -> None:
    project = FourierProjector(32, device=CPU, dtype=F64)
    disc = Disc(32, 11.0, device=CPU)
    spectrum = project.transform(gaussians.volume(32))
    torch.testing.assert_close(
        project.samples(spectrum, rotations(3), disc.frequencies.double()),
        disc.take(project.slices(spectrum, rotations(3))),
    )
