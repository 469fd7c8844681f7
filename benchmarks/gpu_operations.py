"""The operations of a run on a device: seconds, items a second, and the device's memory. A part of `gpu.py`."""

import time
from collections.abc import Callable
from typing import Any

import torch

from cryogan.critics.matching.pose_optimiser import refine_poses
from cryogan.critics.matching.schedule import BANK_SHELL
from cryogan.critics.matching.templates import SHIFT_SPACING, Observed, Templates, shift_grid
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.fourier import Disc
from cryogan.physics.backprojection import BackProjector
from cryogan.physics.ctf import CtfParameters, ctf
from cryogan.physics.projector import FourierProjector
from cryogan.physics.symmetry import point_group
from cryogan.physics.volume import Volume
from cryogan.rotations import spread_rotations
from cryogan.simulation.particles import random_particles
from cryogan.validation import fsc
from slices import WIDTH_A, Scene

REPEATS, LONGEST = 5, 2.0  # the best of so many, within so many seconds
MAX_SHIFT = 10.0  # A, of the bank's shifts and of a Gauss-Newton step
Task = tuple[int, Callable[[], object]]  # items, such as samples; what works on them


def measure(box: int, samples: int, rotations: int, device: torch.device) -> list[dict[str, Any]]:
    """Time every operation at a box on a device: a row each, with the peak of a GPU's memory."""
    return [
        {"operation": name, "box": box, "device": device.type, "items": items} | timed(task, device)
        for name, (items, task) in tasks(box, samples, rotations, device).items()
    ]


@torch.no_grad()
def timed(task: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds of a task, its first call aside, and the largest memory that it takes on a GPU."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    task()
    best, end = float("inf"), time.perf_counter() + LONGEST
    for _ in range(REPEATS):
        if on_gpu:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        task()
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    memory = {"peak_gib": torch.cuda.max_memory_allocated(device) / 2**30} if on_gpu else {}
    return {"seconds": best} | memory


def tasks(box: int, samples: int, rotations: int, device: torch.device) -> dict[str, Task]:
    """The operations on about so many samples of slices, and on a bank of about so many rotations."""
    projector = FourierProjector(box, device=device)
    scene = Scene.of(projector, samples, device)
    found = {name: (scene.samples, task) for name, task in scene.tasks().items()}

    def step() -> object:
        bounds = {"max_turn": 0.1, "max_shift": MAX_SHIFT}
        return refine_poses(scene.templates, scene.observed, scene.rotations, scene.shifts, steps=1, **bounds)

    found["Gauss-Newton step"] = scene.samples, step
    found["log-likelihood ratios of a bank"] = bank(scene.templates, rotations, device)
    images = len(scene.observed)
    optics = random_particles(images, 0.0, images, torch.Generator().manual_seed(0)).optics
    moved = CtfParameters(**{name: values.to(device) for name, values in vars(optics).items() if values is not None})
    found["CTF"] = images * box * (box // 2 + 1), lambda: ctf(moved, box, WIDTH_A / box)
    back, spectrum = BackProjector(projector, Volume(box, 0.45 * box, "D2", device)), scene.templates.spectrum
    found["back-projection, finish"] = box**3, lambda: back.finish(spectrum)
    if device.type == "cpu":  # in NumPy, whatever the device of a run is
        density = torch.randn(2, box, box, box).numpy()
        found["FSC"] = box**3, lambda: fsc(*density)
    return found


def bank(templates: Templates, count: int, device: torch.device) -> Task:
    """The log-likelihood ratios of a batch of images with a bank, as the march computes them."""
    generator = torch.Generator().manual_seed(0)
    disc, box = Disc(templates.projector.box, BANK_SHELL, device=device), templates.projector.box
    power = torch.ones(box // 2 + 1, device=device)
    coarse = Templates(templates.projector, templates.spectrum, disc, power, WIDTH_A, rounded=True)
    shifts = shift_grid(MAX_SHIFT, SHIFT_SPACING * WIDTH_A, device)
    made = coarse.bank(spread_rotations(count, point_group("C1"), generator).to(device), shifts)
    size = IMAGES_AT_ONCE, len(disc)
    images = Observed(
        torch.randn(size, dtype=torch.complex64, generator=generator).to(device),
        torch.randn(size, generator=generator).to(device),
    )
    return len(images) * len(shifts) * len(made.rotations), lambda: made.log_likelihood_ratios(images)
