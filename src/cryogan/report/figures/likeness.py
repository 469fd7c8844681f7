"""What tells real from simulated images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryogan.report.figures.style import CURVE_STYLES, DPI, Array, check_length, frequency_axis, save


def plot_likeness(path: str | Path, frequency_1_per_A: Array, pixel_size_A: float, likeness: Mapping[str, Any]) -> None:
    """Plot power by shell, variance and mean by distance of real and simulated images, and what tells them apart.

    Args:
        path: PNG to write.
        frequency_1_per_A: (n,) frequency of each shell, 1/A.
        pixel_size_A: pixel size, A; the axis of frequencies ends at Nyquist.
        likeness: fields of `cryogan.run.likeness.Likeness`.

    Raises:
        InputError: the power has not one value for each frequency.
    """
    figure = Figure(figsize=(9.6, 6.4), dpi=DPI, layout="constrained")
    (above, beside), (below, last) = figure.subplots(2, 2)
    check_length("power", np.asarray(likeness["power"]), frequency_1_per_A)
    _with_error(above, frequency_1_per_A, likeness, "power", 1.0)
    frequency_axis(above, 0.5 / pixel_size_A)
    above.set_title("Power, real over simulated", loc="left")
    rings = len(likeness["variance"])
    distance = (np.arange(rings) + 0.5) * 0.5 / rings  # of the box
    for axes, name, level, title in (
        (beside, "variance", 1.0, "Variance, real over simulated"),
        (below, "mean", 0.0, "Mean, real less simulated (s.d. of noise)"),
    ):
        _with_error(axes, distance, likeness, name, level)
        axes.set_xlabel("Distance from the centre (widths of the box)")
        axes.set_title(title, loc="left")
    areas = likeness["auc"]
    last.barh(list(areas)[::-1], list(areas.values())[::-1], color=CURVE_STYLES[0][0])
    last.axvspan(0.5 - 3 * likeness["auc_deviation"], 0.5 + 3 * likeness["auc_deviation"], color="0.85", zorder=0)
    last.set_xlim(0.3, 1.0)
    last.set_xlabel("AUC on images never seen; 0.5 is alike")
    last.set_title("What a linear critic tells them apart by", loc="left")
    save(figure, path)


def _with_error(axes: Axes, x: Array, likeness: Mapping[str, Any], name: str, level: float) -> None:
    axes.errorbar(
        x, likeness[name], 3 * np.asarray(likeness[f"{name}_deviation"]), color=CURVE_STYLES[0][0], linewidth=1.5
    )
    axes.axhline(level, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
