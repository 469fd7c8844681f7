"""The losses and the critic."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from cryogan.config import Settings
from cryogan.critics.wasserstein.discriminator import ARCHITECTURES, Discriminator
from cryogan.critics.wasserstein.losses import critic_loss, gradient_penalty, interpolate, volume_loss

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, box: int, seed: int) -> Tensor:
    return torch.randn(count, box, box, generator=seeded(seed), dtype=F64)


def places(count: int) -> Tensor:
    return torch.rand(count, generator=seeded(), dtype=F64)


@pytest.mark.parametrize(("norm", "penalty"), [(1.0, 0.0), (2.0, 1.0), (0.0, 1.0), (4.0, 9.0)])
@pytest.mark.parametrize("box", [4, 16, 64])
@pytest.mark.parametrize("count", [1, 7])
def test_penalty_of_a_linear_critic_is_exact(norm: float, penalty: float, box: int, count: int) -> None:
    weight = images(1, box, 3)[0]
    weight = norm * weight / weight.norm()  # the norm over all pixels of an image, whatever the box

    def critic(batch: Tensor) -> Tensor:
        scores: Tensor = (batch * weight).sum((1, 2)) + 5
        return scores

    value = gradient_penalty(critic, interpolate(images(count, box, 1), images(count, box, 2), places(count)))
    assert value.item() == pytest.approx(penalty, abs=1e-12)


def test_penalty_is_the_mean_over_images_of_each_ones_own() -> None:
    norms = torch.tensor([1.0, 2.0, 4.0], dtype=F64)

    def critic(batch: Tensor) -> Tensor:
        return norms * batch[:, 3, 5]

    value = gradient_penalty(critic, interpolate(images(3, 8, 1), images(3, 8, 2), places(3)))
    assert value.item() == pytest.approx((0 + 1 + 9) / 3, abs=1e-12)


def test_penalty_is_taken_between_the_images_of_a_pair() -> None:
    real, simulated = torch.zeros(500, 2, 2, dtype=F64), torch.ones(500, 2, 2, dtype=F64)
    between = interpolate(real, simulated, places(500))
    assert (between == between[:, :1, :1]).all()  # one place for each image
    place = between[:, 0, 0]
    assert 0 <= place.min() < 0.02
    assert 0.98 < place.max() <= 1
    assert place.mean().item() == pytest.approx(0.5, abs=0.05)


def test_penalty_can_be_descended() -> None:
    weight = torch.full((4, 4), 1.0, dtype=F64, requires_grad=True)  # norm 4
    between = interpolate(images(2, 4, 0), images(2, 4, 1), places(2))
    gradient_penalty(lambda batch: (batch * weight).sum((1, 2)), between).backward()  # type: ignore[no-untyped-call]
    # d (|w| - 1)^2 / dw = 2 (|w| - 1) w / |w|
    torch.testing.assert_close(weight.grad, torch.full((4, 4), 2 * 3 / 4, dtype=F64))


def test_signs_of_the_losses() -> None:
    real, simulated = torch.tensor([3.0, 5.0], requires_grad=True), torch.tensor([1.0, 0.0], requires_grad=True)
    loss = critic_loss(real, simulated)
    assert loss.item() == pytest.approx(0.5 - 4.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert real.grad is not None
    assert simulated.grad is not None
    assert (real.grad < 0).all()  # descending raises the real scores
    assert (simulated.grad > 0).all()
    assert volume_loss(torch.tensor([1.0, 3.0])).item() == pytest.approx(-2.0)


def inputs(architecture: str, count: int, box: int, seed: int) -> Tensor:
    """What a critic of an architecture is given, (B, planes, D, D)."""
    planes = ARCHITECTURES[architecture](box, 1, seeded()).planes
    return images(count * planes, box, seed).view(count, planes, box, box)


def test_the_registry_has_every_value_of_the_setting() -> None:
    assert set(ARCHITECTURES) == set(get_args(Settings.model_fields["architecture"].annotation))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("box", [16, 48, 100])
def test_one_score_an_image(box: int, architecture: str) -> None:
    critic = ARCHITECTURES[architecture](box, 2, seeded())
    scores = critic(inputs(architecture, 3, box, 0).float())
    assert scores.shape == (3,)
    assert scores.isfinite().all()
    assert scores.unique().numel() == 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("box", [16, 48])
def test_a_score_does_not_depend_on_the_images_beside_it(box: int, architecture: str) -> None:
    critic = ARCHITECTURES[architecture](box, 4, seeded()).double()
    batch = inputs(architecture, 5, box, 1)
    alone = torch.cat([critic(image[None]) for image in batch])
    torch.testing.assert_close(critic(batch), alone, atol=1e-12, rtol=0)
    others = 100 * inputs(architecture, 5, box, 2)
    others[2] = batch[2]
    torch.testing.assert_close(critic(others)[2], alone[2], atol=1e-9, rtol=0)
    assert not any("Norm" in type(module).__name__ for module in critic.modules())


def test_channels_double_as_in_figure_5() -> None:
    critic = Discriminator(64, 96, seeded())
    convolutions = [module for module in critic.modules() if isinstance(module, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [96, 192, 384, 768, 1536, 3072]
    assert [c.in_channels for c in convolutions] == [1, 96, 192, 384, 768, 1536]
    assert {c.kernel_size for c in convolutions} == {(3, 3)}


def test_the_generator_decides_the_weights() -> None:
    def weights(seed: int) -> Tensor:
        return torch.cat([parameter.flatten() for parameter in Discriminator(16, 4, seeded(seed)).parameters()])

    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    first = weights(5)
    torch.manual_seed(2)
    second = weights(5)
    torch.random.set_rng_state(state)
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert not torch.equal(first, weights(6))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_page_has_the_numbers_of_weights(architecture: str) -> None:
    count = sum(parameter.numel() for parameter in ARCHITECTURES[architecture](64, 16, seeded()).parameters())
    page = (Path(__file__).resolve().parents[2] / "docs" / "roadmap" / "critics.md").read_text()
    assert f"| `{architecture}` | {count:,} |" in page


def test_the_second_plane_changes_the_score() -> None:
    critic = ARCHITECTURES["ctf"](16, 4, seeded()).double()
    batch = inputs("ctf", 4, 16, 1)
    other = torch.stack([batch[:, 0], inputs("ctf", 4, 16, 2)[:, 1]], dim=1)
    assert ((critic(batch) - critic(other)).abs() > 1e-3).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_weight_is_learned(architecture: str) -> None:
    critic = ARCHITECTURES[architecture](16, 4, seeded())
    batches = [inputs(architecture, 6, 16, seed).float() for seed in range(4)]
    penalty = gradient_penalty(critic, interpolate(batches[0], batches[1], places(len(batches[0])).float()))
    (critic_loss(critic(batches[2]), critic(batches[3])) + penalty).backward()  # type: ignore[no-untyped-call]
    for name, parameter in critic.named_parameters():
        if name not in ("output.bias", "hidden.bias"):  # cancel between real and simulated; most units keep their side
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
