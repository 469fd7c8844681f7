"""Back-projection is the adjoint of projection, and its weights are the slice theorem's."""

import pytest
import torch
from torch import Tensor

from cryogan.fourier import Disc
from cryogan.grids import centred_radius
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.projector import FourierProjector
from cryogan.physics.volume import Volume
from cryogan.rotations import uniform_rotations
from cryogan.testing import assert_adjoint

CPU = torch.device("cpu")
BOX = 16


@pytest.mark.parametrize("group", ["C1", "D2"])
def test_is_the_adjoint_of_projection(group: str) -> None:
    """Of P with mask and symmetry; more images than are back-projected at a time."""
    projector, volume = FourierProjector(BOX, device=CPU), Volume(BOX, 6.0, group, CPU)
    back, disc = BackProjector(projector, volume), Disc(BOX, 6.0, device=CPU)
    rotations = uniform_rotations(600, torch.Generator().manual_seed(1))

    def project(density: Tensor) -> Tensor:
        seen = projector.transform(volume.symmetrise(density * volume.mask))
        return projector.samples(seen, rotations, disc.frequencies)

    def back_project(values: Tensor) -> Tensor:
        spectrum = torch.zeros_like(projector.transform(volume.density.detach()))
        back.add(spectrum, disc, rotations, values)
        return torch.fft.irfftn(back.finish(spectrum), s=(BOX,) * 3)

    assert_adjoint(project, back_project, volume.density.detach(), generator=torch.Generator().manual_seed(2))


def test_normal_diagonal_is_the_mean_of_back_projected_projections() -> None:
    """P* P over uniform poses multiplies each shell by a number; the diagonal has a floor of 3 % beyond it."""
    projector, volume = FourierProjector(BOX, device=CPU), Volume(BOX, BOX, "C1", CPU)
    back, disc = BackProjector(projector, volume), Disc(BOX, BOX / 2 - 0.5, device=CPU)
    generator, count = torch.Generator().manual_seed(3), 3000
    small = torch.from_numpy(centred_radius(BOX, axes=3) < BOX / 4)
    density = torch.randn(BOX, BOX, BOX, generator=generator) * small
    rotations = uniform_rotations(count, generator)
    seen = projector.transform(density)
    spectrum = torch.zeros_like(seen)
    back.add(spectrum, disc, rotations, projector.samples(seen, rotations, disc.frequencies))
    found = back.finish(spectrum)
    expected = back.normal_diagonal(disc, torch.ones(len(disc)), count) * torch.fft.rfftn(density)
    for shell in range(3, 7):
        at = back.shell == shell
        ratio = float((found[at].conj() * expected[at]).real.sum() / expected[at].abs().square().sum())
        assert ratio == pytest.approx(0.95, abs=0.06)
