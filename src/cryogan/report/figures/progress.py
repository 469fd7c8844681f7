"""Plots of the course of training, and of one number per particle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cryogan.report.figures.style import (
    CURVE_STYLES,
    DPI,
    INK,
    Array,
    figure_with_axes,
    open_frame,
    require_content,
    save,
)

_PROGRESS_TITLES = {
    "critic_gap": "Critic's score: real minus simulated",
    "signal_scale": "Scale of the signal",
    "noise_scale": "Scale of the noise",
    "map_change": "Relative change of the map",
}


def plot_progress(path: str | Path, records: Sequence[Mapping[str, float]]) -> None:
    """Plot the course of training over the minutes: one small panel for each quantity that occurs.

    Args:
        path: PNG to write.
        records: dictionaries with "minutes" and any of "critic_gap", "signal_scale", "noise_scale", "map_change"; a
            record may leave out quantities that were not measured then.

    Raises:
        InputError: no record holds any of these quantities.
    """
    keys = [key for key in _PROGRESS_TITLES if any(key in record for record in records)]
    require_content("a progress figure", keys)
    columns = min(2, len(keys))
    lines = -(-len(keys) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.3 * lines + 0.2), dpi=DPI, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    panels = [axes for row in grid for axes in row]
    for axes, key in zip(panels, keys, strict=False):
        points = [(record["minutes"], record[key]) for record in records if key in record]
        axes.plot(*zip(*points, strict=True), color=CURVE_STYLES[0][0], linewidth=1.5)
        axes.set_title(_PROGRESS_TITLES[key], loc="left", fontsize=10)
        axes.grid(color="0.9")
        open_frame(axes)
    if keys[0] == "critic_gap":
        panels[0].axhline(0, color=INK, linewidth=0.8)
    for unused in panels[len(keys) :]:
        unused.set_visible(False)
    figure.supxlabel("Time (minutes)", fontsize=10)
    save(figure, path)


def plot_histogram(path: str | Path, values: Array, title: str, label: str) -> None:
    """Plot a histogram of one number per particle; `label` is that of its axis."""
    figure, axes = figure_with_axes(6.4, 3.4)
    axes.hist(values, bins=60, color="#0072B2")
    axes.set(xlabel=label, ylabel="particles", title=title)
    save(figure, path)
