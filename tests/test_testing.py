"""The checks for users' own operators and noise models: they pass for right ones and fail for wrong ones."""

import pytest
import torch
from torch import Tensor

from cryogan.physics.noise import ColouredNoise, Noise, PoissonNoise, WhiteNoise
from cryogan.testing import assert_adjoint, assert_standard_noise

BOX = 16
ROWS = torch.zeros(300, dtype=torch.int64)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_matrix_and_its_transpose_are_adjoint() -> None:
    matrix = torch.randn(5, 7, generator=generator())
    assert_adjoint(lambda x: matrix @ x, lambda y: matrix.T @ y, torch.empty(7), generator=generator())
    with pytest.raises(AssertionError, match="Not adjoint"):
        assert_adjoint(lambda x: matrix @ x, lambda y: 1.01 * matrix.T @ y, torch.empty(7), generator=generator())
    with pytest.raises(AssertionError, match="shape"):
        assert_adjoint(lambda x: matrix @ x, lambda y: y, torch.empty(7), generator=generator())


def test_a_complex_function_of_real_numbers_has_an_adjoint() -> None:
    def backward(y: Tensor) -> Tensor:
        return torch.fft.fft(y.conj()).real  # sum over k of y exp(2 pi i k x / n)

    assert_adjoint(torch.fft.fft, backward, torch.empty(12), generator=generator())


@pytest.mark.parametrize(
    "noise", [WhiteNoise(BOX), ColouredNoise(torch.ones(BOX // 2 + 1), BOX), PoissonNoise(50, BOX)]
)
def test_our_noise_models_pass(noise: Noise) -> None:
    assert_standard_noise(noise, ROWS, generator=generator())


class _Loud(Noise):
    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return 2 * torch.randn(len(rows), BOX, BOX, generator=generator)


class _Global(Noise):
    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(len(rows), BOX, BOX)


class _Still(Noise):
    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(len(rows), BOX, BOX, generator=torch.Generator().manual_seed(1))


class _Flat(Noise):
    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(len(rows), BOX, generator=generator)


@pytest.mark.parametrize(
    ("noise", "problem"), [(_Loud(), "s.d. 2"), (_Global(), "own"), (_Still(), "each time"), (_Flat(), "shape")]
)
def test_wrong_noise_models_fail(noise: Noise, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        assert_standard_noise(noise, ROWS, generator=generator())
