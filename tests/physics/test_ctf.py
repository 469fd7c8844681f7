"""The CTF against the formula that was checked against RELION, written anew with NumPy."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from cryogan.optics import wavelength
from cryogan.particles import open_stack, write_star, write_volume
from cryogan.physics.ctf import CtfParameters, ctf, objective_aperture_cutoff
from cryogan.physics.noise import WhiteNoise
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Imaging, Simulator
from cryogan.rotations import euler_to_rotations

if TYPE_CHECKING:
    from conftest import Gaussians

CPU = torch.device("cpu")
BOX, PIXEL = 64, 2.1
NAMES = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "voltage",
    "spherical_aberration",
    "amplitude_contrast",
    "phase_shift",
    "b_factor",
    "scale",
)
ROWS = {
    "plain": (12000, 11800, 30, 300, 2.7, 0.1, 0, 0, 1),
    "large astigmatism": (25000, 12000, -70, 300, 2.7, 0.07, 0, 0, 1),
    "U < V": (9000, 21000, 115, 200, 2.0, 0.1, 0, 0, 1),
    "overfocus": (-4000, -6000, 10, 300, 2.7, 0.1, 0, 0, 1),
    "phase shift": (7000, 6500, 45, 300, 0.01, 0.07, 90, 0, 1),
    "B-factor and scale": (15000, 15000, 0, 100, 1.4, 0.2, 25, 100, 0.8),
    "amplitude contrast only": (15000, 14000, 20, 300, 2.7, 1.0, 0, 0, 1),
}


def parameters(*rows: tuple[float, ...], dtype: torch.dtype = torch.float64) -> CtfParameters:
    columns = {name: np.array(values, dtype=float) for name, values in zip(NAMES, zip(*rows, strict=True), strict=True)}
    return CtfParameters.from_columns(columns, device=CPU, dtype=dtype)


def written_anew(row: tuple[float, ...], box: int, pixel_size: float) -> np.ndarray:
    """facts.md: g = -pi lambda dz k^2 + pi/2 Cs lambda^3 k^4 - phase - atan(Q / sqrt(1 - Q^2))."""
    u, v, a0, kilovolt, cs_mm, q, phase, b, scale = row
    volt = kilovolt * 1000
    lam = 12.2643247 / np.sqrt(volt * (1 + volt * 0.978466e-6))
    expected = np.empty((box, box // 2 + 1))
    for i in range(box):
        for j in range(box // 2 + 1):
            ky = (i if i < box / 2 else i - box) / (box * pixel_size)
            kx = j / (box * pixel_size)
            k = np.hypot(kx, ky)
            dz = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (np.arctan2(ky, kx) - np.radians(a0)))
            g = -np.pi * lam * dz * k**2 + np.pi / 2 * cs_mm * 1e7 * lam**3 * k**4 - np.radians(phase)
            g -= np.pi / 2 if q == 1 else np.arctan(q / np.sqrt(1 - q**2))
            expected[i, j] = -np.sin(g) * np.exp(-b * k**2 / 4) * scale
    return expected


@pytest.mark.parametrize("name", ROWS)
def test_ctf_agrees_with_the_formula(name: str) -> None:
    values = ctf(parameters(ROWS[name]), BOX, PIXEL)[0].numpy()
    np.testing.assert_allclose(values, written_anew(ROWS[name], BOX, PIXEL), atol=1e-5, rtol=0)


def test_single_precision_is_good_enough() -> None:
    rows = list(ROWS.values())
    exact = ctf(parameters(*rows), BOX, PIXEL)
    single = ctf(parameters(*rows, dtype=torch.float32), BOX, PIXEL)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, atol=1e-4, rtol=0)


def test_rows_do_not_mix() -> None:
    rows = list(ROWS.values())
    together = ctf(parameters(*rows), 16, PIXEL)
    alone = torch.cat([ctf(parameters(row), 16, PIXEL) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)
    some = parameters(*rows)[torch.tensor([4, 1, 1])]
    assert len(some) == 3
    torch.testing.assert_close(ctf(some, 16, PIXEL), together[[4, 1, 1]], atol=1e-12, rtol=0)


def test_wavelength_at_300_kv() -> None:
    assert wavelength(torch.tensor(300.0, dtype=torch.float64)).item() == pytest.approx(0.0196876, abs=1e-7)


def test_bright_protein_stays_bright_at_low_frequency() -> None:
    values = ctf(parameters(ROWS["plain"]), BOX, PIXEL)[0]
    assert values[0, 0].item() == pytest.approx(0.1, abs=1e-9)  # the amplitude contrast, at the origin
    assert (values[0, :5] > 0).all()  # underfocus: positive up to its first zero, near 1/15 A here
    assert values[0, 4] > values[0, 0]


@pytest.mark.parametrize("value", [1.0, 0.2])
def test_envelope_falls_to_its_value_at_nyquist(value: float) -> None:
    plain = ctf(parameters(ROWS["U < V"]), BOX, PIXEL)[0]
    ratio = ctf(parameters(ROWS["U < V"]), BOX, PIXEL, envelope_at_nyquist=value)[0] / plain
    assert ratio[0, 0].item() == pytest.approx(1)
    assert ratio[0, BOX // 2].item() == pytest.approx(value)
    assert ratio[BOX // 2, 0].item() == pytest.approx(value)
    assert ratio[0, BOX // 4].item() == pytest.approx(value**0.25)  # a Gaussian


def test_aperture_passes_nothing_beyond_its_cutoff() -> None:
    row, cutoff = ROWS["plain"], 0.11
    plain, stopped = ctf(parameters(row), BOX, PIXEL)[0], ctf(parameters(row), BOX, PIXEL, aperture_cutoff=cutoff)[0]
    kx, ky = np.fft.rfftfreq(BOX, PIXEL), np.fft.fftfreq(BOX, PIXEL)
    passed = torch.from_numpy(np.hypot(ky[:, None], kx) <= cutoff)
    assert 0 < passed.sum() < passed.numel()
    torch.testing.assert_close(stopped, torch.where(passed, plain, 0.0))


def test_objective_aperture_cutoff() -> None:
    # Equation (17), k = d / (f lambda): 50 um at 3 mm and 300 kV stop 0.0167 / 0.0196876 A = 0.8466 / A.
    assert objective_aperture_cutoff(50, 3, 300) == pytest.approx(50e-6 / 3e-3 / 0.0196876, rel=1e-5)


def test_no_gradient_is_nan_without_astigmatism() -> None:
    row = parameters((10000, 10000, 0, 300, 2.7, 0.1, 0, 0, 1))
    row.defocus_u.requires_grad_()
    ctf(row, 16, PIXEL).sum().backward()  # type: ignore[no-untyped-call]
    assert row.defocus_u.grad is not None
    assert row.defocus_u.grad.isfinite().all()


def test_factor_of_phase_flipped_images_is_the_absolute_value() -> None:
    rows = parameters(*ROWS.values())
    plain = ctf(rows, BOX, PIXEL)
    flipped = replace(rows, phase_flipped=(torch.arange(len(rows)) % 2).double())
    expected = torch.where((torch.arange(len(rows)) % 2 == 1)[:, None, None], plain.abs(), plain)
    assert (plain < 0).any()
    torch.testing.assert_close(ctf(flipped, BOX, PIXEL), expected, atol=0, rtol=0)
    torch.testing.assert_close(ctf(flipped[torch.tensor([3])], BOX, PIXEL), expected[3:4], atol=0, rtol=0)
    columns = {name: np.array([value]) for name, value in zip(NAMES, ROWS["plain"], strict=True)}
    assert CtfParameters.from_columns(columns, device=CPU).phase_flipped is None
    read = CtfParameters.from_columns(columns | {"phase_flipped": np.ones(1)}, device=CPU)
    assert read.phase_flipped is not None
    assert read.phase_flipped.tolist() == [1.0]


@pytest.mark.skipif(shutil.which("relion_project") is None, reason="RELION is not installed (Debian package relion)")
@pytest.mark.parametrize("flipped", [False, True])
def test_images_are_relions(flipped: bool, gaussians: "Gaussians", tmp_path: Path) -> None:
    """Projection, CTF, and phase flip: `relion_project --ctf [--ctf_phase_flip]`."""
    box, angles, row = 32, (25.0, 70.0, -40.0), (18000.0, 15000.0, 30.0, 300.0, 2.7, 0.1)
    volume = gaussians.volume(box)
    write_volume(tmp_path / "map.mrc", volume.numpy().astype(np.float32), PIXEL)
    pose = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), ([angle] for angle in angles), strict=True))
    names = ("DefocusU", "DefocusV", "DefocusAngle", "Voltage", "SphericalAberration", "AmplitudeContrast")
    optics = {f"rln{name}": [value] for name, value in zip(names, row, strict=True)}
    pixel = {"rlnImagePixelSize": [PIXEL], "rlnImageSize": [box], "rlnImageDimensionality": [2]}
    shared = {name: optics.pop(name) for name in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")}
    images = {"rlnImageName": ["1@none.mrcs"], "rlnOpticsGroup": [1]}
    blocks = {"optics": {"rlnOpticsGroup": [1], **shared, **pixel}, "particles": pose | optics | images}
    write_star(tmp_path / "poses.star", blocks)
    command = [
        "relion_project",
        "--i",
        "map.mrc",
        "--o",
        "made",
        "--ang",
        "poses.star",
        "--angpix",
        str(PIXEL),
        "--ctf",
    ]
    command += ["--ctf_phase_flip"] * flipped
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=60)
    expected = np.array(open_stack(tmp_path / "made.mrcs")).astype(float).squeeze()

    ones = parameters((*row, 0, 0, 1), dtype=torch.float32)
    simulator = Simulator(
        FourierProjector(box, device=CPU),
        replace(ones, phase_flipped=torch.ones(1)) if flipped else ones,
        WhiteNoise(box),
        pixel_size=PIXEL,
        max_shift=0.0,
        generator=torch.Generator(),
    )
    rotations = euler_to_rotations(*(np.array([angle]) for angle in angles)).float()
    phi = Imaging(rotations, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        made = simulator.clean(simulator.projector.transform(volume.float()), phi)[0].double().numpy()
    scale = (made * expected).sum() / (made**2).sum()
    assert np.linalg.norm(scale * made - expected) < 0.03 * np.linalg.norm(expected)
