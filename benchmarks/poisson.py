"""Does the noise model matter? Counted electrons against Gaussian noise, by the dose.

    python benchmarks/poisson.py --out docs/runs/poisson.json

Images with Poisson noise stand for the particles; the classifier of theorem1.py is asked to tell them from images of
the same molecule that are simulated with Poisson noise, and with white Gaussian noise of the same background.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import numpy as np
import torch

import theorem1
from cryogan.physics.noise import Noise, PoissonNoise, WhiteNoise

DOSES = (1.0, 2.0, 5.0, 20.0, 50.0)  # electrons per square A


@torch.no_grad()
def images(volume: torch.Tensor, noise: Noise, generator: torch.Generator) -> torch.Tensor:
    simulate = theorem1.simulator(generator, preferred=False)
    simulate.noise = noise
    result: torch.Tensor = simulate(simulate.projector.transform(volume), simulate.sample(theorem1.IMAGES))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for dose in DOSES:
        electrons = dose * theorem1.PIXEL**2
        counted: Noise = PoissonNoise(electrons, theorem1.BOX)
        cells: list[object] = []
        for model in (counted, WhiteNoise(theorem1.BOX)):
            tests = []
            for seed in a.seeds:
                generator = torch.Generator().manual_seed(seed)
                molecule = theorem1.Molecule.random(generator)
                volume = molecule.volume() * theorem1.scale(molecule)
                both = (images(volume, noise, generator) for noise in (counted, model))
                tests.append(theorem1.two_sample_test(*both, np.random.default_rng(seed)))
            cells += [round(median(value for value, _ in tests), 4)]
            cells += [f"{sum(p < theorem1.LEVEL for _, p in tests)} of {len(tests)}"]
        rows.append({"dose": dose, "electrons": electrons, "cells": cells})
        print(rows[-1], flush=True)
    record = {"seeds": a.seeds, "pixel_size": theorem1.PIXEL, "snr": theorem1.SNR, "doses": rows}
    a.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
