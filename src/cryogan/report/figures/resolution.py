"""Pictures of resolution: by place in the map, by direction, and by number of particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryogan.report.figures.style import (
    CURVE_STYLES,
    DPI,
    INK,
    Array,
    check_length,
    frequency_axis,
    grey_range,
    open_frame,
    require_content,
    save,
    show_image,
)

COLOURS = "viridis_r"  # fine: bright


def plot_local_resolution(path: str | Path, density: Array, local_A: Array, inside: NDArray[np.bool_]) -> None:
    """Plot central slices of a map, coloured by local resolution inside the molecule, and its histogram.

    Args:
        path: PNG to write.
        density: (D, D, D) map in z, y, x order.
        local_A: (D, D, D) local resolution, A.
        inside: (D, D, D) bool, voxels of the molecule.

    Raises:
        InputError: no voxel is inside.
    """
    require_content("a figure of local resolution", local_A[inside].tolist())
    low, high = (float(value) for value in np.percentile(local_A[inside], (5, 95)))
    high = max(high, low * 1.02)
    figure = Figure(figsize=(9.6, 3.8), dpi=DPI, layout="constrained")
    *slices, histogram = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.3))
    black, white = grey_range(density)
    for axis, axes in enumerate(slices):
        middle = len(density) // 2
        grey, values, shown = (np.take(volume, middle, axis=axis) for volume in (density, local_A, inside))
        show_image(axes, grey, black, white)
        coloured = np.ma.masked_array(values, ~shown)
        image = axes.imshow(coloured, cmap=COLOURS, vmin=low, vmax=high, alpha=0.75, origin="lower")
        axes.set_title(f"Slice across {'zyx'[axis]}", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=slices, label="local resolution (Å)", orientation="horizontal", shrink=0.6, pad=0.02)
    histogram.hist(local_A[inside].clip(low, high), bins=40, color=CURVE_STYLES[0][0])
    histogram.set(xlabel="local resolution (Å)", ylabel="voxels of the molecule")
    open_frame(histogram)
    save(figure, path)


def plot_directions(
    path: str | Path,
    directions: Array,
    resolution_A: Array,
    frequency_1_per_A: Array,
    curves: Array,
    pixel_size_A: float,
) -> None:
    """Plot the resolution by direction on the half sphere, and the range of the FSC curves of all directions.

    The half sphere is drawn by Lambert's equal-area projection, seen along z, with x to the right and y up.

    Args:
        path: PNG to write.
        directions: (N, 3) unit vectors x, y, z with z > 0; each stands for those nearest to it.
        resolution_A: (N,) A.
        frequency_1_per_A: (n,) shell frequencies, 1/A.
        curves: (N, n) FSC in the cone about each direction.
        pixel_size_A: voxel size, A; the axis ends at Nyquist.

    Raises:
        InputError: the curves differ in length from the frequencies.
    """
    check_length("of a cone", curves[0], frequency_1_per_A)
    figure = Figure(figsize=(9.6, 4.2), dpi=DPI, layout="constrained")
    disc, panel = figure.subplots(1, 2, width_ratios=(1, 1.3))
    _draw_half_sphere(figure, disc, directions, resolution_A)
    low, middle, high = np.percentile(curves, (5, 50, 95), axis=0)
    colour = CURVE_STYLES[0][0]
    panel.fill_between(frequency_1_per_A, low, high, color=colour, alpha=0.25, linewidth=0, label="90 % of directions")
    panel.plot(frequency_1_per_A, middle, color=colour, linewidth=1.8, label="median")
    panel.axhline(0.143, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    panel.axhline(0, color=INK, linewidth=0.6, zorder=0)
    panel.set_ylim(max(-1.02, min(-0.06, float(low.min()) - 0.03)), 1.03)
    panel.set_ylabel("FSC in cones")
    frequency_axis(panel, 0.5 / pixel_size_A)
    panel.legend(loc="best", framealpha=0.9, edgecolor="none")
    save(figure, path)


def _draw_half_sphere(figure: Figure, axes: Axes, directions: Array, values_A: Array) -> None:
    line = np.linspace(-np.sqrt(2), np.sqrt(2), 240)
    x, y = np.meshgrid(line, line)
    squared = x**2 + y**2
    scale = np.sqrt(np.clip(1 - squared / 4, 0, None))  # of Lambert's projection
    shown = np.stack([x * scale, y * scale, 1 - squared / 2], axis=-1)
    nearest = np.abs(shown @ directions.T).argmax(axis=-1)
    picture = np.ma.masked_array(values_A[nearest], squared > 2)
    low, high = float(values_A.min()), max(float(values_A.max()), 1.02 * float(values_A.min()))
    extent = (line[0], line[-1], line[0], line[-1])
    image = axes.imshow(picture, cmap=COLOURS, vmin=low, vmax=high, origin="lower", extent=extent)
    figure.colorbar(image, ax=axes, label="resolution (Å)", shrink=0.8)
    for right, up, name in ((1.5, 0.0, "x"), (0.0, 1.5, "y"), (0.0, 0.0, "z")):
        axes.text(right, up, name, ha="center", va="center", fontsize=9, color=INK)
    axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), title="Resolution by direction")
    axes.set_axis_off()


def plot_reslog(
    path: str | Path, particles: Array, resolution_A: Array, usable: NDArray[np.bool_], line: tuple[float, float] | None
) -> None:
    """Plot resolution, as 1/A, against the number of particles on a logarithmic scale.

    Args:
        path: PNG to write.
        particles: (n,) number of particles in both halves.
        resolution_A: (n,) A.
        usable: (n,) bool, points that the line is fitted to.
        line: slope and value at 0 of 1/A over log2 of the number; None: there is no line.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    if line is not None:
        numbers = np.array([particles.min(), 2 * particles.max()])
        axes.plot(numbers, line[0] * np.log2(numbers) + line[1], color=CURVE_STYLES[1][0], linestyle="--", label="fit")
    for chosen, face, label in ((usable, CURVE_STYLES[0][0], "measured"), (~usable, "none", "not used for the line")):
        if chosen.any():
            axes.plot(particles[chosen], 1 / resolution_A[chosen], "o", color=CURVE_STYLES[0][0], mfc=face, label=label)
    axes.set_xscale("log", base=2)
    ticks = [*particles.tolist(), 2 * float(particles.max())]
    axes.set_xticks(ticks, [f"{number:.0f}" for number in ticks])
    axes.set(xlabel="particles", ylabel="1 / resolution (1/Å), FSC 0.143 of the half maps")
    beside = axes.secondary_yaxis("right", functions=(lambda f: f, lambda f: f))
    heights = [height for height in axes.get_yticks() if height > 0]
    beside.set_yticks(heights, [f"{1 / height:.1f}" for height in heights])
    beside.set_ylabel("resolution (Å)")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none")
    save(figure, path)
