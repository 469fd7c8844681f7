"""Pictures of a reconstruction."""

from cryogan.report.figures import (
    draw_fsc,
    draw_fsc_over_time,
    draw_gallery,
    draw_power_spectra,
    draw_progress,
    draw_projections_over_time,
    draw_volume_over_time,
)

__all__ = [
    "draw_fsc",
    "draw_fsc_over_time",
    "draw_gallery",
    "draw_power_spectra",
    "draw_progress",
    "draw_projections_over_time",
    "draw_volume_over_time",
]
