"""How fast this machine is, from about a second of the work that a run does."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from cryogan.critics.matching.normal_equations import normal_equations
from cryogan.critics.matching.schedule import BANK_SHELL
from cryogan.critics.matching.templates import Observed, Templates, shift_grid
from cryogan.fourier import Disc, to_half_planes
from cryogan.parallel.work import Speed
from cryogan.particles import ParticleImages
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator
from cryogan.rotations import uniform_rotations

LARGEST_BOX = 128  # of the volume that is transformed: larger ones are not much slower, voxel by voxel
IMAGES, TEMPLATES = 64, 1024  # as many as make matrix products fast
SHIFT_A = 1.0  # nine shifts
REPEATS = 2  # after one that compiles loops and loads libraries


@torch.no_grad()
def measure_speed(
    images: ParticleImages, simulator: Simulator, threads: int, clock: Callable[[], float] = time.perf_counter
) -> Speed:
    """Measure the speed of each kind of work.

    Args:
        images: Particles of a half at the working box; a few of them are read.
        simulator: Simulates images like them.
        threads: Number of threads of PyTorch, which stays so.
        clock: Gives seconds.
    """
    torch.set_num_threads(threads)
    generator, projector, box = simulator.generator, simulator.projector, images.box
    device, padded = generator.device, projector.padded
    # Any values take as long; a volume's transform would take seconds where the box is large.
    spectrum = torch.rand(padded, padded, padded // 2 + 1, 2, device=device).permute(3, 0, 1, 2)
    rows, phi = images.spread(IMAGES), simulator.sample(IMAGES)

    def pairs() -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(images.batch(rows)).to(device), simulator(spectrum, phi)
        return to_half_planes(torch.cat(pixels)), simulator.transfer(phi.particles)

    def templates(cutoff: float) -> tuple[Templates, Observed]:
        disc = Disc(box, cutoff, device=device)
        noise = torch.randn(IMAGES, len(disc), dtype=torch.complex64, device=device)
        observed = Observed(noise, torch.rand(IMAGES, len(disc), device=device))
        flat = torch.ones(box // 2 + 1, device=device)
        return Templates(projector, spectrum, disc, flat, float(box), rounded=True), observed

    (fine, seen), (coarse, blurred) = templates(box / 2), templates(min(BANK_SHELL, box / 2))
    shifts = shift_grid(SHIFT_A, SHIFT_A, device)
    bank = coarse.bank(uniform_rotations(TEMPLATES, generator), shifts)
    rotations, place = uniform_rotations(IMAGES, generator), torch.zeros(IMAGES, 2, device=device)
    smaller = FourierProjector(min(box, LARGEST_BOX), padded / box, device=device)
    volume = torch.rand(smaller.box, smaller.box, smaller.box, device=device)

    def seconds(work: Callable[[], object]) -> float:
        work()
        return min(_timed(work, clock, device) for _ in range(REPEATS))

    return Speed(
        products=seconds(lambda: bank.best(blurred)) / (IMAGES * TEMPLATES * len(shifts) * len(coarse.disc)),
        samples=seconds(lambda: normal_equations(fine, seen, rotations, place)) / (IMAGES * len(fine.disc)),
        pixels=seconds(pairs) / (IMAGES * box**2),
        voxels=seconds(lambda: smaller.transform(volume)) / smaller.padded**3,
    )


def _timed(work: Callable[[], object], clock: Callable[[], float], device: torch.device) -> float:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    start = now()
    work()
    return now() - start
