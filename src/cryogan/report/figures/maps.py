"""Pictures of maps: shaded surfaces and slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryogan.grids import centred_axis, fit_spectrum, frequency_axis
from cryogan.report.figures.style import (
    Array,
    grey_range,
    image_grid,
    label_rows,
    require_content,
    save,
    show_image,
)

SURFACE_BOX = 192  # voxels, to which small maps are refined for a picture of their surface


def plot_volume_over_time(path: str | Path, volumes: Sequence[tuple[str, Array]]) -> None:
    """Plot the map at several times: a shaded surface above its three central slices, as in Figure 2a.

    All surfaces are seen along the axis in which the last map is thinnest, so that they show its widest face.
    Each snapshot has its own surface level and grey scale, since the first maps are faint.

    Args:
        path: PNG to write.
        volumes: (label, (D, D, D) map in z, y, x order, protein bright) in the order of time.

    Raises:
        InputError: there is no volume.
    """
    require_content("a figure of the map over time", volumes)
    view = _thinnest_axis(volumes[-1][1])
    rows = (f"Surface\nseen along {'zyx'[view]}", "Slice\nacross z", "Slice\nacross y", "Slice\nacross x")
    figure, grid = image_grid(len(rows), len(volumes), "The map as training goes on", top=0.62)
    for column, (label, volume) in enumerate(volumes):
        if np.ptp(volume) > 0:
            show_image(grid[0][column], shaded_surface(volume, view), 0.0, 1.0)
        else:
            grid[0][column].text(0.5, 0.5, "empty", ha="center", va="center", color="0.4")
        low, high = grey_range(volume)
        for axis in range(3):
            central = np.take(volume, volume.shape[axis] // 2, axis=axis)
            show_image(grid[axis + 1][column], central, low, high)
        grid[0][column].set_title(label, fontsize=10)
    label_rows(grid, rows)
    save(figure, path)


def _thinnest_axis(volume: Array) -> int:
    weight = np.maximum(volume - _surface_level(volume), 0)
    offset = centred_axis(len(volume))
    others = ((1, 2), (0, 2), (0, 1))
    return int(np.argmin([(offset**2 * weight.sum(axis=axes)).sum() for axes in others]))


def _surface_level(volume: Array) -> float:
    """Half-way between the background and the density of the brightest hundredth: no fit, no absolute units."""
    background, bright = np.percentile(volume, (50, 99))
    return float(background + 0.5 * (bright - background))


def shaded_surface(volume: Array, axis: int) -> Array:
    """Draw a map's surface, seen along an axis, in grey from 0 to 1: the first voxel of each ray above a level.

    The map is smoothed to three pixels' resolution, and sampled finer if its box is small; brightness is the cosine
    between the surface normal and a lamp beside the viewer (Lambert), dimmed with depth. The background is white.

    The viewer looks down the axis such that the picture's right and up are the first and second of x, y, z that
    are left: from the side that keeps the map's hand, which is +z, -y or +x.
    """
    along_ray = np.moveaxis(volume, axis, 0)
    fine = _smooth_and_refine(along_ray if axis == 1 else along_ray[::-1], max(1, SURFACE_BOX // len(volume)))
    level = _surface_level(fine)
    inside = fine > level
    hit = inside.any(axis=0)
    first = np.clip(inside.argmax(axis=0), 1, len(fine) - 2)
    y, x = np.indices(hit.shape)
    front, behind = fine[first, y, x], fine[first - 1, y, x]
    depth = first - (front - level) / np.maximum(front - behind, 1e-12)
    wrap = hit.shape[0]
    # The surface faces down the gradient; differences over two steps, wrapped at the empty border.
    normal = -np.stack(
        [
            fine[first + 1, y, x] - behind,
            fine[first, (y + 1) % wrap, x] - fine[first, y - 1, x],
            fine[first, y, (x + 1) % wrap] - fine[first, y, x - 1],
        ]
    )
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-12)
    lamp = np.array([-0.75, 0.5, -0.43])
    light = np.maximum(np.tensordot(lamp, normal, axes=1), 0)
    nearest, farthest = depth[hit].min(), depth[hit].max()
    nearness = 1 - (depth - nearest) / max(farthest - nearest, 1.0)
    picture: Array = np.where(hit, (0.12 + 0.8 * light) * (0.45 + 0.55 * nearness), 1.0)
    return picture


def _smooth_and_refine(volume: Array, factor: int) -> NDArray[np.float64]:
    """Gaussian low-pass to three pixels, then Fourier interpolation by a whole factor."""
    box = len(volume)
    gain = np.exp(-0.5 * (frequency_axis(box, 1.0) / 0.22) ** 2)
    spectrum = fft.rfftn(volume.astype(np.float64)) * gain[:, None, None] * gain[:, None] * gain[: box // 2 + 1]
    padded = fit_spectrum(spectrum, factor * box, axes=3)
    return fft.irfftn(padded, s=(factor * box,) * 3, axes=(0, 1, 2)) * factor**3
