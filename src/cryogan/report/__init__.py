"""Pictures and the HTML page of a reconstruction."""

from cryogan.report.figures import (
    plot_fsc,
    plot_fsc_over_time,
    plot_gallery,
    plot_held_out,
    plot_histogram,
    plot_particles,
    plot_places,
    plot_power_spectra,
    plot_progress,
    plot_projections_over_time,
    plot_view_density,
    plot_view_distribution,
    plot_volume_over_time,
)
from cryogan.report.page import Page, write_page

__all__ = [
    "Page",
    "plot_fsc",
    "plot_fsc_over_time",
    "plot_gallery",
    "plot_held_out",
    "plot_histogram",
    "plot_particles",
    "plot_places",
    "plot_power_spectra",
    "plot_progress",
    "plot_projections_over_time",
    "plot_view_density",
    "plot_view_distribution",
    "plot_volume_over_time",
    "write_page",
]
