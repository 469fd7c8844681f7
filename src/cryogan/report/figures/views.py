"""Pictures of view directions, on a map of the sphere in which equal areas are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryogan.report.figures.style import (
    Array,
    figure_with_axes,
    save,
)


def plot_view_distribution(path: str | Path, rot_degrees: Array, tilt_degrees: Array) -> None:
    """Plot the number of particles for each view direction.

    Args:
        path: PNG to write.
        rot_degrees: (N,) first of RELION's Euler angles.
        tilt_degrees: (N,) second of RELION's Euler angles.
    """
    figure, axes = figure_with_axes(6.4, 3.4)
    rot = (np.asarray(rot_degrees) + 180) % 360 - 180
    counts, _, _ = np.histogram2d(np.cos(np.radians(tilt_degrees)), rot, bins=(18, 36), range=((-1, 1), (-180, 180)))
    image = axes.imshow(counts, origin="lower", extent=(-180, 180, -1, 1), aspect="auto", cmap="cividis", vmin=0)
    figure.colorbar(image, ax=axes, label="particles")
    axes.set(xlabel="rot (degrees)", ylabel="cos(tilt)", title="View directions")
    save(figure, path)


def plot_view_density(path: str | Path, rot_degrees: Array, tilt_degrees: Array, density: Array) -> None:
    """Plot a density over view directions, on the map of `plot_view_distribution`.

    Args:
        path: PNG to write.
        rot_degrees: (N,) first Euler angle of directions that are spread evenly.
        tilt_degrees: (N,) second Euler angle; each direction stands for those nearest to it.
        density: (N,) relative to that of uniform views.
    """
    figure, axes = figure_with_axes(6.4, 3.4)
    height, rot = np.meshgrid(np.linspace(-0.99, 0.99, 100), np.linspace(-179, 179, 180), indexing="ij")
    shown, given = (
        np.stack([np.sqrt(1 - z**2) * np.cos(azimuth), np.sqrt(1 - z**2) * np.sin(azimuth), z], axis=-1)
        for z, azimuth in (
            (height, np.radians(rot)),
            (np.cos(np.radians(tilt_degrees)), np.radians(rot_degrees)),
        )
    )
    values = np.asarray(density)[(shown @ given.T).argmax(-1)]
    image = axes.imshow(values, origin="lower", extent=(-180, 180, -1, 1), aspect="auto", cmap="cividis", vmin=0)
    figure.colorbar(image, ax=axes, label="density, over that of uniform views")
    axes.set(xlabel="rot (degrees)", ylabel="cos(tilt)", title="Density of view directions")
    save(figure, path)
