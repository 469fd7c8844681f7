"""Units that are wrong, fits that failed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryogan.errors import InputError
from cryogan.particles import read_particles

Make = Callable[..., Path]

U = np.array([13_000.0, 12_000.0, 11_000.0, 14_000.0, 13_500.0, 20_000.0])


def defocus(factor: float = 1.0, **values: Any) -> dict[str, Any]:
    changes = {int(row[3:]): value for row, value in values.items()}
    u, v = factor * U, factor * (U - 300)
    for row, value in changes.items():
        u[row], v[row] = value
    return {"rlnDefocusU": u.tolist(), "rlnDefocusV": v.tolist()}


@pytest.mark.parametrize(
    ("optics", "particles", "complaint"),
    [
        (
            {"rlnVoltage": [300_000.0]},
            {},
            r"_rlnVoltage \(in data_optics\) is 300000 kV, .* \(6 of 6 rows\)\. .*in volts: write 300\.",
        ),
        ({"rlnVoltage": [0.3]}, {}, r"_rlnVoltage \(in data_optics\) is 0\.3 kV, which no microscope has"),
        ({"rlnSphericalAberration": [2.7e7]}, {}, r"is 2\.7e\+07 mm, .*another unit\. Write it in mm, such as 2\.7"),
        ({"rlnSphericalAberration": [-2.7]}, {}, r"is -2\.7 mm, and only an aberration corrector"),
        ({"rlnAmplitudeContrast": [7.0]}, {}, r"is 7, .* It seems to be in percent: write 0\.07\."),
        ({"rlnAmplitudeContrast": [-0.1]}, {}, r"is -0\.1 .*Write a share from 0 to 1"),
        ({"rlnMagMat00": [0.0]}, {}, r"magnification 00 is 0, which is far from the identity"),
        ({}, defocus(1e-4), r"_rlnDefocusU is 1\.3 A, .*micrometres: multiply the defocus by 10,000"),
        ({}, defocus(-1.0), r"_rlnDefocusU is -13000 A, which is overfocus \(6 of 6 rows\)\. Underfocus is positive"),
        ({}, defocus(0.0, row0=(0.0, 0.0)), r"_rlnDefocusU is .*The CTF was not estimated"),
        ({}, defocus(row2=(0.0, 0.0)), r"_rlnDefocusU is 0 A, as where a CTF fit failed \(1 of 6 rows\)\. Remove such"),
        ({}, defocus(row3=(99_999_999.0, 1e4)), r"_rlnDefocusU is 1e\+08 A .*\(1 of 6 rows\)\. The CTF fit failed"),
        ({}, defocus(row3=(1e4, 99_999_999.0)), r"_rlnDefocusV is 1e\+08 A"),
    ],
)
def test_what_cannot_be_is_refused(make_star: Make, optics: Any, particles: Any, complaint: str) -> None:
    if particles and not any(particles["rlnDefocusU"]):
        particles = {"rlnDefocusU": [0.0] * 6, "rlnDefocusV": [0.0] * 6}
    with pytest.raises(InputError, match=r"particles\.star, line \d+: .*" + complaint):
        read_particles(make_star(optics, defocus() | particles))


@pytest.mark.parametrize(
    ("optics", "particles", "code", "rows"),
    [
        ({"rlnSphericalAberration": [0.0027]}, {}, "cs-small", 6),
        ({"rlnSphericalAberration": [27.0]}, {}, "cs-large", 6),
        ({"rlnSphericalAberration": [-0.01]}, {}, "cs-negative", 6),
        ({}, defocus(0.1), "weak-defocus", 6),
        ({}, defocus(row1=(-12_000.0, -12_300.0)), "overfocus", 1),
        ({}, defocus(row1=(20.0, 10.0)), "near-focus", 1),
        ({}, defocus(row1=(150_000.0, 149_000.0)), "strong-defocus", 1),
        ({}, defocus(row1=(30_000.0, 12_000.0)), "astigmatic", 1),
    ],
)
def test_what_hardly_can_be_is_doubted_and_counted(
    make_star: Make, optics: Any, particles: Any, code: str, rows: int
) -> None:
    (finding,) = read_particles(make_star(optics, defocus() | particles)).findings
    assert (finding.code, finding.severity) == (code, "warning")
    assert (finding.values["rows"], finding.values["of"]) == (rows, 6)
    assert "particles.star, line" in finding.sentence


@pytest.mark.parametrize(
    ("optics", "particles"),
    [
        ({}, {}),
        ({"rlnSphericalAberration": [0.01]}, {}),  # a corrector
        ({"rlnSphericalAberration": [0.0]}, {}),
        ({"rlnVoltage": [120.0], "rlnAmplitudeContrast": [1.0]}, {}),
        ({}, defocus(0.0) | {"rlnPhaseShift": [90.0] * 6}),  # a phase plate in focus
        ({}, defocus(0.01) | {"rlnPhaseShift": [90.0] * 6}),
        ({"rlnAmplitudeContrast": [1.0]}, {"rlnDefocusU": [0.0] * 6, "rlnDefocusV": [0.0] * 6}),  # images without a CTF
    ],
)
def test_what_is_real_passes_without_a_doubt(make_star: Make, optics: Any, particles: Any) -> None:
    path = make_star(optics, defocus() | particles)
    assert [finding.code for finding in read_particles(path).findings] == []


def test_cs_files_name_their_own_columns(make_cs: Make) -> None:
    with pytest.raises(InputError, match=r"particles\.cs, row 1: ctf/accel_kv is 200000 kV.*write 200\."):
        read_particles(make_cs(ctf__accel_kv=np.full(6, 2e5, np.float32)))
    table = read_particles(make_cs(ctf__cs_mm=np.full(6, 0.0027, np.float32)))
    assert "ctf/cs_mm" in table.findings[0].sentence
