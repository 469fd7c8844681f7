"""The discriminator (critic) of Figure 5 of the paper, and alternatives to it."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu, max_pool2d

from cryogan.config import Settings

SLOPE = 0.1  # of the leaky ReLU


class Discriminator(nn.Module):
    """Convolution, max-pooling and leaky ReLU until one or a few pixels are left, then two linear layers.

    The channels double from block to block, as in Figure 5; no batch normalisation, since the penalty is on
    each image's own gradient.

    Args:
        box: Box D, pixels; there are floor(log2 D) blocks, at most the paper's 6.
        width: Number of channels of the first block (the paper: 96).
        generator: Source of the initial weights, on the CPU.
        planes: Number of planes of the input; 1: the image alone.
    """

    def __init__(self, box: int, width: int, generator: torch.Generator, planes: int = 1) -> None:
        super().__init__()
        blocks = min(6, box.bit_length() - 1)
        self.planes = planes
        channels = [planes] + [width << i for i in range(blocks)]
        self.blocks = nn.ModuleList(self.block(i, o) for i, o in pairwise(channels))
        self.hidden = nn.Linear(channels[-1] * (box >> blocks) ** 2, 10)
        self.output = nn.Linear(10, 1)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, a=SLOPE, generator=generator)
            else:
                nn.init.zeros_(parameter)

    def block(self, inputs: int, outputs: int) -> nn.Module:
        """Return a block from (B, inputs, D, D) to (B, outputs, D // 2, D // 2)."""
        return Block(inputs, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Score images (B, D, D) or (B, planes, D, D): (B,), higher for those more like the real particles."""
        x = images.reshape(len(images), self.planes, *images.shape[-2:])
        for block in self.blocks:
            x = block(x)
        x = leaky_relu(self.hidden(x.flatten(1)), SLOPE)
        scores: Tensor = self.output(x).squeeze(1)
        return scores


class Block(nn.Module):
    """Block of Figure 5: convolution, max-pooling, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, D, D) to (B, outputs, D // 2, D // 2)."""
        return leaky_relu(max_pool2d(self.convolution(x), 2), SLOPE)


class ResidualBlock(nn.Module):
    """Mean of two convolutions and a linear path beside them, both averaged over 2 x 2 pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.straight = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, D, D) to (B, outputs, D // 2, D // 2)."""
        bent = self.second(leaky_relu(self.first(x), SLOPE))
        return leaky_relu((avg_pool2d(bent, 2) + avg_pool2d(self.straight(x), 2)) / 2**0.5, SLOPE)


class ResidualDiscriminator(Discriminator):
    """Discriminator with residual blocks."""

    def block(self, inputs: int, outputs: int) -> nn.Module:
        """Return a residual block from (B, inputs, D, D) to (B, outputs, D // 2, D // 2)."""
        return ResidualBlock(inputs, outputs)


# The values of the setting `architecture`. A critic of two planes gets the CTF as the second.
ARCHITECTURES: dict[str, Callable[[int, int, torch.Generator], Discriminator]] = {
    "paper": Discriminator,
    "residual": ResidualDiscriminator,
    "ctf": partial(Discriminator, planes=2),
}


def build_critic(settings: Settings, box: int, generator: torch.Generator) -> Discriminator:
    """Build the convolutional critic that the settings name, for images of a box."""
    return ARCHITECTURES[settings.architecture](box, settings.critic_width, generator)
