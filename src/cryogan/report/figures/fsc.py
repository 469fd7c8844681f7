"""Curves over spatial frequency: Fourier shell correlations and power spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryogan.report.figures.style import (
    DPI,
    INK,
    Array,
    check_length,
    cycled,
    figure_with_axes,
    frequency_axis,
    require_content,
    save,
)


def plot_fsc(path: str | Path, frequency_1_per_A: Array, curves: Mapping[str, Array], pixel_size_A: float) -> None:
    """Plot Fourier shell correlation curves over the frequency up to Nyquist, with lines at 0.143 and 0.5.

    Args:
        path: PNG to write.
        frequency_1_per_A: (n,) shell frequencies, 1/A.
        curves: correlation of each shell, (n,), by its legend text, which may hold the resolution.
        pixel_size_A: voxel size, A; the axis ends at Nyquist.

    Raises:
        InputError: there is no curve, or one differs in length from the frequencies.
    """
    require_content("an FSC figure", curves)
    figure, axes = figure_with_axes(6.4, 4.2)
    for (label, curve), (colour, dash) in zip(curves.items(), cycled(len(curves)), strict=True):
        check_length(label, curve, frequency_1_per_A)
        axes.plot(frequency_1_per_A, curve, color=colour, linestyle=dash, linewidth=1.8, label=label)
    _finish_fsc(axes, 0.5 / pixel_size_A, min(float(np.nanmin(c)) for c in curves.values()))
    axes.set_title("Agreement of the maps, shell by shell", loc="left")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none")
    save(figure, path)


def plot_fsc_over_time(path: str | Path, frequency_1_per_A: Array, curves: Sequence[tuple[str, Array]]) -> None:
    """Plot Fourier shell correlation curves from early (light) to late (dark), as in Figures 2d and 3d.

    Args:
        path: PNG to write.
        frequency_1_per_A: (n,) shell frequencies, 1/A, the last one at Nyquist.
        curves: (label, (n,) correlations) in the order of time; the label says the time.

    Raises:
        InputError: there is no curve, or one differs in length from the frequencies.
    """
    require_content("an FSC figure", curves)
    figure, axes = figure_with_axes(7.2, 4.2)
    for (label, curve), shade in zip(curves, np.linspace(0.85, 0.0, len(curves)), strict=True):
        check_length(label, curve, frequency_1_per_A)
        width = 2.4 if label == curves[-1][0] else 1.5
        axes.plot(frequency_1_per_A, curve, color=colormaps["viridis"](shade), linewidth=width, label=label)
    _finish_fsc(axes, float(frequency_1_per_A[-1]), min(float(np.nanmin(curve)) for _, curve in curves))
    axes.set_title("Agreement of the half-maps as training goes on", loc="left")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.05, 0.5))
    save(figure, path)


def plot_held_out(
    path: str | Path,
    frequency_1_per_A: Array,
    evidence: Mapping[str, Array],
    threshold: float,
    half_map_fsc: Array,
    pixel_size_A: float,
) -> None:
    """Plot how well held-out particles agree with a map, shell by shell, above the FSC of its half maps.

    Args:
        path: PNG to write.
        frequency_1_per_A: (n,) shell frequencies, 1/A.
        evidence: agreement in standard deviations of its null distribution, (n,) with NaN where it was not tested, by
            its legend text.
        threshold: from which on a shell is supported, standard deviations.
        half_map_fsc: (n,) FSC of the half maps.
        pixel_size_A: voxel size, A; the axis ends at Nyquist.

    Raises:
        InputError: there is no evidence, or a curve differs in length from the frequencies.
    """
    require_content("a figure of held-out evidence", evidence)
    figure = Figure(figsize=(6.4, 6.4), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1)
    for (label, z), (colour, dash) in zip(evidence.items(), cycled(len(evidence)), strict=True):
        check_length(label, z, frequency_1_per_A)
        above.plot(
            frequency_1_per_A, z, color=colour, linestyle=dash, linewidth=1.8, marker="o", markersize=3, label=label
        )
    above.axhline(threshold, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    above.axhline(0, color=INK, linewidth=0.6, zorder=0)
    above.set_yscale("symlog", linthresh=threshold)
    above.set_ylabel("Held-out agreement (standard deviations)")
    frequency_axis(above, 0.5 / pixel_size_A)
    above.set_title("Particles that had no part in the map", loc="left")
    above.legend(loc="best", framealpha=0.9, edgecolor="none")
    check_length("half maps", half_map_fsc, frequency_1_per_A)
    below.plot(frequency_1_per_A, half_map_fsc, color=INK, linewidth=1.8)
    _finish_fsc(below, 0.5 / pixel_size_A, float(np.nanmin(half_map_fsc)))
    below.set_title("Agreement of the half maps", loc="left")
    save(figure, path)


def plot_power_spectra(path: str | Path, frequency_1_per_A: Array, real: Array, simulated: Array) -> None:
    """Plot mean radial power spectra of real and simulated images on a logarithmic scale.

    Args:
        path: PNG to write.
        frequency_1_per_A: (n,) shell frequencies, 1/A; the first, zero, is not drawn.
        real: (n,) power of the particles.
        simulated: (n,) power of the simulated images.

    Raises:
        InputError: a spectrum differs in length from the frequencies.
    """
    figure, axes = figure_with_axes(6.4, 4.2)
    spectra = (("Particles (real)", real), ("Simulated", simulated))
    for (label, power), (colour, dash) in zip(spectra, cycled(2), strict=True):
        check_length(label, power, frequency_1_per_A)
        axes.plot(frequency_1_per_A[1:], power[1:], color=colour, linestyle=dash, linewidth=1.8, label=label)
    axes.set_yscale("log")
    axes.set_ylabel("Power per pixel (image units squared)")
    frequency_axis(axes, float(frequency_1_per_A[-1]))
    axes.set_title("Power of real and simulated images", loc="left")
    axes.legend(frameon=False)
    save(figure, path)


def _finish_fsc(axes: Axes, nyquist: float, lowest: float) -> None:
    for level in (0.5, 0.143):
        axes.axhline(level, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        beside = axes.get_yaxis_transform()
        axes.text(1.01, level, f"{level:g}", transform=beside, color="0.35", fontsize=8, va="center")
    axes.axhline(0, color=INK, linewidth=0.6, zorder=0)
    axes.set_ylim(max(-1.02, min(-0.06, lowest - 0.03)), 1.03)
    axes.set_ylabel("Fourier shell correlation")
    frequency_axis(axes, nyquist)
