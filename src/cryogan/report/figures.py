"""The figures of a reconstruction: each function draws one PNG from plain arrays.

They follow Figures 2 and 3 of the paper (Gupta et al., bioRxiv 2020.03.20.001016). Nothing here computes a result:
resolutions come in by the labels. A file appears complete or not at all. Colours are told apart without colour
vision and in print: curves also differ in lightness or dash, images are grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.grids import centred_axis, fit_spectrum, frequency_axis

Array = NDArray[np.floating]

_DPI = 130
_INK = "#222222"
# Okabe and Ito's colours, dark and light in turn, each with its own dash.
_CURVE_STYLES: tuple[tuple[str, LineStyleType], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#000000", "-."),
    ("#56B4E9", "-"),
    ("#009E73", (0, (1, 1))),
    ("#E69F00", (0, (5, 1, 1, 1))),
)
_PROGRESS_TITLES = {
    "critic_gap": "Critic's score: real minus simulated",
    "signal_scale": "Scale of the signal",
    "noise_scale": "Scale of the noise",
    "map_change": "Relative change of the map",
}
_RESOLUTIONS_A = (100, 50, 40, 30, 25, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3.5, 3, 2.5, 2, 1.5, 1)


def draw_fsc(path: str | Path, frequency_1_per_A: Array, curves: Mapping[str, Array], pixel_size_A: float) -> None:
    """Fourier shell correlation curves over the frequency up to Nyquist, with the 0.143 and 0.5 lines.

    Args:
        path: PNG to write.
        frequency_1_per_A: (n,) shell frequencies, 1/A.
        curves: correlation of each shell, (n,), by its legend text; say the resolution there.
        pixel_size_A: voxel size, angstrom; ends the axis at Nyquist.

    Raises:
        InputError: there is no curve, or one differs in length from the frequencies.
    """
    _require("an FSC figure", curves)
    figure, axes = _figure_with_axes(6.4, 4.2)
    for (label, curve), (colour, dash) in zip(curves.items(), _cycled(len(curves)), strict=True):
        _check_length(label, curve, frequency_1_per_A)
        axes.plot(frequency_1_per_A, curve, color=colour, linestyle=dash, linewidth=1.8, label=label)
    _finish_fsc(axes, 0.5 / pixel_size_A, min(float(np.nanmin(c)) for c in curves.values()))
    axes.set_title("Agreement of the maps, shell by shell", loc="left")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none")
    _save(figure, path)


def draw_fsc_over_time(path: str | Path, frequency_1_per_A: Array, curves: Sequence[tuple[str, Array]]) -> None:
    """Fourier shell correlation curves from early (light) to late (dark), as in Figures 2d and 3d.

    Args:
        path: PNG to write.
        frequency_1_per_A: (n,) shell frequencies, 1/A, the last one at Nyquist.
        curves: (label, (n,) correlations) in the order of time; the label says the time.

    Raises:
        InputError: there is no curve, or one differs in length from the frequencies.
    """
    _require("an FSC figure", curves)
    figure, axes = _figure_with_axes(7.2, 4.2)
    for (label, curve), shade in zip(curves, np.linspace(0.85, 0.0, len(curves)), strict=True):
        _check_length(label, curve, frequency_1_per_A)
        width = 2.4 if label == curves[-1][0] else 1.5
        axes.plot(frequency_1_per_A, curve, color=colormaps["viridis"](shade), linewidth=width, label=label)
    _finish_fsc(axes, float(frequency_1_per_A[-1]), min(float(np.nanmin(curve)) for _, curve in curves))
    axes.set_title("Agreement of the half-maps as training goes on", loc="left")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.05, 0.5))
    _save(figure, path)


def draw_volume_over_time(path: str | Path, volumes: Sequence[tuple[str, Array]]) -> None:
    """The map at several times: a shaded surface above its three central slices, as in Figure 2a.

    All surfaces are seen along the axis in which the last map is thinnest, so that they show its widest face.
    Each snapshot has its own surface level and grey scale, since the first maps are faint.

    Args:
        path: PNG to write.
        volumes: (label, (D, D, D) map in z, y, x order, protein bright) in the order of time.

    Raises:
        InputError: there is no volume.
    """
    _require("a figure of the map over time", volumes)
    view = _thinnest_axis(volumes[-1][1])
    rows = (f"Surface\nseen along {'zyx'[view]}", "Slice\nacross z", "Slice\nacross y", "Slice\nacross x")
    figure, grid = _image_grid(len(rows), len(volumes), "The map as training goes on", top=0.62)
    for column, (label, volume) in enumerate(volumes):
        if np.ptp(volume) > 0:
            _show(grid[0][column], _shaded_surface(volume, view), 0.0, 1.0)
        else:
            grid[0][column].text(0.5, 0.5, "empty", ha="center", va="center", color="0.4")
        low, high = _grey_range(volume)
        for axis in range(3):
            central = np.take(volume, volume.shape[axis] // 2, axis=axis)
            _show(grid[axis + 1][column], central, low, high)
        grid[0][column].set_title(label, fontsize=10)
    _label_rows(grid, rows)
    _save(figure, path)


def draw_projections_over_time(path: str | Path, rows: Sequence[tuple[str, Array]]) -> None:
    """Clean projections at several times, one row each, the same poses in each row, as in Figure 2b.

    Args:
        path: PNG to write.
        rows: (label, (n, D, D) images) in the order of time; each row has its own grey scale.

    Raises:
        InputError: there is no row.
    """
    _require("a figure of projections", rows)
    count = min(len(images) for _, images in rows)
    figure, grid = _image_grid(len(rows), count, "Clean projections as training goes on")
    for row, (_, images) in zip(grid, rows, strict=True):
        low, high = _grey_range(images[:count])
        for axes, image in zip(row, images, strict=False):
            _show(axes, image, low, high)
    _label_rows(grid, [label for label, _ in rows])
    _save(figure, path)


def draw_gallery(path: str | Path, clean: Array, ctf: Array, simulated: Array, real: Array) -> None:
    """What the critic compares: simulated images as they are built up, and real particles, as in Figure 2c.

    Args:
        path: PNG to write.
        clean: (n, D, D) projections before CTF and noise.
        ctf: (n, D, D) the same after the CTF.
        simulated: (n, D, D) the same with noise.
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
    _require("a gallery", range(count))
    figure, grid = _image_grid(len(rows), count, "Simulated images beside real particles", right=0.75)
    for row, (_, images) in zip(grid, rows, strict=True):
        low, high = _grey_range(images[:count])
        for axes, image in zip(row, images, strict=False):
            _show(axes, image, low, high)
        row[-1].text(
            1.08, 0.5, f"white {high:.2g}\nblack {low:.2g}", transform=row[-1].transAxes, va="center", fontsize=8
        )
    _label_rows(grid, [label for label, _ in rows])
    _save(figure, path)


def draw_power_spectra(path: str | Path, frequency_1_per_A: Array, real: Array, simulated: Array) -> None:
    """Mean radial power spectra of real and simulated images on a logarithmic scale.

    Args:
        path: PNG to write.
        frequency_1_per_A: (n,) shell frequencies, 1/A; the first, zero, is not drawn.
        real: (n,) power of the particles.
        simulated: (n,) power of the simulated images.

    Raises:
        InputError: a spectrum differs in length from the frequencies.
    """
    figure, axes = _figure_with_axes(6.4, 4.2)
    spectra = (("Particles (real)", real), ("Simulated", simulated))
    for (label, power), (colour, dash) in zip(spectra, _cycled(2), strict=True):
        _check_length(label, power, frequency_1_per_A)
        axes.plot(frequency_1_per_A[1:], power[1:], color=colour, linestyle=dash, linewidth=1.8, label=label)
    axes.set_yscale("log")
    axes.set_ylabel("Power per pixel (image units squared)")
    _frequency_axis(axes, float(frequency_1_per_A[-1]))
    axes.set_title("Power of real and simulated images", loc="left")
    axes.legend(frameon=False)
    _save(figure, path)


def draw_progress(path: str | Path, records: Sequence[Mapping[str, float]]) -> None:
    """The course of training over the minutes: one small panel for each quantity that occurs.

    Args:
        path: PNG to write.
        records: each with "minutes" and any of "critic_gap", "signal_scale", "noise_scale", "map_change"; a
            record may leave out quantities that were not measured then.

    Raises:
        InputError: no record holds any of these quantities.
    """
    keys = [key for key in _PROGRESS_TITLES if any(key in record for record in records)]
    _require("a progress figure", keys)
    columns = min(2, len(keys))
    lines = -(-len(keys) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.3 * lines + 0.2), dpi=_DPI, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    panels = [axes for row in grid for axes in row]
    for axes, key in zip(panels, keys, strict=False):
        points = [(record["minutes"], record[key]) for record in records if key in record]
        axes.plot(*zip(*points, strict=True), color=_CURVE_STYLES[0][0], linewidth=1.5)
        axes.set_title(_PROGRESS_TITLES[key], loc="left", fontsize=10)
        axes.grid(color="0.9")
        _open_frame(axes)
    if keys[0] == "critic_gap":
        panels[0].axhline(0, color=_INK, linewidth=0.8)
    for unused in panels[len(keys) :]:
        unused.set_visible(False)
    figure.supxlabel("Time (minutes)", fontsize=10)
    _save(figure, path)


def _require(what: str, content: Sequence[object] | Mapping[str, object]) -> None:
    if len(content) == 0:
        raise InputError(f"There is nothing to draw for {what}; give at least one entry.")


def _check_length(label: str, curve: Array, frequency: Array) -> None:
    if curve.shape != frequency.shape:
        raise InputError(
            f"The curve '{label}' has {curve.size} values for {frequency.size} frequencies; give one value for each."
        )


def _save(figure: Figure, path: str | Path) -> None:
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=_DPI, facecolor="white")
    partial.replace(path)


def _cycled(count: int) -> list[tuple[str, LineStyleType]]:
    return [_CURVE_STYLES[i % len(_CURVE_STYLES)] for i in range(count)]


def draw_particles(path: str | Path, images: Array) -> None:
    """Particles (n, D, D) as a run sees them, in one grey scale."""
    _require("a picture of particles", range(len(images)))
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure, grid = _image_grid(rows, columns, "Particles", right=0.1)
    low, high = _grey_range(images)
    for axes, image in zip([axes for row in grid for axes in row], images, strict=False):
        _show(axes, image, low, high)
    _save(figure, path)


def draw_places(
    path: str | Path, micrograph: Array, particles: Array, radius: float, patches: NDArray[np.integer], side: int
) -> None:
    """A micrograph with its particles (circles) and the chosen background (squares); everything in pixels.

    Args:
        path: PNG to write.
        micrograph: (H, W).
        particles: (m, 2) x, y.
        radius: of a particle.
        patches: (n, 2) x, y of their centres.
        side: of a patch.
    """
    step = max(1, max(micrograph.shape) // 800)
    height, width = (length // step * step for length in micrograph.shape)
    blocks = micrograph[:height, :width].reshape(height // step, step, width // step, step)
    shown = blocks.mean((1, 3))
    figure, axes = _figure_with_axes(6.0, 6.0 * height / width)
    low, high = _grey_range(shown)
    axes.imshow(shown, cmap="gray", vmin=low, vmax=high, origin="lower", extent=(0, width, 0, height))
    for x, y in particles:
        axes.add_patch(Circle((float(x), float(y)), radius, fill=False, color="#D55E00", lw=0.8))
    for x, y in patches:
        corner = float(x) - side / 2, float(y) - side / 2
        axes.add_patch(Rectangle(corner, side, side, fill=False, color="#56B4E9", lw=0.8, ls="--"))
    axes.set(xlabel="x (pixels)", ylabel="y (pixels)", title="Particles (circles) and background patches (dashed)")
    _save(figure, path)


def draw_view_distribution(path: str | Path, rot_degrees: Array, tilt_degrees: Array) -> None:
    """How many particles are seen from where: a map of the sphere on which equal areas are equal.

    Args:
        path: PNG to write.
        rot_degrees, tilt_degrees: (N,) the first two of RELION's Euler angles.
    """
    figure, axes = _figure_with_axes(6.4, 3.4)
    rot = (np.asarray(rot_degrees) + 180) % 360 - 180
    counts, _, _ = np.histogram2d(np.cos(np.radians(tilt_degrees)), rot, bins=(18, 36), range=((-1, 1), (-180, 180)))
    image = axes.imshow(counts, origin="lower", extent=(-180, 180, -1, 1), aspect="auto", cmap="cividis", vmin=0)
    figure.colorbar(image, ax=axes, label="particles")
    axes.set(xlabel="rot (degrees)", ylabel="cos(tilt)", title="View directions")
    _save(figure, path)


def draw_view_density(path: str | Path, rot_degrees: Array, tilt_degrees: Array, density: Array) -> None:
    """A density over view directions, on the map of `draw_view_distribution`.

    Args:
        path: PNG to write.
        rot_degrees, tilt_degrees: (N,) directions that are spread evenly; each stands for those nearest to it.
        density: (N,) relative to that of uniform views.
    """
    figure, axes = _figure_with_axes(6.4, 3.4)
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
    _save(figure, path)


def draw_histogram(path: str | Path, values: Array, title: str, label: str) -> None:
    """Histogram of one number per particle."""
    figure, axes = _figure_with_axes(6.4, 3.4)
    axes.hist(values, bins=60, color="#0072B2")
    axes.set(xlabel=label, ylabel="particles", title=title)
    _save(figure, path)


def _figure_with_axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    return figure, figure.add_subplot()


def _open_frame(axes: Axes) -> None:
    axes.spines[["right"]].set_visible(False)
    axes.spines[["top"]].set_visible(False)


def _finish_fsc(axes: Axes, nyquist: float, lowest: float) -> None:
    for level in (0.5, 0.143):
        axes.axhline(level, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        beside = axes.get_yaxis_transform()
        axes.text(1.01, level, f"{level:g}", transform=beside, color="0.35", fontsize=8, va="center")
    axes.axhline(0, color=_INK, linewidth=0.6, zorder=0)
    axes.set_ylim(max(-1.02, min(-0.06, lowest - 0.03)), 1.03)
    axes.set_ylabel("Fourier shell correlation")
    _frequency_axis(axes, nyquist)


def _frequency_axis(axes: Axes, nyquist: float) -> None:
    """Frequency in 1/A below and the resolution in angstrom above, up to Nyquist."""
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


def _image_grid(
    rows: int, columns: int, title: str, *, top: float = 0.4, right: float = 0.05
) -> tuple[Figure, list[list[Axes]]]:
    """Square panels without frames; `top` and `right` leave that many inches for text above and beside them."""
    side, left, gap = 1.35, 0.95, 0.05
    width = max(left + columns * (side + gap) + right, 4.4)
    height = top + rows * (side + gap)
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.text(0.1 / width, 1 - 0.1 / height, title, fontsize=12, va="top", color=_INK)
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


def _label_rows(grid: list[list[Axes]], labels: Sequence[str]) -> None:
    for row, label in zip(grid, labels, strict=True):
        row[0].set_ylabel(label, fontsize=9, rotation=0, ha="right", va="center", labelpad=6, color=_INK)


def _show(axes: Axes, image: Array, low: float, high: float) -> None:
    # The first row at the bottom: y grows upwards, as in the coordinates of the poses.
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest")


def _grey_range(images: Array) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(images.astype(np.float64), (0.2, 99.8)))
    return (low, high) if high > low else (low - 1, low + 1)


def _thinnest_axis(volume: Array) -> int:
    weight = np.maximum(volume - _surface_level(volume), 0)
    offset = centred_axis(len(volume))
    others = ((1, 2), (0, 2), (0, 1))
    return int(np.argmin([(offset**2 * weight.sum(axis=axes)).sum() for axes in others]))


def _surface_level(volume: Array) -> float:
    """Half-way between the background and the density of the brightest hundredth: no fit, no absolute units."""
    background, bright = np.percentile(volume, (50, 99))
    return float(background + 0.5 * (bright - background))


def _shaded_surface(volume: Array, axis: int) -> Array:
    """Grey picture in [0, 1] of a map's surface, seen along an axis: the first voxel of each ray above a level.

    The map is smoothed to three pixels' resolution and sampled three times finer; brightness is the cosine
    between the surface normal and a lamp beside the viewer (Lambert), dimmed with depth. The background is white.

    The viewer looks down the axis such that the picture's right and up are the first and second of x, y, z that
    are left: from the side that keeps the map's hand, which is +z, -y or +x.
    """
    along_ray = np.moveaxis(volume, axis, 0)
    fine = _smooth_and_refine(along_ray if axis == 1 else along_ray[::-1], 3)
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
    spectrum = np.fft.rfftn(volume.astype(np.float64)) * gain[:, None, None] * gain[:, None] * gain[: box // 2 + 1]
    padded = fit_spectrum(spectrum, factor * box, axes=3)
    return np.fft.irfftn(padded, s=(factor * box,) * 3, axes=(0, 1, 2)) * factor**3
