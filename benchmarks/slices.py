"""The compiled loops over slices beside PyTorch, and beside what the memory allows: million samples a second, one core.

    python benchmarks/slices.py --out docs/runs/slices.json

The limit is the rate of random reads of 64 bytes, a cell of eight complex voxels, from a table as large as the
spectrum.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryogan.critics.matching.normal_equations import in_torch, normal_equations
from cryogan.critics.matching.templates import Observed, Templates
from cryogan.fourier import Disc
from cryogan.physics.projector import FourierProjector
from cryogan.physics.slice_kernels import compiled
from cryogan.rotations import uniform_rotations

CPU, BOXES, SAMPLES, REPEATS = torch.device("cpu"), (64, 128, 192), 300_000, 5
WIDTH_A = 240.0  # of the box


class InPyTorch(FourierProjector):
    """The projector without compiled loops."""

    @staticmethod
    def is_compiled(spectrum: torch.Tensor) -> bool:
        return False


@compiled
def random_reads(table: np.ndarray, count: int) -> float:
    """Sum 16 numbers at each of `count` random rows of a table (N, 16)."""
    state, total = np.uint64(1), np.float32(0)
    for _ in range(count):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        row = (state >> np.uint64(33)) % np.uint64(len(table))
        for column in range(16):
            total += table[row, column]
    return total


def rate(count: int, task: Callable[[], object]) -> float:
    """Return the best of several rates, million a second of CPU time; the first call compiles."""
    task()
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        task()
        seconds.append(time.process_time() - start)
    return count / min(seconds) / 1e6


@dataclass(frozen=True)
class Scene:
    """Random images of random poses, and the templates of a random map, of about so many samples, on a device."""

    templates: Templates
    observed: Observed
    rotations: Tensor
    shifts: Tensor

    @classmethod
    def of(cls, projector: FourierProjector, samples: int, device: torch.device) -> "Scene":
        box, generator = projector.box, torch.Generator().manual_seed(0)
        disc = Disc(box, box / 2, device=device)
        images = max(1, samples // len(disc))
        observed = Observed(
            torch.randn(images, len(disc), dtype=torch.complex64, generator=generator).to(device),
            torch.randn(images, len(disc), generator=generator).to(device),
        )
        spectrum = projector.transform(torch.randn(box, box, box, generator=generator).to(device))
        templates = Templates(projector, spectrum, disc, torch.ones(box // 2 + 1, device=device), WIDTH_A)
        rotations, shifts = uniform_rotations(images, generator), torch.randn(images, 2, generator=generator)
        return cls(templates, observed, rotations.to(device), shifts.to(device))

    @property
    def samples(self) -> int:
        return self.observed.coefficients.numel()

    def tasks(self, solve: Callable[..., object] = normal_equations) -> dict[str, Callable[[], object]]:
        """The operations on slices, by name; `solve` makes the normal equations."""
        t, frequencies, rotations = self.templates, self.templates.disc.frequencies, self.rotations
        into, values = torch.zeros_like(t.spectrum), self.observed.coefficients
        return {
            "samples": lambda: t.projector.samples(t.spectrum, rotations, frequencies),
            "adjoint": lambda: t.projector.add_samples(into, rotations, frequencies, values),
            "normal equations": lambda: solve(t, self.observed, rotations, self.shifts),
        }


def measure(box: int) -> dict[str, float]:
    rates = {}
    for name, kind, solve in (
        ("compiled", FourierProjector, normal_equations),
        ("PyTorch", InPyTorch, in_torch),
    ):
        scene = Scene.of(kind(box, device=CPU), SAMPLES, CPU)
        rates |= {f"{task}, {name}": rate(scene.samples, call) for task, call in scene.tasks(solve).items()}
    table = np.zeros((scene.templates.spectrum.numel() // 16, 16), np.float32)
    return rates | {"limit": rate(SAMPLES, lambda: random_reads(table, SAMPLES))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rates = {str(box): measure(box) for box in BOXES}
    for box, row in rates.items():
        print(box, {name: round(value, 2) for name, value in row.items()})
    if arguments.out:
        record = {"million_a_second": rates, "processor": platform.processor() or platform.machine()}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
