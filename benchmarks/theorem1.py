"""Theorem 1 of the paper, tried: which volumes have images of one distribution?

    python benchmarks/theorem1.py --out docs/runs/theorem1.json

For each seed a molecule is made, and images of it and of a second volume are simulated: uniform poses, triangular
shifts, CTFs of 100 micrographs, white noise. A linear classifier of features of one half of the images is asked about
the other half: where the two distributions are equal its AUC is 0.5 but for chance, and a permutation test says how far
chance goes. The features are the power in each shell and what a convolutional network with fixed random weights makes
of the image.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, max_pool2d

from cryogan.fourier import shells
from cryogan.physics.ctf import CtfParameters
from cryogan.physics.noise import WhiteNoise
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator
from cryogan.rotations import uniform_rotations

CPU = torch.device("cpu")
BOX, PIXEL, MAX_SHIFT, SNR, IMAGES = 32, 4.0, 4.0, 1.0, 1000
ATOMS, DOMAINS, WIDTH = 20, 3, 1.5  # Gaussians in a domain; their s.d. in pixels
CHANNELS = (1, 16, 32, 32)
RIDGE = 0.05
PERMUTATIONS, LEVEL = 2000, 0.05


@dataclass(frozen=True)
class Molecule:
    """Gaussians at `centres` (domains, atoms, 3), pixels from the box's centre; they turn without resampling."""

    centres: Tensor

    @classmethod
    def random(cls, generator: torch.Generator) -> "Molecule":
        middles = torch.randn(DOMAINS, 1, 3, generator=generator)
        middles = 5.0 * middles / middles.norm(dim=-1, keepdim=True)
        return cls(middles + 1.5 * torch.randn(DOMAINS, ATOMS, 3, generator=generator)).centred()

    def centred(self) -> "Molecule":
        return replace(self, centres=self.centres - self.centres.mean((0, 1)))

    def turned(self, matrix: Tensor) -> "Molecule":
        return replace(self, centres=self.centres @ matrix.T)

    def moved(self, distance_A: float) -> "Molecule":
        return replace(self, centres=self.centres + torch.tensor([distance_A / PIXEL, 0.0, 0.0]))

    def domain_moved(self, distance_A: float) -> "Molecule":
        """The first domain, along z, and the whole centred again."""
        centres = self.centres.clone()
        centres[0, :, 2] += distance_A / PIXEL
        return replace(self, centres=centres).centred()

    def volume(self) -> Tensor:
        axis = torch.arange(BOX) - BOX // 2
        x, y, z = (
            torch.exp(-(axis - c[:, None]).square() / (2 * WIDTH**2)) for c in self.centres.flatten(0, 1).unbind(1)
        )
        return torch.einsum("nz,ny,nx->zyx", z, y, x)


@dataclass(frozen=True)
class Pair:
    """What is compared with images of the molecule, and what Theorem 1 says of it."""

    name: str
    equal: bool
    molecule: Molecule
    noise: float = 1.0  # s.d. in its images
    preferred: bool = False  # views of both


def pairs(molecule: Molecule, generator: torch.Generator) -> list[Pair]:
    (turn,), mirror = uniform_rotations(1, generator), torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    turned = molecule.turned(turn)
    return [
        Pair("the same", True, molecule),
        Pair("rotated", True, turned),
        Pair("mirrored", True, molecule.turned(mirror)),
        Pair("rotated and mirrored", True, turned.turned(mirror)),
        Pair("another molecule", False, Molecule.random(generator)),
        Pair("a domain moved by 8 A", False, molecule.domain_moved(8.0)),
        Pair("a domain moved by 16 A", False, molecule.domain_moved(16.0)),
        Pair("rotated, and moved by 12 A", False, turned.moved(12.0)),
        Pair("rotated, noise 5 % stronger", False, turned, noise=1.05),
        Pair("rotated, same preferred views", False, turned, preferred=True),
    ]


def simulator(generator: torch.Generator, preferred: bool) -> Simulator:
    """With the same CTFs and the same preferred views for every seed."""
    defocus = 8000 + 10000 * torch.linspace(0, 1, 100)
    ones = torch.ones(100)
    optics = CtfParameters(
        defocus + 300, defocus - 300, 90 * ones, 300 * ones, 2.7 * ones, 0.07 * ones, 0 * ones, 0 * ones, ones
    )
    views = PoseDistribution(CPU) if preferred else None
    if views is not None:
        side = views.directions[:, 0] > 0.8
        views.density.copy_(torch.where(side, 0.8 / side.sum(), 0.2 / (~side).sum()) * len(side))
    projector = FourierProjector(BOX, device=CPU)
    return Simulator(
        projector,
        optics,
        WhiteNoise(BOX),
        pixel_size=PIXEL,
        max_shift=MAX_SHIFT,
        generator=generator,
        views=views,
    )


def scale(molecule: Molecule) -> float:
    """By which its images have the signal-to-noise ratio SNR."""
    simulate = simulator(torch.Generator().manual_seed(0), preferred=False)
    clean = simulate.clean(simulate.projector.transform(molecule.volume()), simulate.sample(200))
    return SNR**0.5 / float(clean.std())


@torch.no_grad()
def images(volume: Tensor, generator: torch.Generator, noise: float, preferred: bool) -> Tensor:
    """IMAGES of a volume, (n, D, D)."""
    simulate = simulator(generator, preferred)
    simulate.log_noise.fill_(np.log(noise))
    spectrum = simulate.projector.transform(volume)
    result: Tensor = simulate(spectrum, simulate.sample(IMAGES))
    return result


def features(batch: Tensor) -> Tensor:
    """(n, F): log power in each shell, and mean and s.d. over the pixels of each channel of a fixed random network."""
    shell = shells(BOX, device=CPU).flatten()
    power = torch.fft.rfft2(batch).abs().square().flatten(1)
    radial = torch.zeros(len(batch), int(shell.max()) + 1).index_add_(1, shell, power)
    parts = [radial[:, 1 : BOX // 2].log()]
    generator = torch.Generator().manual_seed(0)
    x = batch[:, None]
    for inputs, outputs in pairwise(CHANNELS):
        weight = torch.randn(outputs, inputs, 5, 5, generator=generator) / (25 * inputs) ** 0.5
        x = leaky_relu(max_pool2d(conv2d(x, weight, padding=2), 2), 0.1)
        parts += [x.mean((2, 3)), x.std((2, 3))]
    return torch.cat(parts, dim=1)


def two_sample_test(first: Tensor, second: Tensor, rng: np.random.Generator) -> tuple[float, float]:
    """AUC on held-out images of a ridge regression on the label, and the p-value of so large an AUC by permutation."""
    everything = torch.cat([features(first), features(second)]).double()
    label = torch.cat([torch.zeros(len(first)), torch.ones(len(second))]).double()
    learning = torch.cat([torch.arange(len(part)) % 2 == 0 for part in (first, second)])
    deviation, mean = torch.std_mean(everything[learning], dim=0)
    everything = (everything - mean) / deviation
    x, y = everything[learning], label[learning] - label[learning].mean()
    weights = torch.linalg.solve(x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1]), x.T @ y / len(x))
    scores, second_kind = (everything[~learning] @ weights).numpy(), label[~learning].numpy() > 0.5
    ranks, count = rankdata(scores), int(second_kind.sum())
    found = ranks[second_kind].sum()
    chance = rng.permuted(np.tile(ranks, (PERMUTATIONS, 1)), axis=1)[:, :count].sum(1)
    value = (found - count * (count + 1) / 2) / (count * (len(ranks) - count))
    return float(value), float(1 + (chance >= found).sum()) / (1 + PERMUTATIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(16)))
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, object]] = {}
    before = time.process_time()
    for seed in a.seeds:
        generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        molecule = Molecule.random(generator)
        for pair in pairs(molecule, generator):
            # The signal of a changed molecule keeps its scale; another one gets its own.
            scales = [scale(molecule), scale(pair.molecule if pair.name == "another molecule" else molecule)]
            volumes = [shown.volume() * by for shown, by in zip((molecule, pair.molecule), scales, strict=True)]
            first = images(volumes[0], generator, 1.0, pair.preferred)
            second = images(volumes[1], generator, pair.noise, pair.preferred)
            value, p = two_sample_test(first, second, rng)
            entry = found.setdefault(pair.name, {"equal": pair.equal, "auc": [], "p": []})
            for name, number in (("auc", value), ("p", p)):
                entry[name].append(round(number, 5))  # type: ignore[attr-defined]
    record = {
        "images": IMAGES,
        "box": BOX,
        "pixel_size": PIXEL,
        "snr": SNR,
        "max_shift": MAX_SHIFT,
        "permutations": PERMUTATIONS,
        "seeds": a.seeds,
        "cpu_seconds": round(time.process_time() - before),
        "pairs": found,
    }
    a.out.write_text(json.dumps(record, indent=1) + "\n")
    for name, entry in found.items():
        p = np.array(entry["p"])
        print(f"{name:32s} AUC {np.median(entry['auc']):.3f}  p < {LEVEL} in {(p < LEVEL).sum()} of {len(p)}")


if __name__ == "__main__":
    main()
