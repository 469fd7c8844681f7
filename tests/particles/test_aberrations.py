"""What CTF refinement found: exact where it is a change of the CTF, and RELION's numbers where RELION has them."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.particles import (
    open_stack,
    read_particles,
    read_star,
    unmodelled,
    write_particles,
    write_stack,
    write_star,
    write_volume,
)
from cryogan.particles.aberrations import EXTRA_DEFAULTS, even_order, odd_order, tilt_scale, wavelength

Make = Callable[..., Path]

needs_relion = pytest.mark.skipif(
    shutil.which("relion_project") is None, reason="RELION is not installed (Debian package relion)"
)
MAGNIFIED = {"rlnMagMat00": [1.02], "rlnMagMat01": [0.01], "rlnMagMat10": [0.012], "rlnMagMat11": [0.98]}


def zernike(order: tuple[int, int], kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """The polynomials as RELION writes them (Zernike.cpp), up to the fourth order."""
    r, angle = np.hypot(kx, ky), np.arctan2(ky, kx)
    radial = {
        (0, 0): 1,
        (1, 1): r,
        (2, 0): 2 * r**2 - 1,
        (2, 2): r**2,
        (3, 1): 3 * r**3 - 2 * r,
        (3, 3): r**3,
        (4, 0): 6 * r**4 - 6 * r**2 + 1,
        (4, 2): 4 * r**4 - 3 * r**2,
        (4, 4): r**4,
    }
    n, m = order
    turned: np.ndarray = radial[n, abs(m)] * (np.cos(m * angle) if m >= 0 else np.sin(-m * angle))
    return turned


def phase(ctf: dict[str, np.ndarray], kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """g of docs/conventions.md, of the first particle."""
    c = {key: float(values[0]) for key, values in ctf.items()}
    wave, k2 = float(wavelength(np.array(c["voltage"]))), kx**2 + ky**2
    angle = np.arctan2(ky, kx) - np.radians(c["defocus_angle"])
    defocus = (c["defocus_u"] + c["defocus_v"]) / 2 + (c["defocus_u"] - c["defocus_v"]) / 2 * np.cos(2 * angle)
    g: np.ndarray = (
        -np.pi * wave * defocus * k2
        + np.pi / 2 * c["spherical_aberration"] * 1e7 * wave**3 * k2**2
        - np.radians(c["phase_shift"])
    )
    return g


@pytest.fixture
def frequencies() -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-0.2, 0.2, 81)
    kx, ky = np.meshgrid(axis, axis)
    return kx, ky


def test_even_terms_are_a_change_of_the_ctf(make_star: Make, frequencies: tuple[np.ndarray, np.ndarray]) -> None:
    even = [0.3, 4.0, 3.0, -5.0, 1.1, 2.0, 1.5, -3.0, -0.8]
    plain = read_particles(make_star())
    table = read_particles(make_star({"rlnEvenZernike": [f"[{','.join(map(str, even))}]"]}))
    whole = sum(c * zernike(nm, *frequencies) for c, nm in zip(even, even_order(9), strict=True))
    (left,) = table.aberrations
    r, angle = np.hypot(*frequencies), np.arctan2(frequencies[1], frequencies[0])
    rest = sum(
        value * r**n * (np.cos(m * angle) if m >= 0 else np.sin(-m * angle)) for (n, m), value in left.terms.items()
    )
    np.testing.assert_allclose(phase(table.ctf, *frequencies) + rest, phase(plain.ctf, *frequencies) + whole, atol=1e-9)
    assert left.largest_phase(0.2) == pytest.approx(np.degrees(np.abs(rest[r <= 0.2]).max()), rel=0.02)
    assert set(left.terms) == {(4, 2), (4, -2), (4, 4), (4, -4)}
    assert set(table.ctf) == set(plain.ctf)
    assert read_particles(make_star({"rlnEvenZernike": ["[0,0,0,0,0,0,0,0,0]"]})).aberrations == ()


def test_odd_terms_are_a_tilt_a_trefoil_and_a_shift(
    make_star: Make, frequencies: tuple[np.ndarray, np.ndarray]
) -> None:
    odd, tilt = [0.7, -0.4, 12.0, 3.0, -2.0, 25.0], (0.5, -0.3)
    optics = {"rlnOddZernike": [f"[{','.join(map(str, odd))}]"], "rlnBeamTiltX": [tilt[0]], "rlnBeamTiltY": [tilt[1]]}
    table = read_particles(make_star(optics))
    c = {key: float(values[0]) for key, values in table.ctf.items()}
    kx, ky = frequencies
    k2, scale = kx**2 + ky**2, tilt_scale(300.0, 2.7)
    r, angle = np.sqrt(k2), np.arctan2(ky, kx)
    ours = -scale * k2 * (c["beam_tilt_x"] * kx + c["beam_tilt_y"] * ky)
    ours += r**3 * (c["trefoil_x"] * np.cos(3 * angle) + c["trefoil_y"] * np.sin(3 * angle))
    theirs = sum(value * zernike(nm, kx, ky) for value, nm in zip(odd, odd_order(6), strict=True))
    theirs = theirs - scale * k2 * (tilt[0] * kx + tilt[1] * ky)
    shift = np.linalg.lstsq(np.stack([kx.ravel(), ky.ravel()], axis=1), (theirs - ours).ravel(), rcond=None)
    np.testing.assert_allclose(shift[1], 0, atol=1e-20)  # what is left is linear in k
    assert table.aberrations == ()
    assert scale == pytest.approx(2 * np.pi * 1e-3 * 2.7e7 * 0.0196876**2, rel=1e-5)


def test_a_tilt_keeps_its_phase_where_even_terms_change_the_spherical_aberration(make_star: Make) -> None:
    tilted = read_particles(make_star({"rlnBeamTiltX": [0.5]}))
    both = read_particles(make_star({"rlnBeamTiltX": [0.5], "rlnEvenZernike": ["[0,0,0,0,0,0,8.0,0,0]"]}))
    assert both.ctf["spherical_aberration"][0] > 1.1 * tilted.ctf["spherical_aberration"][0]
    phases = [table.ctf["beam_tilt_x"] * table.ctf["spherical_aberration"] for table in (tilted, both)]
    np.testing.assert_allclose(*phases)


def test_columns_are_there_only_where_one_is_used(make_star: Make, make_cs: Make) -> None:
    plain = set(read_particles(make_star()).ctf)
    assert not plain & set(EXTRA_DEFAULTS)
    unused = {"rlnBeamTiltX": [0.0], "rlnMagMat00": [1.0], "rlnMagMat11": [1.0], "rlnCtfDataArePhaseFlipped": [0]}
    assert set(read_particles(make_star(unused)).ctf) == plain
    table = read_particles(make_star(MAGNIFIED))
    assert {key: float(values[3]) for key, values in table.ctf.items() if key in EXTRA_DEFAULTS} == EXTRA_DEFAULTS | {
        "magnification_00": 1.02,
        "magnification_01": 0.01,
        "magnification_10": 0.012,
        "magnification_11": 0.98,
    }
    flipped = read_particles(make_star({"rlnCtfDataArePhaseFlipped": [1]}))
    np.testing.assert_array_equal(flipped.ctf["phase_flipped"], 1)
    zero = {f"ctf__{name}": np.zeros((6, width), np.float32) for name, width in (("tilt_A", 2), ("anisomag", 4))}
    assert set(read_particles(make_cs(**zero)).ctf) == plain


def test_fields_of_cryosparc(make_cs: Make, tmp_path: Path) -> None:
    fields = {
        "ctf__tilt_A": np.tile(np.float32([50.0, -20.0]), (6, 1)),
        "ctf__trefoil_A": np.tile(np.float32([800.0, 400.0]), (6, 1)),
        "ctf__tetra_A": np.tile(np.float32([300.0, 0.0, 0.0, -40.0]), (6, 1)),
        "ctf__anisomag": np.tile(np.float32([0.02, 0.004, 0.003, -0.02]), (6, 1)),
    }
    table = read_particles(make_cs(**fields))
    wave = float(wavelength(np.array(200.0)))
    c = {key: float(values[0]) for key, values in table.ctf.items()}
    assert c["beam_tilt_x"] == pytest.approx(1e3 * 50 / 0.01e7, rel=1e-5)  # Cs of 0.01 mm
    assert c["trefoil_y"] == pytest.approx(-2 * np.pi / 3 * wave**2 * 400, rel=1e-5)
    matrix = [c[f"magnification_{name}"] for name in ("00", "01", "10", "11")]
    np.testing.assert_allclose(matrix, [1.02, 0.004, 0.003, 0.98], rtol=1e-5)
    (left,) = table.aberrations
    assert left.column == "ctf/tetra_A"
    assert left.terms == pytest.approx(
        {(4, 2): 2 * np.pi * wave**3 * 300, (4, -4): -np.pi / 2 * wave**3 * 40}, rel=1e-5
    )
    # The STAR that the halves of a run read has them too.
    write_particles(tmp_path / "p.star", table)
    back = read_particles(tmp_path / "p.star")
    for key, values in table.ctf.items():
        np.testing.assert_allclose(back.ctf[key], values, rtol=1e-5, atol=1e-5)
    assert read_star(tmp_path / "p.star")["optics"].columns["rlnOddZernike"][0].startswith("[0,0,")


def test_what_is_taken_into_account_is_said_with_its_size(make_star: Make) -> None:
    table = read_particles(make_star(MAGNIFIED | {"rlnBeamTiltX": [3.0], "rlnCtfDataArePhaseFlipped": [1]}))
    found = {finding.code: finding for finding in unmodelled(table, 16, 4.0, radius_A=10.0)}
    assert list(found) == ["magnification", "beam-tilt", "phase-flipped"]
    assert {finding.severity for finding in found.values()} == {"note"}
    # 3 mrad are 2 pi 1e-3 Cs lambda^2 3 k^3: 22 degrees at 1/8 per A.
    assert found["beam-tilt"].values["degrees"] == pytest.approx(np.degrees(tilt_scale(300.0, 2.7) * 3 / 512))
    stretch = np.linalg.norm([[0.02, 0.01], [0.012, -0.02]], 2)
    assert found["magnification"].values["pixels"] == pytest.approx(stretch * 10 / 4)
    assert found["phase-flipped"].values["images"] == 6


def test_higher_orders_are_measured_at_the_nyquist_frequency(make_star: Make) -> None:
    even = [0.0] * 9
    even[8] = 500.0
    table = read_particles(make_star({"rlnEvenZernike": [f"[{','.join(map(str, even))}]"]}))
    (coarse,), (middle,), (fine,) = (unmodelled(table, 16, size) for size in (5.0, 4.0, 2.0))
    assert middle.values["degrees"] == pytest.approx(np.degrees(500 / 8**4))
    assert (coarse.severity, middle.severity, fine.severity) == ("note", "warning", "error")
    assert fine.values["column"] == "_rlnEvenZernike"
    with pytest.raises(InputError, match=r'_rlnEvenZernike is "\[1,x\]"\. Write numbers'):
        read_particles(make_star({"rlnEvenZernike": ["[1,x]"]}))


@pytest.mark.parametrize(
    ("values", "severity"),
    [
        ([-13.0 * number for number in range(1, 7)], "error"),  # Warp, M
        ([-200.0, 1.0, 1.0, 1.0, 1.0, 1.0], "error"),  # grows tenfold
        ([-2.0, 1.0, 1.0, 1.0, 1.0, 1.0], "warning"),
        ([20.0] * 6, None),
    ],
)
def test_negative_b_factors(make_star: Make, values: list[float], severity: str | None) -> None:
    found = unmodelled(read_particles(make_star(particles={"rlnCtfBfactor": values})), 16, 2.5)
    assert [finding.severity for finding in found] == ([] if severity is None else [severity])
    if severity == "error":
        assert "tilt series" in found[0].sentence
        assert found[0].values["growth"] == pytest.approx(np.exp(-min(values) / 4 / 25))


def test_helical_segments_are_said(make_star: Make) -> None:
    (found,) = unmodelled(read_particles(make_star(particles={"rlnHelicalTubeID": [1, 1, 1, 2, 2, 2]})), 16, 2.5)
    assert (found.code, found.severity) == ("helical-segments", "warning")
    assert (found.values["segments"], found.values["tubes"]) == (6, 4)  # on two micrographs


@needs_relion
def test_relion_makes_the_same_images_of_even_terms_and_of_the_ctf_that_we_read(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).standard_normal((32, 32, 32)).astype(np.float32)
    write_volume(tmp_path / "v.mrc", volume, 2.0)
    write_stack(tmp_path / "s.mrcs", np.zeros((2, 32, 32)), 2.0)
    even = [0.3, 4.0, 3.0, -5.0, 0, 0, 1.5, 0, 0]

    def images(name: str, ctf: dict[str, list[float]], extra: dict[str, list[str]]) -> np.ndarray:
        constants = {"rlnVoltage": [300.0], "rlnAmplitudeContrast": [0.1]}
        constants |= {"rlnSphericalAberration": ctf.pop("rlnSphericalAberration")}
        optics = {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["a"], "rlnImagePixelSize": [2.0], "rlnImageSize": [32]}
        poses = {"rlnAngleRot": [10.0, 50.0], "rlnAngleTilt": [30.0, 70.0], "rlnAnglePsi": [0.0, 20.0]}
        named = {"rlnImageName": ["1@s.mrcs", "2@s.mrcs"], "rlnOpticsGroup": [1, 1]}
        blocks = {
            "optics": optics | constants | {"rlnImageDimensionality": [2]} | extra,
            "particles": named | poses | ctf | {"rlnOriginXAngst": [0.0] * 2, "rlnOriginYAngst": [0.0] * 2},
        }
        write_star(tmp_path / f"{name}.star", blocks)
        command = ["relion_project", "--i", "v.mrc", "--o", name, "--ang", f"{name}.star", "--ctf", "--angpix", "2.0"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
        return np.array(open_stack(tmp_path / f"{name}.mrcs"))

    given = {"rlnDefocusU": [8000.0, 9000.0], "rlnDefocusV": [7800.0, 8500.0], "rlnDefocusAngle": [20.0, -40.0]}
    given |= {"rlnPhaseShift": [0.0, 0.0]}
    theirs = images("a", given | {"rlnSphericalAberration": [2.7]}, {"rlnEvenZernike": [f"[{str(even)[1:-1]}]"]})
    table = read_particles(tmp_path / "a.star")
    assert table.aberrations == ()
    c = {key: values.tolist() for key, values in table.ctf.items()}
    read = {"rlnDefocusU": c["defocus_u"], "rlnDefocusV": c["defocus_v"], "rlnDefocusAngle": c["defocus_angle"]}
    read |= {"rlnPhaseShift": c["phase_shift"], "rlnSphericalAberration": c["spherical_aberration"][:1]}
    ours, plain = images("b", read, {}), images("c", given | {"rlnSphericalAberration": [2.7]}, {})
    assert np.abs(ours - theirs).max() < 1e-4 * theirs.std()
    assert np.abs(plain - theirs).max() > 0.5 * theirs.std()
