"""What the figures share: colours, axes, grids of images, and a file that appears complete or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.files import replacing

Array = NDArray[np.floating]

DPI = 130
INK = "#222222"
# Okabe and Ito's colours, dark and light in turn, each with its own dash.
CURVE_STYLES: tuple[tuple[str, LineStyleType], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#000000", "-."),
    ("#56B4E9", "-"),
    ("#009E73", (0, (1, 1))),
    ("#E69F00", (0, (5, 1, 1, 1))),
)
_RESOLUTIONS_A = (100, 50, 40, 30, 25, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3.5, 3, 2.5, 2, 1.5, 1)


def require_content(what: str, content: Sequence[object] | Mapping[str, object]) -> None:
    """Refuse a figure that would be empty.

    Raises:
        InputError: there is no entry; the sentence names the figure `what`.
    """
    if len(content) == 0:
        raise InputError(f"There is nothing to draw for {what}. Give at least one entry.")


def check_length(label: str, curve: Array, frequency: Array) -> None:
    """Refuse a curve that has not one value for each frequency.

    Raises:
        InputError: the lengths differ.
    """
    if curve.shape != frequency.shape:
        raise InputError(
            f"The curve '{label}' has {curve.size} values for {frequency.size} frequencies. Give one value for each."
        )


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG; an older file is replaced at once, when the new one is complete."""
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def cycled(count: int) -> list[tuple[str, LineStyleType]]:
    """List colour and dash of each of several curves."""
    return [CURVE_STYLES[i % len(CURVE_STYLES)] for i in range(count)]


def figure_with_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure of this size, inches, with one panel."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.add_subplot()


def open_frame(axes: Axes) -> None:
    """Leave out the right and upper edge of a panel."""
    axes.spines[["right"]].set_visible(False)
    axes.spines[["top"]].set_visible(False)


def frequency_axis(axes: Axes, nyquist: float) -> None:
    """Label a panel with the frequency in 1/A below and the resolution in A above, up to Nyquist (1/A)."""
    axes.set_xlim(0, nyquist)
    axes.set_xlabel("Spatial frequency (1/Å)")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    resolution = axes.secondary_xaxis("top")
    ticks: list[float] = []
    for angstrom in _RESOLUTIONS_A:  # as many as fit without touching
        if 1 / angstrom <= nyquist * 1.001 and 1 / angstrom - (ticks[-1] if ticks else 0) > 0.07 * nyquist:
            ticks.append(1 / angstrom)
    resolution.xaxis.set_major_locator(FixedLocator(ticks))
    resolution.xaxis.set_minor_locator(NullLocator())
    resolution.xaxis.set_major_formatter(FuncFormatter(lambda f, _: f"{1 / f:.3g}"))
    resolution.set_xlabel("Resolution (Å)")
    axes.spines[["right"]].set_visible(False)


def image_grid(
    rows: int, columns: int, title: str, *, top: float = 0.4, right: float = 0.05
) -> tuple[Figure, list[list[Axes]]]:
    """Make a grid of square panels without frames, with `top` and `right` inches for text above and beside them."""
    side, left, gap = 1.35, 0.95, 0.05
    width = max(left + columns * (side + gap) + right, 4.4)
    height = top + rows * (side + gap)
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.text(0.1 / width, 1 - 0.1 / height, title, fontsize=12, va="top", color=INK)
    grid: list[list[Axes]] = []
    for row in range(rows):
        grid.append([])
        for column in range(columns):
            x, y = left + column * (side + gap), height - top - row * (side + gap) - side
            axes = figure.add_axes((x / width, y / height, side / width, side / height))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            grid[-1].append(axes)
    return figure, grid


def label_rows(grid: list[list[Axes]], labels: Sequence[str]) -> None:
    """Write a label beside each row of a grid."""
    for row, label in zip(grid, labels, strict=True):
        row[0].set_ylabel(label, fontsize=9, rotation=0, ha="right", va="center", labelpad=6, color=INK)


def show_image(axes: Axes, image: Array, low: float, high: float) -> None:
    """Show an image (D, D) in grey, its first row at the bottom: y grows upwards, as in the poses' coordinates."""
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest")


def grey_range(images: Array) -> tuple[float, float]:
    """Find the values to draw black and white, which leave out the most extreme 0.2 % at either end."""
    low, high = (float(v) for v in np.percentile(images.astype(np.float64), (0.2, 99.8)))
    return (low, high) if high > low else (low - 1, low + 1)
