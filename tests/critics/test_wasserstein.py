"""The loop, and its exact continuation from a checkpoint."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cryogan.config import Settings
from cryogan.critics.read_ahead import HeldImages
from cryogan.critics.records import Record
from cryogan.critics.sampler import Sampler
from cryogan.critics.wasserstein.critic_input import standardise
from cryogan.critics.wasserstein.discriminator import ARCHITECTURES, build_critic
from cryogan.critics.wasserstein.trainer import WassersteinTrainer
from cryogan.errors import InputError
from cryogan.fourier import to_half_planes, to_images
from cryogan.parallel.ranks import ALONE, Ranks
from cryogan.physics.ctf import CtfParameters
from cryogan.physics.noise import WhiteNoise
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator
from cryogan.physics.volume import Volume
from cryogan.run.checkpoint import load_checkpoint, save_checkpoint

CPU = torch.device("cpu")
BOX, PIXEL, COUNT = 16, 4.0, 30


def particles() -> np.ndarray:
    """Noise about a bright disc."""
    axis = np.arange(BOX) - BOX // 2
    disc = 3.0 * (np.hypot(axis[:, None], axis) < 4)
    return (np.random.default_rng(0).standard_normal((COUNT, BOX, BOX)) + disc).astype(np.float32)


def make_training(steps: int = 6, seed: int = 0, ranks: Ranks = ALONE, **settings: Any) -> WassersteinTrainer:
    """Everything new; nothing but the seed in common with another."""
    values: dict[str, Any] = {
        "critic": "wasserstein",
        "batch_size": 8,
        "critic_steps": 2,
        "penalty_every": 3,
        "critic_width": 4,
        "critic_warmup": 5,
    } | settings
    ones = torch.ones(COUNT)
    defocus = 8000 + 200 * torch.arange(COUNT).float()
    optics = CtfParameters(defocus, defocus, 0 * ones, 300 * ones, 2.7 * ones, 0.1 * ones, 0 * ones, 0 * ones, ones)
    simulator = Simulator(
        FourierProjector(BOX, device=CPU),
        optics,
        WhiteNoise(BOX),
        pixel_size=PIXEL,
        max_shift=4.0,
        generator=torch.Generator().manual_seed(seed + 1),
    )
    critic = build_critic(Settings(**values), BOX, torch.Generator().manual_seed(seed + 2))
    volume = Volume(BOX, 7, "D2", CPU)
    return WassersteinTrainer(
        Settings(**values), steps, HeldImages(particles()), simulator, volume, critic, 1.0, seed + 3, ranks=ranks
    )


def run(training: WassersteinTrainer, until: int | None = None) -> list[Record]:
    return list(training.run(until))


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """A nested state as one level of tensors and numbers."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{name}/{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, value in enumerate(state) for k, v in flat(value, f"{name}/{i}").items()}
    return {name: state}


def assert_same_state(first: WassersteinTrainer, second: WassersteinTrainer) -> None:
    one, other = flat(first.state_dict()), flat(second.state_dict())
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, other[name]), name
        elif name != "/seconds":
            assert value == other[name], name


VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "bfloat16": {"bf16": True},
    "CTF as a plane": {"architecture": "ctf"},
    "plain": {"ctf_correction": 0.0, "augment": False, "learn_scales": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_three_and_three_steps_equal_six(variant: str, tmp_path: Path) -> None:
    whole = make_training(**VARIANTS[variant])
    records = run(whole)
    first = make_training(**VARIANTS[variant])
    early = run(first, until=3)
    save_checkpoint(tmp_path / "half1.pt", {"stage": 0, "training": first.state_dict()})
    del first
    torch.manual_seed(12345)  # no random number may come from the global state
    second = make_training(**VARIANTS[variant])
    second.load_state_dict(load_checkpoint(tmp_path / "half1.pt", CPU)["training"])
    assert second.step == 3
    late = run(second)

    assert whole.step == second.step == 6
    assert whole.critic_step == second.critic_step == 5 + 5 * 2  # the first volume update waits for 5
    assert_same_state(whole, second)
    assert torch.equal(whole.result(), second.result())
    assert whole.volume.density.any()
    for expected, record in zip(records, early + late, strict=True):
        assert {k: v for k, v in expected.items() if k != "minutes"} == {
            k: v for k, v in record.items() if k != "minutes"
        }
    # They agree in what comes next, too: the state left nothing out.
    assert torch.equal(whole.particles.rows(), second.particles.rows())
    assert torch.equal(whole.simulator.sample(5).rotations, second.simulator.sample(5).rotations)


def test_a_state_is_of_its_moment(tmp_path: Path) -> None:
    training = make_training()
    run(training, until=2)
    save_checkpoint(tmp_path / "a.pt", training.state_dict())
    run(training, until=4)
    other = make_training()
    other.load_state_dict(load_checkpoint(tmp_path / "a.pt", CPU))
    assert other.step == 2
    assert not torch.equal(other.volume.density, training.volume.density)


def test_the_seed_decides() -> None:
    one, same, other = make_training(seed=1), make_training(seed=1), make_training(seed=50)
    for training in (one, same, other):
        run(training, until=2)
    assert_same_state(one, same)
    assert not torch.equal(one.volume.density, other.volume.density)


def gradients(training: WassersteinTrainer) -> tuple[float, float]:
    """Norm of the critic's gradient and the largest of a voxel's, as the last step's optimisers used them."""
    run(training, until=training.step + 1)
    critic = torch.cat([p.grad.flatten() for p in training.critic.parameters() if p.grad is not None])
    assert training.volume.density.grad is not None
    return critic.norm().item(), training.volume.density.grad.abs().max().item()


def test_gradients_are_clipped_after_backward() -> None:
    free = gradients(make_training(clip_ramp=0, critic_clip=1e9, volume_clip=1e9))
    limits = free[0] / 10, free[1] / 10
    clipped = gradients(make_training(clip_ramp=0, critic_clip=limits[0], volume_clip=limits[1]))
    assert clipped[0] <= limits[0] * (1 + 1e-5)
    assert clipped[1] <= limits[1] * (1 + 1e-5)


def test_clips_rise_over_the_ramp() -> None:
    training = make_training(steps=8, clip_ramp=0.5, critic_clip=1e-3, volume_clip=1e-6)
    seen = [gradients(training) for _ in range(8)]
    factors = np.minimum(1, np.arange(1, 9) / 4)
    np.testing.assert_allclose([critic for critic, _ in seen], factors * 1e-3, rtol=1e-3)
    np.testing.assert_allclose([volume for _, volume in seen], factors * 1e-6, rtol=1e-3)


def test_volume_stays_within_its_bounds_and_sphere() -> None:
    training = make_training(clip_depth=0.0)
    run(training)
    density = training.volume.density.detach()
    assert density.max() > 0
    assert density.min() >= 0
    assert not density[~training.volume.mask.bool()].any()


def test_rates_fall_to_their_last_value() -> None:
    training = make_training(steps=5, hold_rate=0.2, final_rate=0.01)
    start = [group["lr"] for o in (training.critic_optimiser, training.volume_optimiser) for group in o.param_groups]
    run(training)
    end = [group["lr"] for o in (training.critic_optimiser, training.volume_optimiser) for group in o.param_groups]
    np.testing.assert_allclose(np.divide(end, start), 0.01 ** ((4 / 5 - 0.2) / 0.8))


def test_scales_stay_where_they_are_not_learned() -> None:
    fixed, learned = make_training(learn_scales=False), make_training(learn_scales=True)
    run(fixed, until=2)
    run(learned, until=2)
    assert fixed.simulator.log_signal.item() == fixed.simulator.log_noise.item() == 0
    assert learned.simulator.log_noise.item() != 0


@pytest.mark.parametrize("settings", [{}, {"augment": False, "ctf_correction": 0.0}])
def test_the_critic_sees_images_of_mean_0_and_deviation_1(settings: dict[str, Any]) -> None:
    training = make_training(**settings)
    seen: list[Tensor] = []
    training.critic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    run(training, until=1)
    real, simulated = seen[0][:, 0], seen[1][:, 0]
    for batch in (real, simulated):
        torch.testing.assert_close(batch.mean((1, 2)), torch.zeros(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(batch.std((1, 2)), torch.ones(8), atol=1e-5, rtol=0)


def test_the_critic_input_undoes_the_ctf() -> None:
    """A noiseless image C x becomes x C^2 / (C^2 + tau), x where C is well above tau."""
    training = make_training(augment=False, ctf_correction=1e-6)
    simulator = training.simulator
    rows = torch.arange(4)
    x = to_half_planes(torch.randn(4, BOX, BOX, generator=torch.Generator().manual_seed(0)))
    transfer = simulator.transfer(rows)
    seen = training.critic_input(to_images(x * transfer), rows, torch.zeros(4))[:, 0]
    expected = standardise(to_images(x * transfer.square() / (transfer.square() + 1e-6)))
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)
    plain = make_training(augment=False, ctf_correction=0.0)
    torch.testing.assert_close(plain.critic_input(expected, rows, torch.zeros(4))[:, 0], expected, atol=1e-5, rtol=0)


def test_the_critic_input_smooths_with_a_gaussian() -> None:
    training = make_training(augment=False, ctf_correction=0.0, smoothing=6.0)
    point = torch.zeros(1, BOX, BOX)
    point[:, BOX // 2, BOX // 2] = 1
    axis = PIXEL * (torch.arange(BOX) - BOX // 2)
    kernel = torch.exp(-(axis[:, None].square() + axis.square()) / (2 * 6.0**2))
    seen = training.critic_input(point, torch.zeros(1, dtype=torch.int64), torch.zeros(1))[:, 0]
    torch.testing.assert_close(seen, standardise(kernel[None]), atol=2e-2, rtol=0)


@pytest.mark.parametrize("augment", [True, False])
def test_the_second_plane_is_the_ctf(augment: bool) -> None:
    training = make_training(architecture="ctf", augment=augment)
    rows = torch.tensor([0, 10, 20])
    noise = torch.randn(3, BOX, BOX, generator=torch.Generator().manual_seed(0))
    image, plane = training.critic_input(noise, rows, torch.tensor([1, 4, 7])).unbind(1)
    assert image.shape == plane.shape
    whole = torch.fft.fft2(torch.fft.irfft2(training.simulator.transfer(rows), s=(BOX, BOX))).real
    if augment:  # the same values in another order
        torch.testing.assert_close(plane.flatten(1).sort()[0], whole.flatten(1).sort()[0], atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(plane, torch.fft.fftshift(whole, dim=(-2, -1)), atol=1e-5, rtol=0)
        torch.testing.assert_close(plane[:, BOX // 2, BOX // 2], training.simulator.transfer(rows)[:, 0, 0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_critic_learns_to_tell_a_frozen_map_from_the_particles(architecture: str) -> None:
    training = make_training(steps=30, architecture=architecture, volume_rate=1e-12, critic_warmup=1)
    gaps = np.array([record["critic_gap"] for record in run(training)])
    assert training.volume.density.abs().max() < 1e-9  # the particles have a disc, the simulated images have none
    assert gaps[-5:].mean() > gaps[0] + 1
    assert gaps[-5:].mean() > 3 * abs(gaps[0])


def test_gradients_of_the_scales_are_clipped() -> None:
    def gradient(limit: float | None) -> Tensor:
        training = make_training(learn_scales=True, scale_clip=limit)
        run(training, until=1)
        grads = [p.grad for p in training.volume_optimiser.param_groups[1]["params"]]
        return torch.stack([grad for grad in grads if grad is not None])

    free = gradient(None)
    limit = float(free.abs().max()) / 3
    torch.testing.assert_close(gradient(limit), free.clamp(-limit, limit))


def test_result_leaves_the_run_alone() -> None:
    training, other = make_training(learn_scales=True), make_training(learn_scales=True)
    run(training, until=2)
    run(other, until=2)
    map = training.result()
    torch.testing.assert_close(map, training.volume().detach() * training.simulator.log_signal.exp().detach())
    assert_same_state(training, other)


def test_records_say_how_it_goes() -> None:
    (record,) = run(make_training(), until=1)
    assert record["step"] == 1
    assert {"minutes", "critic_gap", "signal_scale", "noise_scale", "map_change"} <= record.keys()
    assert all(np.isfinite(value) for value in record.values())
    assert record["map_change"] > 0


def numbered(count: int) -> HeldImages:
    return HeldImages(np.arange(count, dtype=np.float32)[:, None, None].repeat(2, 1).repeat(2, 2))


def rows_of(sampler: Sampler, batches: int) -> list[int]:
    return [int(row) for _ in range(batches) for row in sampler.rows()]


def test_sampler_passes_through_all_particles() -> None:
    sampler = Sampler(numbered(10), 3, torch.Generator().manual_seed(0), CPU)
    rows = rows_of(sampler, 20)
    passes = [rows[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(part) == list(range(10)) for part in passes)
    assert len({tuple(part) for part in passes}) == 6  # each in an order of its own


def test_sampler_serves_batches_larger_than_the_set() -> None:
    sampler = Sampler(numbered(3), 7, torch.Generator().manual_seed(0), CPU)
    rows = rows_of(sampler, 3)
    assert all(sorted(rows[i : i + 3]) == [0, 1, 2] for i in range(0, 21, 3))


def test_sampler_goes_on_where_it_was_saved() -> None:
    sampler, other = (Sampler(numbered(10), 4, torch.Generator().manual_seed(seed), CPU) for seed in (0, 9))
    rows_of(sampler, 4)
    other.load_state_dict(sampler.state_dict())
    assert rows_of(other, 6) == rows_of(sampler, 6)


def test_first_particles_do_not_move_the_sampler() -> None:
    sampler, other = (Sampler(numbered(10), 4, torch.Generator().manual_seed(0), CPU) for _ in range(2))
    images, rows = sampler.first(4)
    assert images[:, 0, 0].tolist() == rows.tolist() == [0, 1, 2, 3]
    assert len(sampler.first(99)[0]) == 10
    assert rows_of(other, 6) == rows_of(sampler, 6)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from cryogan.run.checkpoint import save_checkpoint
from cryogan.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint(Path(sys.argv[1]), {"x": torch.ones(100_000)})
except InputError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are POSIX's")
@pytest.mark.parametrize("with_old", [True, False])
def test_a_full_disk_leaves_the_last_checkpoint_good(with_old: bool, tmp_path: Path) -> None:
    path = tmp_path / "half1.pt"
    if with_old:
        save_checkpoint(path, {"x": torch.arange(5)})
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stdout.splitlines()
    assert str(path) in line
    assert "--resume" in line
    assert ("The last one is good" in line) == with_old
    assert [file.name for file in tmp_path.iterdir()] == (["half1.pt"] if with_old else [])
    if with_old:
        assert torch.equal(load_checkpoint(path, CPU)["x"], torch.arange(5))


def test_a_checkpoint_replaces_the_last(tmp_path: Path) -> None:
    for value in (1, 2):
        save_checkpoint(tmp_path / "half1.pt", {"x": torch.tensor(value)})
    assert load_checkpoint(tmp_path / "half1.pt", CPU)["x"].item() == 2
    assert [file.name for file in tmp_path.iterdir()] == ["half1.pt"]


def test_a_checkpoint_without_a_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is none yet"):
        save_checkpoint(tmp_path / "no" / "half1.pt", {"x": torch.tensor(1)})


GARBAGE = {
    "text": b"no checkpoint at all\n",
    "empty": b"",
    "zeros": bytes(5000),
    "zip start": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_not_a_checkpoint(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "half1.pt"
    path.write_bytes(GARBAGE[kind])
    with pytest.raises(InputError, match=r"half1\.pt is not a checkpoint"):
        load_checkpoint(path, CPU)


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half1.pt"
    save_checkpoint(path, {"x": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="is not a checkpoint"):
        load_checkpoint(path, CPU)


def test_a_missing_checkpoint_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "half1.pt", CPU)
