"""Work of the matching critic, counted: what an image takes in the search and in frequency marching."""

import math

import torch

from cryogan.critics.critic import Stage, Task
from cryogan.critics.matching import schedule
from cryogan.critics.matching.templates import SHIFT_SPACING, shift_grid
from cryogan.parallel.work import Work
from cryogan.physics.symmetry import point_group
from cryogan.physics.unpicked import search_radii

# As run.toml has them.
SEARCH, SYMMETRIC, RISE, MARCHING = "search", "symmetric search", "symmetric rise", "sharpening"

_ATTENTION = 1.8  # products, over those of finding the best template: its softmax, and the weighted sum
_SMALL_IMAGES = 3.0  # pixels of the search, whose images are small, over those of large ones
# Samples of a coefficient: Gauss-Newton steps, the last comparison, and (half of one) the addition to the volume.
_COARSE, _FINE = 2, 3.5
_TRANSFORMS = 4.8  # padded transforms in a step of frequency marching, measured: benchmarks/estimate.py


def shift_count(task: Task, stage: Stage) -> int:
    """Return the number of in-plane shifts at which each image is matched."""
    width, farthest = task.box * task.pixel_size, task.settings.max_shift
    if task.settings.particles_per_um2 is not None:
        farthest = search_radii(width, task.mask_radius)[stage.method == MARCHING]
    return len(shift_grid(farthest, SHIFT_SPACING * width, torch.device("cpu")))


def half_disc(cutoff: float) -> float:
    """Return the number of coefficients in half of an image's transform below a shell."""
    return math.pi * cutoff**2 / 2


def template_count(task: Task, stage: Stage, cutoff: float) -> float:
    """Return the number of rotations in the bank of templates at a cut-off."""
    s = task.settings
    if stage.method == SEARCH:  # as many as the frequencies need
        return s.orientations * min(1.0, cutoff / schedule.SEARCH_SHELLS[1]) ** 3
    share = schedule.bank_share(s) if stage.method == MARCHING else schedule.symmetric_share(cutoff)
    return s.orientations * share / len(point_group(s.symmetry))


def search_work(task: Task, stage: Stage, images: int, cutoff: float) -> Work:
    """Return the work of a step of a search, with `images` real and as many simulated images."""
    templates, coefficients = template_count(task, stage, cutoff), half_disc(cutoff)
    products = 2 * images * templates * shift_count(task, stage) * coefficients
    return Work(_ATTENTION * products, templates * coefficients, _SMALL_IMAGES * images * stage.box**2)


def image_work(task: Task, stage: Stage, cutoff: float) -> Work:
    """Return the work of finding the best poses of a real and of a simulated image at a cut-off."""
    shell = schedule.bank_shell(task.settings)
    coarse, fine = half_disc(min(shell, cutoff)), half_disc(cutoff)
    products = 2 * template_count(task, stage, shell) * shift_count(task, stage) * coarse
    return Work(products, 2 * (_COARSE * coarse + _FINE * fine), stage.box**2)


def marching_work(task: Task, stage: Stage, cutoff: float) -> Work:
    """Return the work of a step of frequency marching at a cut-off."""
    s = task.settings
    padded = s.oversampling * stage.box
    images = image_work(task, stage, cutoff) * min(task.particles, s.marching_images)
    return (images + Work(voxels=_TRANSFORMS * padded**3)) * s.classes
