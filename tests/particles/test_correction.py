"""Anisotropic magnification, beam tilt and trefoil: images with them, in closed form, and RELION's maps of these."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryogan.optics import wavelength
from cryogan.particles import ParticleImages, read_particles, read_volume, write_stack, write_star
from cryogan.particles.correction import MAGNIFICATION, ODD, correct, odd_phase, shifts_in_file, undo_magnification

Array = NDArray[np.float64]

BOX, PIXEL = 48, 3.0
IDENTITY = np.eye(2)
MATRIX = np.array([[1.03, 0.03], [-0.01, 0.98]])
TILT, TREFOIL = (5.0, -3.0), (700.0, -400.0)
K = np.stack(np.meshgrid(np.fft.rfftfreq(BOX), np.fft.fftfreq(BOX)))  # kx, ky in 1 / pixel
NYQUIST = np.hypot(*K) < 0.5
RNG = np.random.default_rng(4)
CENTRES, WIDTHS, WEIGHTS = RNG.uniform(-8, 8, (12, 3)), RNG.uniform(1.6, 2.6, 12), RNG.uniform(0.5, 1.5, 12)


def turned(matrix: Array) -> Array:
    """The frequencies M k, (2, D, D // 2 + 1)."""
    return np.tensordot(matrix, K, 1)


def microscope_phase(matrix: Array, tilt: tuple[float, float], trefoil: tuple[float, float]) -> Array:
    """phi(M k) with the trefoil in polar coordinates, and RELION's 0.36 degrees for the beam tilt."""
    kx, ky = turned(matrix) / PIXEL
    k, angle = np.hypot(kx, ky), np.arctan2(ky, kx)
    degrees = -0.36 * 2.7e7 * wavelength(300.0) ** 2 * k**2 * (tilt[0] * kx + tilt[1] * ky)
    return np.radians(degrees) + k**3 * (trefoil[0] * np.cos(3 * angle) + trefoil[1] * np.sin(3 * angle))


def image(rotation: Array, shift: Array, matrix: Array = IDENTITY, phase: Array | float = 0.0) -> NDArray[np.float32]:
    """C S P x of twelve Gaussians under a microscope with these aberrations; the shift is as in the file, in pixels."""
    kx, ky = turned(matrix) / PIXEL
    wave, k2 = wavelength(300.0), kx**2 + ky**2
    defocus = 13500 + 1500 * np.cos(2 * (np.arctan2(ky, kx) - np.radians(30)))
    ctf = np.sin(np.pi * wave * defocus * k2 - np.pi / 2 * 2.7e7 * wave**3 * k2**2 + np.arcsin(0.1))
    points = np.tensordot(rotation[:, :2], turned(matrix), 1)
    plane = sum(
        weight
        * width**3
        * np.exp(-2 * (np.pi * width) ** 2 * (points**2).sum(0) - 2j * np.pi * np.tensordot(c, points, 1))
        for c, width, weight in zip(CENTRES, WIDTHS, WEIGHTS, strict=True)
    )
    plane = plane * ctf * np.exp(2j * np.pi * np.tensordot(shift, K, 1) + 1j * phase) * NYQUIST
    return np.fft.fftshift(np.fft.irfft2(plane, s=(BOX, BOX))).astype(np.float32)


def columns(
    count: int, matrix: Array = IDENTITY, tilt: tuple[float, float] = (0, 0), trefoil: tuple[float, float] = (0, 0)
) -> dict[str, Array]:
    values = (*matrix.ravel(), *tilt, *trefoil, 300.0, 2.7)
    names = (*MAGNIFICATION, *ODD, "voltage", "spherical_aberration")
    return {name: np.full(count, value) for name, value in zip(names, values, strict=True)}


def error(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("matrix", [MATRIX, MATRIX.T, 1.02 * IDENTITY, np.array([[0.98, 0], [0, 1.02]])])
@pytest.mark.parametrize("odd", [((0, 0), (0, 0)), (TILT, TREFOIL)], ids=["magnification", "all"])
def test_corrected_image_is_that_of_a_microscope_without_aberrations(
    matrix: Array, odd: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    rotation, shift = Rotation.random(random_state=2).as_matrix(), np.array([2.0, -1.5])
    optics = columns(1, matrix, *odd)
    seen = image(rotation, shifts_in_file(shift[None], optics)[0], matrix, microscope_phase(matrix, *odd))
    expected = image(rotation, shift)
    assert error(seen, expected) > 0.05
    assert error(correct(seen[None], optics, PIXEL)[0], expected) < 0.002


def test_each_image_gets_its_own_correction() -> None:
    images = np.stack([image(r, np.zeros(2)) for r in Rotation.random(4, random_state=3).as_matrix()])
    optics, others = columns(4), columns(4, MATRIX, TILT)
    mixed = {name: np.where([0, 1, 0, 1], others[name], values) for name, values in optics.items()}
    corrected = correct(images, mixed, PIXEL)
    np.testing.assert_array_equal(corrected[::2], images[::2])
    np.testing.assert_allclose(corrected[1::2], correct(images, others, PIXEL)[1::2], atol=1e-6)
    assert error(corrected[1::2], images[1::2]) > 0.05


def test_nothing_is_done_without_the_columns() -> None:
    images = np.ones((2, BOX, BOX), dtype=np.float32)
    without = {"voltage": np.full(2, 300.0), "spherical_aberration": np.full(2, 2.7)}
    assert correct(images, without, PIXEL) is images
    shifts = np.ones((2, 2))
    assert shifts_in_file(shifts, without) is shifts


def test_phase_is_left_where_the_microscope_is_not_known() -> None:
    images = np.random.default_rng(1).standard_normal((2, BOX, BOX)).astype(np.float32)
    unknown = columns(2, tilt=TILT) | {"voltage": np.full(2, np.nan)}
    np.testing.assert_array_equal(correct(images, unknown, PIXEL), images)


def test_phase_is_odd_and_noise_stays_white() -> None:
    phase = odd_phase(BOX, PIXEL, *TILT, *TREFOIL, 300.0, 2.7)
    np.testing.assert_allclose(phase[1 : BOX // 2, 0], -phase[: BOX // 2 : -1, 0], atol=1e-12)
    noise = np.random.default_rng(2).standard_normal((200, BOX, BOX)).astype(np.float32)
    corrected = correct(noise, columns(200, tilt=TILT, trefoil=TREFOIL), PIXEL)
    power = (np.abs(np.fft.rfft2(corrected)) ** 2).mean(0) / BOX**2
    assert power[1:, 1:-1].mean() == pytest.approx(1, abs=0.01)
    assert error(corrected, noise) > 0.3


def test_a_wave_is_stretched() -> None:
    """Times |det M|: a projection of a map that is stretched in one direction keeps its sum."""
    x = np.arange(BOX) - BOX // 2
    wave = np.cos(2 * np.pi * 6 / BOX * x)[None, None, :].repeat(BOX, 1).astype(np.float32)
    scaled = undo_magnification(wave, np.diag([1.02, 1.0]))[0]
    inside = slice(BOX // 4, 3 * BOX // 4)
    expected = 1.02 * np.cos(2 * np.pi * 6 / BOX * 1.02 * x)
    np.testing.assert_allclose(scaled[:, inside], np.broadcast_to(expected[inside], (BOX, BOX // 2)), atol=0.05)


def test_particles_of_a_star_file_are_corrected(tmp_path: Path) -> None:
    """As they are read from RELION's columns, at half the box, against particles without aberrations."""
    rotations = Rotation.random(4, random_state=6).as_matrix()
    shared: dict[str, list[object]] = {
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL],
        "rlnImageSize": [BOX],
    }
    matrix = {f"rlnMagMat{name[-2:]}": [value] for name, value in zip(MAGNIFICATION, MATRIX.ravel(), strict=True)}
    odd = {
        "rlnBeamTiltX": [TILT[0]],
        "rlnBeamTiltY": [TILT[1]],
        "rlnOddZernike": [f"[0,0,{TREFOIL[1]},0,0,{TREFOIL[0]}]"],
    }

    def read(name: str, images: list[NDArray[np.float32]], optics: dict[str, list[object]]) -> NDArray[np.float32]:
        write_stack(tmp_path / f"{name}.mrcs", np.stack(images), PIXEL)
        particles = {
            "rlnImageName": [f"{i + 1}@{name}.mrcs" for i in range(4)],
            "rlnOpticsGroup": [1] * 4,
            "rlnDefocusU": [15000.0] * 4,
            "rlnDefocusV": [12000.0] * 4,
            "rlnDefocusAngle": [30.0] * 4,
        }
        write_star(tmp_path / f"{name}.star", {"optics": optics, "particles": particles})
        return ParticleImages(read_particles(tmp_path / f"{name}.star"), BOX // 2, 50.0).batch(np.arange(4))

    phase = microscope_phase(MATRIX, TILT, TREFOIL)
    expected = read("plain", [image(r, np.zeros(2)) for r in rotations], shared)
    aberrated = [image(r, np.zeros(2), MATRIX, phase) for r in rotations]
    assert error(read("corrected", aberrated, shared | matrix | odd), expected) < 0.002
    assert error(read("uncorrected", aberrated, shared), expected) > 0.05


@pytest.fixture(scope="module")
def reconstruct(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., float]:
    """`relion_reconstruct` of 300 images, with columns of the optics table; the FSC with the true map."""
    if shutil.which("relion_reconstruct") is None:
        pytest.skip("RELION is not installed (Debian package relion)")
    folder = tmp_path_factory.mktemp("relion")
    rotations = Rotation.random(300, random_state=5)
    euler, shifts = rotations.as_euler("ZYZ", degrees=True), RNG.uniform(-3, 3, (300, 2))
    axis = np.arange(BOX) - BOX // 2
    truth = sum(
        weight * np.einsum("i,j,k->ijk", *(np.exp(-((axis - c) ** 2) / (2 * width**2)) for c in centre[::-1]))
        for centre, width, weight in zip(CENTRES, WIDTHS, WEIGHTS, strict=True)
    )

    def run(matrix: Array, phase: Array | float, optics: dict[str, object]) -> float:
        images = [image(r, s, matrix, phase) for r, s in zip(rotations.as_matrix(), shifts, strict=True)]
        write_stack(folder / "images.mrcs", np.stack(images), PIXEL)
        names = ["OpticsGroup", "Voltage", "SphericalAberration", "AmplitudeContrast", "ImagePixelSize", "ImageSize"]
        head = [f"_rln{name}" for name in (*names, "ImageDimensionality", *optics)]
        rows = ["AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst", "ImageName"]
        rows += ["OpticsGroup", "DefocusU", "DefocusV", "DefocusAngle"]
        particles = [
            f"{rot:.5f} {tilt:.5f} {psi:.5f} {PIXEL * x:.5f} {PIXEL * y:.5f} {i + 1:06d}@images.mrcs 1 15000 12000 30"
            for i, ((rot, tilt, psi), (x, y)) in enumerate(zip(euler, shifts, strict=True))
        ]
        lines = ["# version 30001", "", "data_optics", "", "loop_", *head]
        lines += [f"1 300 2.7 0.1 {PIXEL} {BOX} 2 " + " ".join(map(str, optics.values())), "", "# version 30001", ""]
        lines += ["data_particles", "", "loop_", *(f"_rln{name}" for name in rows), *particles, ""]
        (folder / "images.star").write_text("\n".join(lines))
        command = ["relion_reconstruct", "--i", "images.star", "--o", "map.mrc", "--ctf", "--maxres", "8"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
        k = np.fft.fftfreq(BOX, 1 / BOX)
        radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k[: BOX // 2 + 1] ** 2)
        outer = (radius > 12) & (radius < 17)
        found, true = np.fft.rfftn(read_volume(folder / "map.mrc")[0])[outer], np.fft.rfftn(truth)[outer]
        return float((found * true.conj()).real.sum() / np.linalg.norm(found) / np.linalg.norm(true))

    return run


def test_relion_takes_the_same_aberrations_out(reconstruct: Callable[..., float]) -> None:
    """Images with our factors: RELION's map is as good as without aberrations only with the same numbers, as signed."""
    matrix = {f"MagMat{name[-2:]}": value for name, value in zip(MAGNIFICATION, MATRIX.ravel(), strict=True)}
    tilt = dict(zip(("BeamTiltX", "BeamTiltY"), TILT, strict=True))
    trefoil = {"OddZernike": f"[0,0,{TREFOIL[1]},0,0,{TREFOIL[0]}]"}
    phase = microscope_phase(MATRIX, TILT, TREFOIL)
    plain = reconstruct(IDENTITY, 0.0, {})
    both = reconstruct(MATRIX, phase, {**matrix, **tilt, **trefoil})
    assert both == pytest.approx(plain, abs=0.002)
    assert reconstruct(MATRIX, phase, {**tilt, **trefoil}) < plain - 0.02
    assert reconstruct(MATRIX, phase, {**matrix, **trefoil}) < plain - 0.001
    assert reconstruct(MATRIX, phase, {**matrix, **tilt}) < plain - 0.005
