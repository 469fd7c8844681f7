"""The discriminator (critic) of Figure 5."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, max_pool2d


class Discriminator(nn.Module):
    """Convolution, max-pooling and leaky ReLU until one or a few pixels are left, then two linear layers.

    The channels double from block to block, as in Figure 5; no batch normalisation, since the penalty is on
    each image's own gradient.

    Args:
        box: D, pixels; there are floor(log2 D) blocks, capped at the paper's 6.
        width: channels of the first block (the paper: 96).
        generator: draws the initial weights, on the CPU.
    """

    def __init__(self, box: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        blocks = min(6, box.bit_length() - 1)
        channels = [1] + [width << i for i in range(blocks)]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(channels))
        self.hidden = nn.Linear(channels[-1] * (box >> blocks) ** 2, 10)
        self.output = nn.Linear(10, 1)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, a=0.1, generator=generator)
            else:
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B,) of images (B, D, D); higher means more like the real particles."""
        x = images[:, None]
        for convolution in self.convolutions:
            x = leaky_relu(max_pool2d(convolution(x), 2), 0.1)
        x = leaky_relu(self.hidden(x.flatten(1)), 0.1)
        scores: Tensor = self.output(x).squeeze(1)
        return scores
