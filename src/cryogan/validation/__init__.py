"""Measures of a reconstruction: alignment of maps, FSC and masks."""

from cryogan.validation.alignment import Alignment, align
from cryogan.validation.axes import find_axes
from cryogan.validation.fsc import FscCurves, fsc, fsc_curves, randomise_phases, resolution_at
from cryogan.validation.fsc_files import write_fsc
from cryogan.validation.masks import check_mask, low_pass, soft_mask, spherical_mask
from cryogan.validation.resampling import flip_hand, resample

__all__ = [
    "Alignment",
    "FscCurves",
    "align",
    "check_mask",
    "find_axes",
    "flip_hand",
    "fsc",
    "fsc_curves",
    "low_pass",
    "randomise_phases",
    "resample",
    "resolution_at",
    "soft_mask",
    "spherical_mask",
    "write_fsc",
]
