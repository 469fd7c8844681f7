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
from pathlib import Path

import numpy as np
import torch

from cryogan.critics.matching.normal_equations import in_torch, normal_equations
from cryogan.critics.matching.templates import Observed, Templates
from cryogan.fourier import Disc
from cryogan.physics.projector import FourierProjector
from cryogan.physics.slice_kernels import compiled
from cryogan.rotations import uniform_rotations

CPU, BOXES, SAMPLES, REPEATS = torch.device("cpu"), (64, 128, 192), 300_000, 5


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


def measure(box: int) -> dict[str, float]:
    generator, rates = torch.Generator().manual_seed(0), {}
    disc = Disc(box, box / 2, device=CPU)
    images = max(1, SAMPLES // len(disc))
    count, rotations = images * len(disc), uniform_rotations(images, generator)
    observed = Observed(
        torch.randn(images, len(disc), dtype=torch.complex64, generator=generator),
        torch.randn(images, len(disc), generator=generator),
    )
    shifts, density = torch.randn(images, 2, generator=generator), torch.randn(box, box, box, generator=generator)
    for name, kind in (("compiled", FourierProjector), ("PyTorch", InPyTorch)):
        projector = kind(box, device=CPU)
        spectrum = projector.transform(density)
        templates = Templates(projector, spectrum, disc, torch.ones(box // 2 + 1), 2.0 * box)
        into = torch.zeros_like(spectrum)
        solve = normal_equations if name == "compiled" else in_torch
        tasks: dict[str, Callable[[], object]] = {
            "samples": lambda p=projector, s=spectrum: p.samples(s, rotations, disc.frequencies),
            "adjoint": lambda p=projector, i=into: p.add_samples(i, rotations, disc.frequencies, observed.coefficients),
            "normal equations": lambda f=solve, t=templates: f(t, observed, rotations, shifts),
        }
        rates |= {f"{task}, {name}": rate(count, call) for task, call in tasks.items()}
    table = np.zeros((spectrum.numel() // 16, 16), np.float32)
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
