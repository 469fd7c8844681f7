"""Runs on a real set beside a reference, which no run has read: FSC, verdicts, and a picture.

    python benchmarks/real.py REFERENCE RUN [RUN ...] --out docs/runs/real/NAME.json [--picture PNG]

Both radial averages are removed before the FSC: a hollow ball without any detail agrees with a hollow molecule.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from cryogan.particles import read_volume
from cryogan.run.folder import RunFolder
from cryogan.run.plan import Plan
from cryogan.run.verdict import read_verdict
from cryogan.validation import align, fsc, radial_average, resample


def compare(run: Path, reference: NDArray[np.float32], pixel_size: float) -> tuple[dict[str, object], NDArray]:
    """Return what a run says beside its FSC with the reference, and its map in the reference's frame."""
    folder = RunFolder(run)
    density, pixel = read_volume(folder.map)
    if len(density) != len(reference) or abs(pixel - pixel_size) > 1e-3 * pixel_size:
        density = resample(density, pixel, len(reference), pixel_size)
    density = align(density, reference, pixel_size).apply(density, pixel_size)
    curve = fsc(density - radial_average(density), reference - radial_average(reference))
    verdict, plan = read_verdict(folder), Plan.read(run)
    assert verdict is not None
    return {
        "seed": plan.settings.seed,
        "symmetry": plan.settings.symmetry,
        "trials": [plan.is_trial(index) for index in range(len(plan.stages))].count(True),
        "steps_of_a_trial": plan.stages[0].steps,
        "verdict": verdict.finding.code,
        "verdict_A": verdict.resolution,
        "held_out_A": verdict.evidence.held_out.resolution,
        "half_maps_A": verdict.evidence.half_map_resolution,
        "fsc_without_radial_averages": [round(float(value), 4) for value in curve],
        "width_A": len(reference) * pixel_size,
    }, density


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    reference, pixel_size = read_volume(arguments.reference)
    rows, maps = zip(*(compare(run, reference, pixel_size) for run in arguments.runs), strict=True)
    for row in rows:
        width, curve = row["width_A"], row["fsc_without_radial_averages"]
        shells = " ".join(f"{width / k:.1f} A: {curve[k]:.2f}," for k in range(5, len(curve)))
        print(row["seed"], row["verdict"], row["verdict_A"], "half maps", row["half_maps_A"], "|", shells)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.picture:
        titles = [f"seed {row['seed']}" for row in rows]
        draw(dict(zip(titles, maps, strict=True)) | {"reference": reference}, arguments.picture)


def draw(maps: dict[str, NDArray], picture: Path) -> None:
    """Draw the central slice of each map, and its projection."""
    figure, axes = plt.subplots(2, len(maps), figsize=(1.7 * len(maps), 3.6), layout="constrained")
    for (title, density), column in zip(maps.items(), axes.T, strict=True):
        for ax, image in zip(column, (density[len(density) // 2], density.sum(0)), strict=True):
            ax.imshow(image, cmap="gray", vmin=np.quantile(image, 0.02))
            ax.set_axis_off()
        column[0].set_title(title, fontsize=9)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
