"""The figures of a reconstruction: each function draws one PNG from plain arrays.

They follow Figures 2 and 3 of the paper (Gupta et al., bioRxiv 2020.03.20.001016). Nothing here computes a result:
resolutions come in by the labels. A file appears complete or not at all. Colours are told apart without colour
vision and in print: curves also differ in lightness or dash, images are grey.
"""

from cryogan.report.figures.comparison import plot_comparison
from cryogan.report.figures.fsc import plot_fsc, plot_fsc_over_time, plot_held_out, plot_power_spectra
from cryogan.report.figures.images import (
    plot_gallery,
    plot_particles,
    plot_places,
    plot_projections_over_time,
    plot_view_averages,
)
from cryogan.report.figures.likeness import plot_likeness
from cryogan.report.figures.maps import plot_volume_over_time
from cryogan.report.figures.progress import plot_histogram, plot_progress
from cryogan.report.figures.resolution import plot_directions, plot_local_resolution, plot_reslog
from cryogan.report.figures.views import plot_view_density, plot_view_distribution

__all__ = [
    "plot_comparison",
    "plot_directions",
    "plot_fsc",
    "plot_fsc_over_time",
    "plot_gallery",
    "plot_held_out",
    "plot_histogram",
    "plot_likeness",
    "plot_local_resolution",
    "plot_particles",
    "plot_places",
    "plot_power_spectra",
    "plot_progress",
    "plot_projections_over_time",
    "plot_reslog",
    "plot_view_averages",
    "plot_view_density",
    "plot_view_distribution",
    "plot_volume_over_time",
]
