"""Maps of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cryogan.report.figures.style import DPI, INK, Array, grey_range, require_content, save, show_image

_SIDE = 1.35  # inches, of a slice or of a square of the matrix
_DARK = 0.6  # correlation from which on black would not be read


def plot_comparison(path: str | Path, labels: Sequence[str], correlation: Array, volumes: Sequence[Array]) -> None:
    """Plot how several maps correlate, and the three central slices of each.

    Args:
        path: PNG to write.
        labels: name of each of N maps.
        correlation: (N, N).
        volumes: N maps (D, D, D) in one frame; each has its own grey scale.

    Raises:
        InputError: there is no map.
    """
    require_content("a comparison of maps", volumes)
    count = len(volumes)
    figure = Figure(figsize=(_SIDE * (2 * count + 2), _SIDE * (max(count, 3) + 1)), dpi=DPI, layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(count + 1, count)).flat
    axes = left.subplots()
    axes.imshow(correlation, vmin=0, vmax=1, cmap="Blues")
    for (row, column), value in np.ndenumerate(correlation):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > _DARK else INK)
    axes.set_xticks(range(count), labels, rotation=30, ha="right")
    axes.set_yticks(range(count), labels)
    axes.set_title("Correlation of the aligned maps", fontsize=10, color=INK)
    grid = right.subplots(3, count, squeeze=False)
    for column, (label, volume) in enumerate(zip(labels, volumes, strict=True)):
        low, high = grey_range(volume)
        for axis in range(3):
            panel = grid[axis][column]
            show_image(panel, np.take(volume, volume.shape[axis] // 2, axis=axis), low, high)
            panel.set_xticks([])
            panel.set_yticks([])
            if column == 0:
                panel.set_ylabel(f"Slice across {'zyx'[axis]}", fontsize=9, color=INK)
        grid[0][column].set_title(label, fontsize=9)
    save(figure, path)
