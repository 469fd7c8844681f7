"""Pictures of particle images, projections and micrographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from cryogan.report.figures.style import (
    Array,
    figure_with_axes,
    grey_range,
    image_grid,
    label_rows,
    require_content,
    save,
    show_image,
)


def plot_projections_over_time(path: str | Path, rows: Sequence[tuple[str, Array]]) -> None:
    """Plot clean projections at several times, one row each, the same poses in each row, as in Figure 2b.

    Args:
        path: PNG to write.
        rows: (label, (n, D, D) images) in the order of time; each row has its own grey scale.

    Raises:
        InputError: there is no row.
    """
    require_content("a figure of projections", rows)
    count = min(len(images) for _, images in rows)
    figure, grid = image_grid(len(rows), count, "Clean projections as training goes on")
    for row, (_, images) in zip(grid, rows, strict=True):
        low, high = grey_range(images[:count])
        for axes, image in zip(row, images, strict=False):
            show_image(axes, image, low, high)
    label_rows(grid, [label for label, _ in rows])
    save(figure, path)


def plot_gallery(path: str | Path, clean: Array, ctf: Array, simulated: Array, real: Array) -> None:
    """Plot what the critic compares: simulated images as they are built up, and real particles, as in Figure 2c.

    Args:
        path: PNG to write.
        clean: (n, D, D) projections before CTF and noise.
        ctf: (n, D, D) these projections after the CTF.
        simulated: (n, D, D) these images with noise.
        real: (n, D, D) particles, unrelated to the others.

    Each row has its own grey scale, printed at its right end in the images' units.

    Raises:
        InputError: a row is empty.
    """
    rows = (
        ("Projection", clean),
        ("... with CTF", ctf),
        ("... and noise\n(simulated)", simulated),
        ("Particles\n(real)", real),
    )
    count = min(len(images) for _, images in rows)
    require_content("a gallery", range(count))
    figure, grid = image_grid(len(rows), count, "Simulated images beside real particles", right=0.75)
    for row, (_, images) in zip(grid, rows, strict=True):
        low, high = grey_range(images[:count])
        for axes, image in zip(row, images, strict=False):
            show_image(axes, image, low, high)
        row[-1].text(
            1.08, 0.5, f"white {high:.2g}\nblack {low:.2g}", transform=row[-1].transAxes, va="center", fontsize=8
        )
    label_rows(grid, [label for label, _ in rows])
    save(figure, path)


def plot_particles(path: str | Path, images: Array) -> None:
    """Plot preprocessed particles, (n, D, D), in one grey scale."""
    require_content("a picture of particles", range(len(images)))
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure, grid = image_grid(rows, columns, "Particles", right=0.1)
    low, high = grey_range(images)
    for axes, image in zip([axes for row in grid for axes in row], images, strict=False):
        show_image(axes, image, low, high)
    save(figure, path)


def plot_view_averages(
    path: str | Path, rows: Sequence[tuple[str, Array]], counts: Sequence[Sequence[int] | None]
) -> None:
    """Plot averages of images in several views, all rows in one grey scale.

    Args:
        path: PNG to write.
        rows: (label, (n, D, D) images), the same views in each row.
        counts: number of images in each average of a row; None: they are no averages, and set the grey scale.

    Raises:
        InputError: there is no row.
    """
    require_content("a figure of averages", rows)
    figure, grid = image_grid(len(rows), len(rows[0][1]), "Averages of particles, by view")
    low, high = grey_range(np.concatenate([images for (_, images), of in zip(rows, counts, strict=True) if of is None]))
    for line, (_, images), numbers in zip(grid, rows, counts, strict=True):
        for axes, image in zip(line, images, strict=True):
            show_image(axes, image, low, high)
        if numbers is not None:
            for axes, number in zip(line, numbers, strict=True):
                axes.text(0.04, 0.04, str(number), transform=axes.transAxes, fontsize=7, color="white", va="bottom")
    label_rows(grid, [label for label, _ in rows])
    save(figure, path)


def plot_places(
    path: str | Path, micrograph: Array, particles: Array, radius: float, patches: NDArray[np.integer], side: int
) -> None:
    """Plot a micrograph with its particles (circles) and the background patches (squares), all in pixels.

    Args:
        path: PNG to write.
        micrograph: (H, W) image.
        particles: (m, 2) x, y of the particles' centres.
        radius: radius of a particle.
        patches: (n, 2) x, y of the patches' centres.
        side: side of a patch.
    """
    step = max(1, max(micrograph.shape) // 800)
    height, width = (length // step * step for length in micrograph.shape)
    blocks = micrograph[:height, :width].reshape(height // step, step, width // step, step)
    shown = blocks.mean((1, 3))
    figure, axes = figure_with_axes(6.0, 6.0 * height / width)
    low, high = grey_range(shown)
    axes.imshow(shown, cmap="gray", vmin=low, vmax=high, origin="lower", extent=(0, width, 0, height))
    for x, y in particles:
        axes.add_patch(Circle((float(x), float(y)), radius, fill=False, color="#D55E00", lw=0.8))
    for x, y in patches:
        corner = float(x) - side / 2, float(y) - side / 2
        axes.add_patch(Rectangle(corner, side, side, fill=False, color="#56B4E9", lw=0.8, ls="--"))
    axes.set(xlabel="x (pixels)", ylabel="y (pixels)", title="Particles (circles) and background patches (dashed)")
    save(figure, path)
