"""Where the development data are, and a smooth map whose projections are known in closed form."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from development_data import DATA


@pytest.fixture(scope="session")
def data_set() -> Callable[[str], Path]:
    """The folder of a development data set."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not (folder / "clean_first100.mrcs").is_file():
            pytest.skip(f"{name} is not in the data folder {DATA}: set CRYOGAN_DATA to it")
        return folder

    return find


@dataclass(frozen=True)
class Gaussians:
    """A sum of round Gaussians about the centre voxel D // 2; everything in voxels, float64."""

    centres: Tensor  # (n, 3) x, y, z
    weights: Tensor  # (n,)
    width: float  # s.d.

    def volume(self, box: int) -> Tensor:
        axis = torch.arange(box, dtype=torch.float64) - box // 2
        x, y, z = (torch.exp(-(axis - c[:, None]).square() / (2 * self.width**2)) for c in self.centres.T)
        return torch.einsum("n,nz,ny,nx->zyx", self.weights, z, y, x)

    def projections(self, rotations: Tensor, box: int) -> Tensor:
        """Analytic: a Gaussian's projection is a Gaussian at the first two coordinates of R^T c."""
        axis = torch.arange(box, dtype=torch.float64) - box // 2
        seen = torch.einsum("bij,ni->bnj", rotations, self.centres)
        x, y = (torch.exp(-(axis - seen[..., i, None]).square() / (2 * self.width**2)) for i in (0, 1))
        images: Tensor = torch.einsum("n,bny,bnx->byx", self.weights, y, x) * self.width * (2 * torch.pi) ** 0.5
        return images


@pytest.fixture(scope="session")
def gaussians() -> Gaussians:
    """Thirty Gaussians of s.d. 2 within 7 voxels of the centre: band-limited, and half a box of 32 wide."""
    generator = torch.Generator().manual_seed(5)
    directions = torch.nn.functional.normalize(torch.randn(30, 3, generator=generator, dtype=torch.float64), dim=1)
    radii = 7 * torch.rand(30, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
    weights = 0.5 + torch.rand(30, generator=generator, dtype=torch.float64)
    return Gaussians(directions * radii, weights, 2.0)
