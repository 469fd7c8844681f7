"""The operations that a run spends its time in: milliseconds, and the share of the machine's peak.

    python -m pytest benchmarks/operations.py --benchmark-json=operations.json
    python benchmarks/operations.py operations.json --out docs/runs/operations.json

One thread, 64 px, 128 images. Floating-point operations are counted by hand, a complex multiplication as 6; the peak is
that of a float32 matrix product in the same run.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cryogan.config import resolve
from cryogan.critics.matching.pose_optimiser import refine_poses
from cryogan.critics.matching.schedule import BANK_SHELL
from cryogan.critics.matching.templates import SHIFT_SPACING, Observed, Templates, shift_grid
from cryogan.critics.wasserstein.discriminator import Discriminator
from cryogan.critics.wasserstein.losses import critic_loss, gradient_penalty, interpolate
from cryogan.fourier import Disc, to_half_planes
from cryogan.models.phantom import phantom
from cryogan.physics.ctf import CtfParameters
from cryogan.physics.noise import WhiteNoise
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator
from cryogan.physics.symmetry import point_group
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.pose_search import CANDIDATES, COARSE_STEPS, FINE_STEPS, search_poses
from cryogan.rotations import spread_rotations
from cryogan.run.inputs import read_inputs
from cryogan.simulation import simulate

CPU, BOX, PIXEL, COUNT, SIZE = torch.device("cpu"), 64, 4.0, 128, 1024
SAMPLE = 8 * 2 * 2 + 30  # 8 neighbours, real and imaginary part; coordinates and weights

# Of a Gauss-Newton step, for a coefficient: a sample with its slope, five slopes against each other and the residual.
POSE_STEP = 2 * SAMPLE + 2 * 2 * (15 + 5) + 40


def transforms(box: int) -> float:
    """5 n log n of a complex transform, half of it for a real one."""
    return 2.5 * box**2 * torch.tensor(float(box**2)).log2().item()


@pytest.fixture(scope="module")
def scene() -> dict[str, object]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    ones = torch.ones(COUNT)
    optics = CtfParameters(
        9000 * ones, 9500 * ones, 0 * ones, 300 * ones, 2.7 * ones, 0.1 * ones, 0 * ones, 0 * ones, ones
    )
    projector = FourierProjector(BOX, device=CPU)
    simulator = Simulator(projector, optics, WhiteNoise(BOX), pixel_size=PIXEL, max_shift=10.0, generator=generator)
    spectrum = projector.transform(torch.randn(BOX, BOX, BOX, generator=generator))
    phi = simulator.sample(COUNT)
    with torch.no_grad():
        images, transfer = to_half_planes(simulator(spectrum, phi)), simulator.transfer(phi.particles)
    return {"simulator": simulator, "spectrum": spectrum, "phi": phi, "images": images, "transfer": transfer}


def observe(scene: dict, cutoff: float) -> tuple[Templates, Observed, Disc]:
    disc = Disc(BOX, cutoff, device=CPU)
    projector = scene["simulator"].projector
    templates = Templates(projector, scene["spectrum"], disc, torch.ones(BOX // 2 + 1), BOX * PIXEL)
    return templates, Observed.on(disc, scene["images"], scene["transfer"]), disc


def measure(benchmark, operation: Callable[[], object], flop: float) -> None:
    benchmark.extra_info["gflop"] = flop / 1e9
    with torch.no_grad():
        benchmark.pedantic(operation, rounds=5, warmup_rounds=1)


def test_peak(benchmark, scene) -> None:
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    measure(benchmark, lambda: a @ b, 2 * SIZE**3)


def test_simulate(benchmark, scene) -> None:
    simulator, phi, pixels = scene["simulator"], scene["phi"], BOX * (BOX // 2 + 1)
    flop = COUNT * (pixels * (SAMPLE + 6 + 20 + 2) + transforms(BOX) + 4 * BOX**2)
    measure(benchmark, lambda: simulator(scene["spectrum"], phi), flop)


def test_match_with_a_bank(benchmark, scene) -> None:
    templates, images, disc = observe(scene, 11.0)
    shifts = shift_grid(10.0, BOX * PIXEL / 32, CPU)
    bank = templates.bank(spread_rotations(4608, point_group("C1"), torch.Generator().manual_seed(0)), shifts)
    flop = 2.0 * COUNT * len(bank.rotations) * (len(shifts) * 2 * len(disc) + len(disc))
    measure(benchmark, lambda: bank.best(images), flop)


def test_refine_a_step(benchmark, scene) -> None:
    templates, images, disc = observe(scene, 32.0)
    phi = scene["phi"]
    flop = COUNT * len(disc) * POSE_STEP

    def refine() -> object:
        return refine_poses(templates, images, phi.rotations, phi.shifts, steps=1, max_turn=0.1, max_shift=10.0)

    measure(benchmark, refine, flop)


def test_find_poses(benchmark, tmp_path) -> None:
    """A pose for each particle, as `cryogan poses` finds it."""
    volume = phantom(BOX, PIXEL, 0)
    simulate(volume, PIXEL, tmp_path / "data", count=2 * COUNT, snr=0.5, max_shift=10.0, seed=0)
    star = tmp_path / "data" / "particles.star"
    plan, _, _ = read_inputs(star, None, None, resolve("default", None, {}))
    half, density = HalfSet(plan, star, 1), torch.from_numpy(volume)
    coarse, fine = (len(Disc(BOX, cutoff, device=CPU)) for cutoff in (BANK_SHELL, BOX / 2))
    shifts = len(shift_grid(10.0, SHIFT_SPACING * BOX * PIXEL, CPU))
    bank = 2.0 * COUNT * plan.settings.orientations * (shifts * 2 * coarse + coarse)
    steps = CANDIDATES * (COARSE_STEPS + 1) * coarse + 2 * (FINE_STEPS + 1) * fine
    measure(benchmark, lambda: search_poses(half, density, BOX / 2), bank + COUNT * steps * POSE_STEP)


def test_back_project(benchmark, scene) -> None:
    templates, images, disc = observe(scene, 32.0)
    phi, projector = scene["phi"], scene["simulator"].projector
    values = templates.matched(images, phi.shifts)

    def back_project() -> object:
        with torch.enable_grad():
            probe = torch.zeros_like(scene["spectrum"], requires_grad=True)
            samples = projector.samples(probe, phi.rotations, disc.frequencies)
            return torch.autograd.grad(samples, probe, values)

    measure(benchmark, back_project, 2 * COUNT * len(disc) * SAMPLE)


def test_convolutional_critic_step(benchmark, scene) -> None:
    critic = Discriminator(BOX, 16, torch.Generator().manual_seed(0))
    real, simulated = (torch.randn(32, BOX, BOX) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    counted = 0.0

    def count(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal counted
        counted += 2.0 * output.numel() * module.weight[0].numel()

    layers = [m for m in critic.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    critic(real)
    for handle in handles:
        handle.remove()

    def step() -> None:
        with torch.enable_grad():
            between = interpolate(real, simulated, torch.rand(len(real), generator=generator))
            loss = critic_loss(critic(real), critic(simulated)) + gradient_penalty(critic, between)
            torch.autograd.grad(loss, list(critic.parameters()))

    # Forward and backward of two streams, and of the penalty's images twice.
    measure(benchmark, step, counted * (2 * 3 + 6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    speeds = {}
    for result in json.loads(a.measured.read_text())["benchmarks"]:
        seconds = result["stats"]["median"]
        speeds[result["name"].removeprefix("test_").replace("_", " ")] = (
            seconds,
            result["extra_info"]["gflop"] / seconds,
        )
    peak = speeds.pop("peak")[1]
    operations = [
        {"name": name, "milliseconds": 1e3 * seconds, "gflop_s": speed, "share": speed / peak}
        for name, (seconds, speed) in speeds.items()
    ]
    a.out.write_text(json.dumps({"peak_gflop_s": peak, "operations": operations}, indent=1))


if __name__ == "__main__":
    main()
