"""The compiled normal equations of a pose against exact derivatives of the interpolated projection."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cryogan.critics.matching.normal_equations import in_torch, log_likelihood_ratio, normal_equations
from cryogan.critics.matching.templates import Observed, Templates
from cryogan.fourier import Disc
from cryogan.physics.projector import FourierProjector

if TYPE_CHECKING:
    from conftest import Experiment, Observe

COUNT = 20


def double(experiment: "Experiment", templates: Templates, images: Observed) -> tuple[Templates, Observed]:
    """The same templates and images in double precision, which is not compiled."""
    projector = FourierProjector(templates.projector.box, device=torch.device("cpu"), dtype=torch.float64)
    disc = Disc(projector.box, 14.0, device=torch.device("cpu"))
    disc.frequencies = disc.frequencies.double()
    noise = torch.ones(projector.box // 2 + 1)
    twin = Templates(projector, projector.transform(experiment.truth.double()), disc, noise, templates.width_A)
    twin.precision = templates.precision.double()
    return twin, Observed(images.coefficients.to(torch.complex128), images.transfer.double())


def poses(experiment: "Experiment") -> tuple[Tensor, Tensor]:
    return experiment.phi.rotations[:COUNT], experiment.phi.shifts[:COUNT] + 1.3


def turned(rotations: Tensor, turns: Tensor) -> Tensor:
    x, y, z = turns.unbind(1)
    zero = torch.zeros_like(x)
    return rotations @ torch.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3))


def test_products_are_those_of_exact_derivatives(experiment: "Experiment", observe: "Observe") -> None:
    templates, images = observe(COUNT, 14.0)
    rotations, shifts = poses(experiment)
    found = normal_equations(templates, images, rotations, shifts)
    exact, images = double(experiment, templates, images)
    rotations, shifts = rotations.double(), shifts.double()

    def model(move: Tensor) -> Tensor:
        projections = exact.projections(turned(rotations, move[:, :3]))
        shifted = projections * exact.shift_phase(move[:, 3:])
        return torch.view_as_real(exact.precision.sqrt() * images.transfer * shifted).flatten(1)

    zero = torch.zeros(COUNT, 5, dtype=torch.float64)
    directions = torch.eye(5, dtype=torch.float64)[:, None].expand(-1, COUNT, -1)
    columns = [torch.autograd.functional.jvp(model, zero, direction)[1] for direction in directions]
    jacobian = torch.stack(columns, 1)
    _, residual, ratio = exact.residual(images, rotations, shifts)
    matrix = jacobian @ jacobian.mT
    gradient = (jacobian @ torch.view_as_real(residual).flatten(1)[:, :, None])[:, :, 0]
    scale = matrix.diagonal(dim1=1, dim2=2).sqrt()
    torch.testing.assert_close(found.log_likelihood_ratio.double(), ratio, rtol=1e-4, atol=1e-3)
    relative = (found.matrix - matrix) / (scale[:, :, None] * scale[:, None])
    assert relative.abs().max() < 1e-3
    size = residual.abs().square().sum(1).sqrt()[:, None] * scale
    assert ((found.gradient - gradient) / size).abs().max() < 1e-4


def test_finite_differences_give_nearly_the_same(experiment: "Experiment", observe: "Observe") -> None:
    templates, images = observe(COUNT, 14.0)
    compiled = normal_equations(templates, images, *poses(experiment))
    other = in_torch(templates, images, *poses(experiment))
    assert (other.matrix - compiled.matrix).norm() < 0.15 * compiled.matrix.norm()
    assert (other.gradient - compiled.gradient).norm() < 0.15 * compiled.gradient.norm()
    torch.testing.assert_close(compiled.log_likelihood_ratio, other.log_likelihood_ratio, rtol=1e-4, atol=1e-2)


def test_double_precision_gives_the_same_likelihood(experiment: "Experiment", observe: "Observe") -> None:
    templates, images = observe(COUNT, 14.0)
    single = log_likelihood_ratio(templates, images, *poses(experiment))
    exact, images = double(experiment, templates, images)
    rotations, shifts = poses(experiment)
    oracle = log_likelihood_ratio(exact, images, rotations.double(), shifts.double())
    torch.testing.assert_close(single.double(), oracle, rtol=1e-4, atol=1e-3)
