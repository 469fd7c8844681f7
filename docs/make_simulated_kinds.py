"""Draw docs/images/simulated_kinds.png: what each disturbance of `cryogan simulate` does to an image.

One pose of a phantom in all columns, without noise (above) and at an SNR of 1.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from cryogan.models.phantom import phantom
from cryogan.particles import open_stack
from cryogan.simulation import simulate
from cryogan.simulation.disturbances import Disturbances

PICTURE = Path(__file__).parent / "images" / "simulated_kinds.png"
BOX, MOLECULE, PIXEL, SHOWN = 80, 64, 3.0, 2
NOISES = ("none", "coloured")

COLUMNS: dict[str, dict[str, float]] = {
    "particle": {},
    "empty": {"junk_empty": 1},
    "contaminant": {"junk_contaminant": 1},
    "broken": {"junk_broken": 1},
    "aggregate": {"junk_aggregate": 1},
    "neighbour": {"neighbours": 1},
    "miscentring 30 Å": {"miscentring": 30},
    "ice gradient 2": {"ice_gradient": 2},
    "belt 0.6": {"belt": 0.6},
}


def image(disturbances: dict[str, float], noise: str) -> np.ndarray:
    """One image of the phantom."""
    volume = np.pad(phantom(MOLECULE, PIXEL, 4), (BOX - MOLECULE) // 2)
    with TemporaryDirectory() as folder:
        given = Disturbances(**disturbances | ({"ice_gradient": 0} if noise == "none" else {}))  # relative to noise
        simulate(volume, PIXEL, Path(folder) / "set", count=10, snr=1.0, noise=noise, seed=3, disturbances=given)
        return np.array(open_stack(Path(folder) / "set" / "particles.mrcs")[SHOWN], dtype=float)


def main() -> None:
    """Draw the picture."""
    figure, axes = plt.subplots(2, len(COLUMNS), figsize=(1.25 * len(COLUMNS), 2.8), layout="constrained")
    for row, noise in zip(axes, NOISES, strict=True):
        low, high = np.percentile(image({}, noise), (0.2, 99.9))
        for axis, (name, disturbances) in zip(row, COLUMNS.items(), strict=True):
            axis.imshow(image(disturbances, noise), cmap="gray", vmin=low, vmax=high)
            axis.set(xticks=[], yticks=[])
            axis.set_title(name if noise == "none" else "", fontsize=8)
    with TemporaryDirectory() as folder:
        figure.savefig(Path(folder) / "colour.png", dpi=110)
        Image.open(Path(folder) / "colour.png").convert("L").save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
