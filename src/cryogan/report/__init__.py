"""Pictures of a reconstruction."""

from cryogan.report.figures import (
    draw_fsc,
    draw_fsc_over_time,
    draw_gallery,
    draw_histogram,
    draw_particles,
    draw_places,
    draw_power_spectra,
    draw_progress,
    draw_projections_over_time,
    draw_view_density,
    draw_view_distribution,
    draw_volume_over_time,
)
from cryogan.report.page import Page, write_page

__all__ = [
    "Page",
    "draw_fsc",
    "draw_fsc_over_time",
    "draw_gallery",
    "draw_histogram",
    "draw_particles",
    "draw_places",
    "draw_power_spectra",
    "draw_progress",
    "draw_projections_over_time",
    "draw_view_density",
    "draw_view_distribution",
    "draw_volume_over_time",
    "write_page",
]
