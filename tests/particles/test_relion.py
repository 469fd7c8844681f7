"""STAR files of RELION, Warp, M and editors: read as their programs read them, or refused by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from builders import TWO_GROUPS
from cryogan.errors import InputError
from cryogan.particles import read_particles, read_star, write_particles, write_stack, write_star, write_volume

Make = Callable[..., Path]


def test_an_optics_group_that_is_defined_twice_is_refused(make_star: Make) -> None:
    path = make_star(TWO_GROUPS | {"rlnOpticsGroup": [1, 1]})
    with pytest.raises(InputError, match=r"line 16: optics group 1 is defined twice \(first in line 15\)\. Give each"):
        read_particles(path)
    with pytest.raises(InputError, match="defined twice"):
        read_particles(make_star(TWO_GROUPS | {"rlnOpticsGroup": ["1", "1.000000"]}))


def test_a_group_number_may_be_written_as_a_decimal(make_star: Make) -> None:
    groups = ["1.000000", "2.000000", "1", "2", "1.0", "2."]
    table = read_particles(make_star(TWO_GROUPS, {"rlnOpticsGroup": groups}))
    np.testing.assert_array_equal(table.ctf["voltage"], [300, 200] * 3)
    table = read_particles(make_star(TWO_GROUPS | {"rlnOpticsGroup": [1.0, 2.0]}, {"rlnOpticsGroup": [2, 1] * 3}))
    np.testing.assert_array_equal(table.ctf["voltage"], [200, 300] * 3)


def test_a_row_goes_before_its_optics_group(make_star: Make) -> None:
    rows = {"rlnVoltage": [200.0] * 6, "rlnSphericalAberration": [2.0] * 6, "rlnPhaseShift": [90.0] * 6}
    table = read_particles(make_star({"rlnPhaseShift": [0.0]}, rows))
    for key, value in {
        "voltage": 200,
        "spherical_aberration": 2.0,
        "phase_shift": 90,
        "amplitude_contrast": 0.07,
    }.items():
        np.testing.assert_array_equal(table.ctf[key], value)
    with pytest.raises(
        InputError, match=r"_rlnImagePixelSize is 3 A, that of its optics group 2\.5 A\. Remove the wrong"
    ):
        read_particles(make_star(particles={"rlnImagePixelSize": [2.5] * 5 + [3.0]}))


@pytest.mark.parametrize("change", ["mark", "capitals", "ends", "comment"])
def test_files_of_other_editors(make_star: Make, change: str) -> None:
    path = make_star()
    plain, text = read_particles(path), path.read_text()
    changed = {
        "mark": "\ufeff" + text.lstrip(),
        "comment": "\ufeff# made elsewhere\n" + text,
        "capitals": text.replace("data_", "DATA_").replace("loop_", "LOOP_"),
        "ends": text.replace("\n", "\r\n"),
    }[change]
    path.write_bytes(changed.encode())
    table = read_particles(path)
    assert (len(table), table.pixel_size) == (6, 2.5)
    for key, values in plain.ctf.items():
        np.testing.assert_array_equal(table.ctf[key], values)


def test_subtomograms_are_refused(make_star: Make, tmp_path: Path) -> None:
    write_volume(tmp_path / "sub.mrc", np.ones((16, 16, 16), np.float32), 2.5)
    names = {"rlnImageName": ["sub.mrc"] * 6}
    with pytest.raises(InputError, match=r"_rlnImageDimensionality 3\)\. Subtomograms are not supported"):
        read_particles(make_star({"rlnImageDimensionality": [3]}, names))
    with pytest.raises(InputError, match=r"line \d+: .*sub\.mrc is a volume \(16 voxels a side\), not an image"):
        read_particles(make_star(particles=names))


@pytest.mark.parametrize("need_ctf", [True, False])
def test_tilt_stacks_are_refused(make_star: Make, need_ctf: bool) -> None:
    path = make_star(particles={"rlnImageName": ["stack.mrcs"] * 6, "rlnDefocusU": None})
    text = path.read_text()
    with pytest.raises(InputError, match="no CTF" if need_ctf else r"no number, and .*stack\.mrcs holds 6 images"):
        read_particles(path, need_ctf=need_ctf)
    path.write_text(f"data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n\n{text}")
    with pytest.raises(InputError, match=r"each particle is a stack of tilted images .*Tilt series are not supported"):
        read_particles(path, need_ctf=need_ctf)


def test_a_name_without_number_is_a_file_of_one_image(make_star: Make, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"line \d+: the image has no number, and .* holds 6 images\. Write it as 000001@"
    ):
        read_particles(make_star(particles={"rlnImageName": ["stack.mrcs"] * 6}))
    write_stack(tmp_path / "one.mrc", np.ones((1, 16, 16)), 2.5)
    table = read_particles(make_star(particles={"rlnImageName": ["one.mrc"] * 6}))
    np.testing.assert_array_equal(table.image_index, 0)


def test_one_file_does_not_serve_for_two_stacks(make_star: Make, images: np.ndarray, tmp_path: Path) -> None:
    names = [f"{number}@Extract/job0{10 + 10 * (number > 3)}/0001.mrcs" for number in range(1, 7)]
    data = tmp_path / "elsewhere"
    data.mkdir()
    write_stack(data / "0001.mrcs", images, 2.5)
    path = make_star(particles={"rlnImageName": names})
    complaint = (
        r"0001\.mrcs would have to serve for two stacks, Extract/job010/0001\.mrcs and Extract/job020/0001\.mrcs"
    )
    with pytest.raises(InputError, match=complaint):
        read_particles(path, data_dir=data)
    for job in ("job010", "job020"):
        (data / "Extract" / job).mkdir(parents=True)
        write_stack(data / "Extract" / job / "0001.mrcs", images, 2.5)
    assert len(read_particles(path, data_dir=data).stacks) == 2


def test_origins_in_pixels_are_written_in_angstroms(make_star: Make, tmp_path: Path) -> None:
    old = {"rlnOpticsGroup": None, "rlnVoltage": [300.0] * 6, "rlnSphericalAberration": [2.7] * 6}
    old |= {"rlnAmplitudeContrast": [0.1] * 6, "rlnImagePixelSize": [2.5] * 6}
    old |= {"rlnOriginX": [2.0, -1.0, 0.0, 0.5, 3.0, 1.0], "rlnOriginY": [0.0] * 6}
    write_particles(tmp_path / "new.star", read_particles(make_star(particles=old, with_optics=False)))
    block = read_star(tmp_path / "new.star")["particles"]
    assert "rlnOriginX" not in block
    np.testing.assert_allclose(block.floats("rlnOriginXAngst"), [5, -2.5, 0, 1.25, 7.5, 2.5])


def test_a_missing_constant_is_not_a_missing_ctf_fit(make_star: Make) -> None:
    with pytest.raises(
        InputError, match=r"_rlnVoltage, _rlnAmplitudeContrast missing\. Add the microscope's value to da"
    ):
        read_particles(make_star({"rlnVoltage": None, "rlnAmplitudeContrast": None}))
    with pytest.raises(InputError, match=r"_rlnDefocusU missing\. Estimate the CTF"):
        read_particles(make_star(particles={"rlnDefocusU": None}))


def test_a_header_of_another_pixel_size_is_a_doubt(make_star: Make, images: np.ndarray, tmp_path: Path) -> None:
    path = make_star()
    assert read_particles(path).findings == ()
    write_stack(tmp_path / "stack.mrcs", images, 5.0)
    (finding,) = read_particles(path).findings
    assert (finding.code, finding.severity) == ("pixel-size-differs", "warning")
    expected = {"metadata_A": 2.5, "header_A": 5.0, "stacks": 1, "of": 1}
    assert {name: finding.values[name] for name in expected} == expected
    for unset in (0.0, 1.0):
        write_stack(tmp_path / "stack.mrcs", images, unset)
        assert read_particles(path).findings == ()


def test_tubes_of_helical_segments(make_star: Make) -> None:
    table = read_particles(make_star(particles={"rlnHelicalTubeID": [1, 1, 2, 2, 1, 1]}))
    assert table.tubes is not None
    assert table.tubes.tolist() == ["mic0.mrc 1", "mic1.mrc 1", "mic0.mrc 2", "mic1.mrc 2", "mic0.mrc 1", "mic1.mrc 1"]
    assert read_particles(make_star(particles={"rlnHelicalTubeID": [0] * 6})).tubes is None


def test_no_python_in_a_message(make_star: Make) -> None:
    values = ["mic.mrc"] * 5 + ["a\0b"]
    with pytest.raises(InputError) as refused:
        read_particles(make_star(particles={"rlnMicrographName": values}))
    assert '"a?b" is no name of a file. Correct that row.' in str(refused.value)
    write_star(make_star().with_name("e.star"), {"particles": {"rlnImageName": []}})
    with pytest.raises(InputError, match=r"holds no particles\. Give"):
        read_particles(make_star().with_name("e.star"))
