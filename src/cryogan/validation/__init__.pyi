from .alignment import Alignment, align
from .axes import find_axes
from .fsc import FscCurves, fsc, fsc_curves, randomise_phases, resolution_at
from .masks import check_mask, low_pass, soft_mask, spherical_mask
from .resampling import flip_hand, resample
from .shape import Shape, radial_average, shape_of
from .structures import Agreement, Cutoff, compare_maps, same_structures

__all__ = [
    "Agreement",
    "Alignment",
    "Cutoff",
    "FscCurves",
    "Shape",
    "align",
    "check_mask",
    "compare_maps",
    "find_axes",
    "flip_hand",
    "fsc",
    "fsc_curves",
    "low_pass",
    "radial_average",
    "randomise_phases",
    "resample",
    "resolution_at",
    "same_structures",
    "shape_of",
    "soft_mask",
    "spherical_mask",
]
