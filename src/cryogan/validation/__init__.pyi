from .alignment import Alignment, align
from .axes import find_axes
from .directional_fsc import ConicalFsc, conical_fsc, half_sphere, sampling_compensation_factor
from .fsc import FscCurves, fsc, fsc_curves, randomise_phases, resolution_at
from .local_resolution import LocalResolution, local_resolution
from .masks import check_mask, low_pass, soft_mask, spherical_mask
from .point_group_score import SymmetryScore
from .resampling import flip_hand, resample
from .shape import Shape, molecule_diameter, radial_average, shape_of
from .structures import Agreement, Cutoff, compare_maps, same_structures
from .symmetry_search import SymmetrySuggestion, suggest_symmetry, symmetry_score

__all__ = [
    "Agreement",
    "Alignment",
    "ConicalFsc",
    "Cutoff",
    "FscCurves",
    "LocalResolution",
    "Shape",
    "SymmetryScore",
    "SymmetrySuggestion",
    "align",
    "check_mask",
    "compare_maps",
    "conical_fsc",
    "find_axes",
    "flip_hand",
    "fsc",
    "fsc_curves",
    "half_sphere",
    "local_resolution",
    "low_pass",
    "molecule_diameter",
    "radial_average",
    "randomise_phases",
    "resample",
    "resolution_at",
    "same_structures",
    "sampling_compensation_factor",
    "shape_of",
    "soft_mask",
    "spherical_mask",
    "suggest_symmetry",
    "symmetry_score",
]
