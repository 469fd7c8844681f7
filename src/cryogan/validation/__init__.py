"""Measures of a reconstruction: alignment of maps, FSC and masks."""

from cryogan.validation.alignment import Alignment, align, flip_hand, resample
from cryogan.validation.axes import find_axes
from cryogan.validation.fsc import FscCurves, fsc, fsc_curves, randomise_phases, resolution_at
from cryogan.validation.masks import low_pass, soft_mask, spherical_mask

__all__ = [
    "Alignment",
    "FscCurves",
    "align",
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
]
