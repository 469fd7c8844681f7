from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.recfunctions
import pytest

from builders import TWO_GROUPS
from cryogan.errors import InputError
from cryogan.particles import open_stack, read_particles, read_star, write_particles, write_stack

Make = Callable[..., Path]

NO_OPTICS: dict[str, Any] = {
    "rlnOpticsGroup": None,
    "rlnVoltage": [200.0] * 6,
    "rlnSphericalAberration": [1.4] * 6,
    "rlnAmplitudeContrast": [0.1] * 6,
}


def test_relion_3_1(make_star: Make, tmp_path: Path) -> None:
    table = read_particles(make_star(particles={"rlnPhaseShift": [90.0] * 6, "rlnCtfBfactor": [20.0] * 6}))
    assert len(table) == 6
    assert table.stacks == (tmp_path / "stack.mrcs",)
    assert (table.box, table.pixel_size) == (16, 2.5)
    np.testing.assert_array_equal(table.image_index, range(6))
    np.testing.assert_array_equal(table.micrographs, ["mic0.mrc", "mic1.mrc"] * 3)
    expected = {
        "defocus_u": 10_002.0,
        "defocus_v": 9_960.0,
        "defocus_angle": -28.0,
        "voltage": 300.0,
        "spherical_aberration": 2.7,
        "amplitude_contrast": 0.07,
        "phase_shift": 90.0,
        "b_factor": 20.0,
        "scale": 1.0,
    }
    assert {key: values[2] for key, values in table.ctf.items()} == expected
    assert all(values.dtype == np.float64 and values.shape == (6,) for values in table.ctf.values())
    assert table.ctf["defocus_u"][5] < table.ctf["defocus_v"][5]  # accepted as it is


def test_each_particle_takes_its_optics_group(make_star: Make) -> None:
    optics = {
        "rlnOpticsGroup": [4, 7],
        "rlnOpticsGroupName": ["a", "b"],
        "rlnImagePixelSize": [2.5, 2.5],
        "rlnImageSize": [16, 16],
        "rlnImageDimensionality": [2, 2],
        "rlnVoltage": [300.0, 200.0],
        "rlnSphericalAberration": [2.7, 1.4],
        "rlnAmplitudeContrast": [0.07, 0.1],
    }
    table = read_particles(make_star(optics, {"rlnOpticsGroup": [7, 4, 4, 7, 4, 4]}))
    np.testing.assert_array_equal(table.ctf["voltage"], [200, 300, 300, 200, 300, 300])
    np.testing.assert_array_equal(table.ctf["amplitude_contrast"], [0.1, 0.07, 0.07, 0.1, 0.07, 0.07])


@pytest.mark.parametrize(
    "pixel",
    [
        {"rlnImagePixelSize": [2.5] * 6},
        {"rlnDetectorPixelSize": [5.0] * 6, "rlnMagnification": [20_000.0] * 6},
    ],
)
def test_relion_3_0(make_star: Make, pixel: dict[str, Any]) -> None:
    table = read_particles(make_star(particles={**NO_OPTICS, **pixel}, with_optics=False))
    assert table.pixel_size == 2.5
    assert table.ctf["voltage"][3] == 200
    assert table.ctf["spherical_aberration"][3] == 1.4


def test_noise_without_ctf_takes_the_pixel_size_of_the_stack(make_star: Make) -> None:
    drop = dict.fromkeys(["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnOpticsGroup"])
    path = make_star(particles=drop, with_optics=False)
    table = read_particles(path, need_ctf=False)
    assert table.pixel_size == 2.5
    assert table.micrographs[1] == "mic1.mrc"
    assert np.isnan(table.ctf["voltage"]).all()
    with pytest.raises(InputError, match=r"no CTF: _rlnDefocusU, .*_rlnVoltage.* missing\. .*relion_run_ctffind"):
        read_particles(path)


def test_select_keeps_the_order_asked_for(make_star: Make) -> None:
    table = read_particles(make_star())
    chosen = table.select([4, 1])
    np.testing.assert_array_equal(chosen.image_index, [4, 1])
    np.testing.assert_array_equal(chosen.ctf["defocus_u"], [10_004, 10_001])
    np.testing.assert_array_equal(table.select(np.arange(6) > 3).image_index, [4, 5])
    np.testing.assert_array_equal(chosen.select([1]).source_row, [1])


def test_stacks_are_found_above_the_file_and_in_data_dir(make_star: Make, tmp_path: Path, images: np.ndarray) -> None:
    names = [f"{number}@Extract/job1/x.mrcs" for number in range(1, 7)]
    star = make_star(particles={"rlnImageName": names})
    job = tmp_path / "Extract" / "job1"
    job.mkdir(parents=True)
    inner = job / "particles.star"
    star.rename(inner)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_stack(elsewhere / "x.mrcs", images, 2.5)
    assert read_particles(inner, data_dir=elsewhere).stacks == (elsewhere / "x.mrcs",)
    write_stack(job / "x.mrcs", images, 2.5)
    assert read_particles(inner, data_dir=elsewhere).stacks == (job / "x.mrcs",)


def test_missing_stacks(make_star: Make) -> None:
    names = ["1@stack.mrcs", "1@gone.mrcs", "2@gone.mrcs", "1@lost.mrcs", "2@stack.mrcs", "3@stack.mrcs"]
    path = make_star(particles={"rlnImageName": names})
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.startswith("1@gone"))
    message = rf"particles\.star, line {line}: the image stack gone\.mrcs was not found \(2 of 3 .*--data-dir"
    with pytest.raises(InputError, match=message):
        read_particles(path)


def test_truncated_stack(make_star: Make, tmp_path: Path) -> None:
    path = make_star()
    stack = tmp_path / "stack.mrcs"
    stack.write_bytes(stack.read_bytes()[: 1024 + 4 * 1024 + 1])
    with pytest.raises(InputError, match=r"stack\.mrcs: holds 4 whole images of 6\. Copy it again"):
        read_particles(path)


def bad_value(column: str, value: object) -> dict[str, Any]:
    return {column: [1.0, 1.0, 1.0, value, 1.0, 1.0]}


def test_blocks_may_come_in_any_order(make_star: Make) -> None:
    path = make_star()
    first = read_particles(path)
    optics, particles = path.read_text().split("data_particles")
    path.write_text(f"data_particles{particles}\n\ndata_general\n\n_rlnTomo 0\n\n{optics}")
    turned = read_particles(path)
    assert turned.pixel_size == first.pixel_size
    for key, values in first.ctf.items():
        np.testing.assert_array_equal(turned.ctf[key], values)


@pytest.mark.parametrize(
    ("optics", "particles", "message"),
    [
        (
            {},
            {"rlnImageName": [f"{n}@stack.mrcs" for n in (1, 2, 3, 7, 4, 5)]},
            r"line FOURTH: there is no image 7 in .*stack\.mrcs, which holds 6 images\. .*remove the row",
        ),
        (
            {},
            {"rlnImageName": ["0@stack.mrcs"] * 6},
            r"line FIRST: .*\"0@stack\.mrcs\"\. Write it .* first image has number 1",
        ),
        (
            {},
            {"rlnImageName": ["x@stack.mrcs"] * 6},
            r'line FIRST: _rlnImageName is "x@stack\.mrcs"\. Write it',
        ),
        ({"rlnImagePixelSize": None}, {}, r"no pixel size\. Add _rlnImagePixelSize .*to data_optics"),
        ({"rlnImagePixelSize": [0.0]}, {}, r"line FIRST: the pixel size is 0 A\. Set it"),
        ({"rlnImageSize": [32]}, {}, r"32 pixels a side but .*stack\.mrcs has 16\. Correct"),
        ({"rlnVoltage": None}, {}, r"no CTF: _rlnVoltage missing\. Add the microscope's value to data_optics"),
        ({"rlnVoltage": [0.0]}, {}, r"line FIRST: _rlnVoltage \(in data_optics\) is 0 kV \(6 of 6 rows\)\. Correct"),
        ({"rlnCtfDataAreCtfPremultiplied": [1]}, {}, r"multiplied by their CTF .*Extract them again"),
        (
            {},
            bad_value("rlnDefocusV", "nan"),
            r"line FOURTH: _rlnDefocusV is nan \(1 of 6 rows\)\. Correct or remove that row",
        ),
        ({}, bad_value("rlnDefocusU", "inf"), r"line FOURTH: _rlnDefocusU is inf"),
        ({}, bad_value("rlnDefocusU", "none"), r'line FOURTH: _rlnDefocusU is "none", which is not a number'),
        (
            {},
            {"rlnOpticsGroup": [1, 1, 1, 3, 1, 1]},
            r"line FOURTH: optics group 3 is not in data_optics \(.* 1\)",
        ),
        ({}, {"rlnOpticsGroup": None}, r"block data_particles has no column _rlnOpticsGroup"),
        ({}, {"rlnImageName": None}, r"no block has a column _rlnImageName\. Give a particle STAR"),
    ],
)
def test_bad_star_files(make_star: Make, optics: dict[str, Any], particles: dict[str, Any], message: str) -> None:
    path = make_star(optics, particles)
    lines = [n for n, text in enumerate(path.read_text().splitlines(), 1) if text.strip()][-6:]
    message = message.replace("FIRST", str(lines[0])).replace("FOURTH", str(lines[3]))
    with pytest.raises(InputError, match=rf"particles\.star.*{message}"):
        read_particles(path)


def test_images_that_are_not_square(make_star: Make, tmp_path: Path) -> None:
    write_stack(tmp_path / "wide.mrcs", np.ones((2, 16, 8)), 2.5)
    path = make_star({"rlnImageSize": None}, {"rlnImageName": ["1@stack.mrcs"] * 5 + ["2@wide.mrcs"]})
    with pytest.raises(InputError, match=r"wide\.mrcs are 8 x 16 pixels\. Extract square boxes"):
        read_particles(path)


def test_boxes_and_pixel_sizes_that_differ_get_a_common_grid(make_star: Make, tmp_path: Path) -> None:
    write_stack(tmp_path / "coarse.mrcs", np.ones((2, 12, 12)), 4.0)
    names = ["1@stack.mrcs"] * 4 + ["1@coarse.mrcs", "2@coarse.mrcs"]
    optics = TWO_GROUPS | {"rlnImagePixelSize": [2.5, 4.0], "rlnImageSize": [16, 12]}
    table = read_particles(make_star(optics, {"rlnImageName": names, "rlnOpticsGroup": [1] * 4 + [2] * 2}))
    assert (table.box, table.pixel_size) == (12, 4.0)  # as wide as the widest box, 48 A; as coarse as the coarsest
    assert table.pixel_sizes is not None
    np.testing.assert_array_equal(table.pixel_sizes, [2.5] * 4 + [4.0] * 2)
    np.testing.assert_array_equal(table.select([5, 0]).pixel_sizes, [4.0, 2.5])
    assert [finding.code for finding in table.findings] == ["several-grids"]
    assert table.findings[0].values["counts"] == [2, 4]
    # A group that no particle refers to does no harm.
    assert read_particles(make_star(optics)).pixel_sizes is None
    # 3.0 has the pixel size in the rows.
    sizes = [2.5] * 4 + [2.6] * 2
    table = read_particles(make_star(particles={**NO_OPTICS, "rlnImagePixelSize": sizes}, with_optics=False))
    assert table.pixel_size == 2.6
    np.testing.assert_array_equal(table.pixel_sizes, sizes)


def test_empty_table(make_star: Make) -> None:
    path = make_star()
    rows = path.read_text().split("_rlnUnknownColumn #7\n")[0] + "_rlnUnknownColumn #7\n"
    path.write_text(rows)
    with pytest.raises(InputError, match=r"particles\.star: holds no particles"):
        read_particles(path)


def test_other_kinds_of_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s\.mrcs: is an image stack, which says nothing of the CTF\. Give .*\.cs"):
        read_particles(tmp_path / "s.mrcs")
    with pytest.raises(InputError, match=r"s\.tif: is neither \.star nor \.cs"):
        read_particles(tmp_path / "s.tif")


# cryoSPARC


def test_cs(make_cs: Make) -> None:
    table = read_particles(make_cs())
    assert table.stacks[0].parts[-3:] == ("J1", "extract", "stack.mrcs")
    np.testing.assert_array_equal(table.image_index, range(6)[::-1])
    assert (table.box, table.pixel_size) == (16, 2.5)
    first = {key: values[0] for key, values in table.ctf.items()}
    assert first == pytest.approx(
        {
            "defocus_u": 8e3,
            "defocus_v": 7e3,
            "defocus_angle": 30,
            "voltage": 200,
            "spherical_aberration": 0.01,
            "amplitude_contrast": 0.1,
            "phase_shift": 45,
            "b_factor": 12,
            "scale": 1,
        },
        rel=1e-6,
    )
    assert table.micrographs[0] == "J1/mic.mrc"


def test_cs_errors(make_cs: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"particles\.cs: no CTF: ctf/df1_A missing\. .*passthrough .cs.*export"):
        read_particles(make_cs(drop=["ctf/df1_A"]))
    assert np.isnan(read_particles(make_cs(drop=["ctf/df1_A"]), need_ctf=False).ctf["defocus_u"]).all()
    with pytest.raises(InputError, match=r"particles\.cs: no blob/path, blob/idx\. .*passthrough"):
        read_particles(make_cs(drop=["blob/path", "blob/idx"]))
    indices = np.array([0, 1, 6, 2, 3, 4], np.uint32)
    with pytest.raises(InputError, match=r"particles\.cs, row 3: there is no image 7 .*holds 6 images"):
        read_particles(make_cs(blob__idx=indices))
    defocus = np.array([1e4, 1e4, 1e4, 1e4, np.nan, 1e4])
    with pytest.raises(InputError, match=r"particles\.cs, row 5: ctf/df2_A is nan"):
        read_particles(make_cs(ctf__df2_A=defocus))
    with pytest.raises(InputError, match=r"particles\.cs, row 2: blob/sign differs .*Split"):
        read_particles(make_cs(blob__sign=np.array([1, -1, 1, 1, 1, 1])))
    with pytest.raises(InputError, match=r"particles\.cs, row 1: the image stack J9/x\.mrcs was not found"):
        read_particles(make_cs(blob__path=np.array([b">J9/x.mrcs"] * 6)))


def test_cs_files_that_numpy_does_not_read(make_cs: Make, tmp_path: Path) -> None:
    path = tmp_path / "new.cs"
    path.write_bytes(b"\x94CSDAT" + bytes(100))
    with pytest.raises(InputError, match=r"new\.cs: .*format 2.*cryosparc-tools.*format=1.*export"):
        read_particles(path)
    path.write_bytes(b"rubbish rubbish")
    with pytest.raises(InputError, match=r"new\.cs: is not a cryoSPARC"):
        read_particles(path)
    path.write_bytes(make_cs().read_bytes()[:-20])
    with pytest.raises(InputError, match=r"new\.cs: cannot be read as a \.cs file"):
        read_particles(path)
    with path.open("wb") as out:
        np.save(out, np.zeros(3))
    with pytest.raises(InputError, match=r"new\.cs: is a NumPy array but no table"):
        read_particles(path)
    with path.open("wb") as out:
        np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"new\.cs: cannot be read as a \.cs file"):
        read_particles(path)


def spread_over_files(path: Path, *fields: str, rows: slice = slice(None), name: str = "J1_passthrough.cs") -> None:
    """Move fields of a .cs file to another one beside it, which has them in another order of rows."""
    records = np.load(path)
    uid = np.arange(100, 100 + len(records), dtype=np.uint64)
    kept = [column for column in records.dtype.names if column not in (*fields, "uid")]
    for file, names, order in ((path, kept, slice(None)), (path.with_name(name), fields, slice(None, None, -1))):
        table = np.zeros(len(records), [("uid", "u8"), *((n, *records.dtype.fields[n][:1]) for n in names)])
        table["uid"] = uid
        for column in names:
            table[column] = records[column]
        with file.open("wb") as out:
            np.save(out, table[order][rows if file != path else slice(None)])


def test_cs_files_of_a_job_are_joined_on_uid(make_cs: Make) -> None:
    whole = read_particles(make_cs())
    assert whole.joined == ()
    path = make_cs()
    ctf = [name for name in np.load(path).dtype.names if name.startswith("ctf/")]
    spread_over_files(path, *ctf, "location/micrograph_path")
    joined = read_particles(path)
    assert [file.name for file in joined.joined] == ["J1_passthrough.cs"]
    for key, values in whole.ctf.items():
        np.testing.assert_array_equal(joined.ctf[key], values)
    np.testing.assert_array_equal(joined.image_index, whole.image_index)
    np.testing.assert_array_equal(joined.micrographs, whole.micrographs)


def spread_in_parts(path: Path, name: str, ranges: dict[str, slice]) -> None:
    """Move a field of a .cs file to passthrough files, each of which has some of the rows."""
    records = np.load(path)
    values, uids = records[name], records["uid"]
    kept = [field for field in records.dtype.names if field != name]
    with path.open("wb") as out:
        np.save(out, np.lib.recfunctions.repack_fields(records[kept]))
    for file, rows in ranges.items():
        part = np.zeros(len(uids[rows]), [("uid", "u8"), (name, values.dtype)])
        part["uid"], part[name] = uids[rows], values[rows]
        with path.with_name(file).open("wb") as out:
            np.save(out, part)


def test_parts_of_a_passthrough_are_joined_or_what_they_lack_is_counted(make_cs: Make) -> None:
    whole, uid = read_particles(make_cs()), np.arange(100, 106, dtype=np.uint64)
    path = make_cs(uid=uid)
    spread_in_parts(path, "ctf/df2_A", {"J1_passthrough_0.cs": slice(0, 3)})
    lacking = r"no CTF: ctf/df2_A missing\. .* lack ctf/df2_A of 3 particles \(J1_passthrough_0\.cs has it of 3\)"
    with pytest.raises(InputError, match=lacking):
        read_particles(path)
    path = make_cs(uid=uid)
    spread_in_parts(path, "ctf/df2_A", {"J1_passthrough_0.cs": slice(0, 3), "J1_passthrough_1.cs": slice(3, 6)})
    table = read_particles(path)
    assert [file.name for file in table.joined] == ["J1_passthrough_0.cs", "J1_passthrough_1.cs"]
    np.testing.assert_array_equal(table.ctf["defocus_v"], whole.ctf["defocus_v"])
    # Excluded particles stand in a passthrough of their own; it has no part.
    excluded = np.zeros(1, [("uid", "u8"), ("ctf/df2_A", "f4")])
    excluded["uid"] = 9
    np.save(path.with_name("a.npy"), excluded)
    path.with_name("a.npy").rename(path.with_name("J1_passthrough_excluded.cs"))
    assert len(read_particles(path).joined) == 2


def test_a_passthrough_that_contradicts_another_is_refused(make_cs: Make) -> None:
    uid = np.arange(100, 106, dtype=np.uint64)
    path = make_cs(uid=uid)
    spread_in_parts(path, "ctf/df2_A", {"a_passthrough.cs": slice(0, 6), "b_passthrough.cs": slice(0, 6)})
    assert read_particles(path).ctf["defocus_v"].tolist() == read_particles(make_cs()).ctf["defocus_v"].tolist()
    path = make_cs(uid=uid)
    spread_in_parts(path, "ctf/df2_A", {"a_passthrough.cs": slice(0, 6), "b_passthrough.cs": slice(0, 6)})
    other = np.load(path.with_name("b_passthrough.cs"))
    other["ctf/df2_A"][4] += 1
    with path.with_name("b_passthrough.cs").open("wb") as out:
        np.save(out, other)
    with pytest.raises(InputError, match=r"b_passthrough\.cs and .*a_passthrough\.cs: uid 104 has different values"):
        read_particles(path)


def test_a_passthrough_of_another_job_has_no_part(make_cs: Make) -> None:
    path = make_cs(uid=np.arange(100, 106, dtype=np.uint64))
    spread_in_parts(path, "ctf/df2_A", {"cryosparc_P1_J7_passthrough_particles.cs": slice(0, 6)})
    with pytest.raises(InputError, match=r"ctf/df2_A missing\..* \(cryosparc_P1_J7.* is of another job\.\)"):
        read_particles(path)  # the folder is that of J1
    path.with_name("cryosparc_P1_J7_passthrough_particles.cs").rename(path.with_name("cryosparc_P1_J1_passthrough.cs"))
    assert len(read_particles(path).joined) == 1


def test_a_uid_that_stands_for_two_particles_is_refused(make_cs: Make) -> None:
    uid = np.array([100, 101, 102, 103, 101, 105], dtype=np.uint64)
    with pytest.raises(InputError, match=r"uid 101 stands in rows 2 and 5 with different values \(1 such rows\)"):
        read_particles(make_cs(uid=uid))
    path = make_cs(uid=np.arange(100, 106, dtype=np.uint64))
    spread_in_parts(path, "ctf/df2_A", {"J1_passthrough.cs": slice(0, 6)})
    twice = np.load(path.with_name("J1_passthrough.cs"))
    twice = np.concatenate([twice, twice[:2]])
    for shift, complaint in ((0.0, None), (50.0, r"J1_passthrough\.cs: uid 101 stands in rows 2 and 8")):
        twice["ctf/df2_A"][7] += shift
        with path.with_name("J1_passthrough.cs").open("wb") as out:
            np.save(out, twice)
        if complaint is None:
            assert len(read_particles(path)) == 6
        else:
            with pytest.raises(InputError, match=complaint):
                read_particles(path)


# writing


def test_written_star_keeps_every_column_and_the_names_of_the_images(make_star: Make, tmp_path: Path) -> None:
    table = read_particles(make_star()).select([5, 0, 2])
    out = tmp_path / "results" / "run"
    out.mkdir(parents=True)
    write_particles(out / "p.star", table, np.array([1, 2, 1]))
    blocks = read_star(out / "p.star")
    assert blocks["particles"].columns["rlnUnknownColumn"] == ["kept as is"] * 3
    assert blocks["particles"].columns["rlnRandomSubset"] == ["1", "2", "1"]
    assert blocks["particles"].columns["rlnImageName"][0] == "000006@stack.mrcs"  # RELION resolves it, where it stands
    assert blocks["optics"].columns == read_star(table.source)["optics"].columns
    back = read_particles(out / "p.star")
    np.testing.assert_array_equal(back.image_index, [5, 0, 2])
    assert back.stacks[0].resolve() == table.stacks[0].resolve()
    for key in table.ctf:
        np.testing.assert_array_equal(back.ctf[key], table.ctf[key])


def test_a_star_that_is_written_elsewhere_finds_its_images(
    make_star: Make, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    data, elsewhere = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("elsewhere")
    (data / "a").mkdir()
    write_stack(data / "a" / "x.mrcs", images, 2.5)
    write_stack(data / "y.mrcs", images, 2.5)  # found by its base name
    names = ["1@stack.mrcs", "2@a/x.mrcs", "3@job/y.mrcs", "4@stack.mrcs", "5@a/x.mrcs", "6@job/y.mrcs"]
    table = read_particles(make_star(particles={"rlnImageName": names}), data_dir=data)
    assert table.image_folders == (tmp_path, data)
    write_particles(elsewhere / "p.star", table)
    with pytest.raises(InputError, match="was not found"):
        read_particles(elsewhere / "p.star")
    write_stack(elsewhere / "stack.mrcs", images, 2.5)  # another one of that name
    back = read_particles(elsewhere / "p.star", found=table.image_folders)
    assert back.stacks == table.stacks
    assert back.stack_names == ("stack.mrcs", "a/x.mrcs", "job/y.mrcs")
    assert back.image_folders == table.image_folders


def test_3_0_becomes_3_1(make_star: Make, tmp_path: Path) -> None:
    mixed = {**NO_OPTICS, "rlnImagePixelSize": [2.5] * 6, "rlnVoltage": [200.0, 300.0] * 3}
    table = read_particles(make_star(particles=mixed, with_optics=False))
    write_particles(tmp_path / "new.star", table)
    blocks = read_star(tmp_path / "new.star")
    assert blocks["optics"].columns["rlnVoltage"] == ["200.000000", "300.000000"]
    assert blocks["particles"].columns["rlnOpticsGroup"] == ["1", "2"] * 3
    back = read_particles(tmp_path / "new.star")
    for key in table.ctf:
        np.testing.assert_array_equal(back.ctf[key], table.ctf[key])


def test_cs_round_trip_through_star(make_cs: Make, tmp_path: Path) -> None:
    table = read_particles(make_cs())
    write_particles(tmp_path / "from_cs.star", table, np.array([1, 2] * 3))
    back = read_particles(tmp_path / "from_cs.star")
    assert (back.box, back.pixel_size, len(back)) == (16, 2.5, 6)
    np.testing.assert_array_equal(back.image_index, table.image_index)
    np.testing.assert_array_equal(back.micrographs, table.micrographs)
    np.testing.assert_array_equal(open_stack(back.stacks[0]), open_stack(table.stacks[0]))
    for key in table.ctf:
        np.testing.assert_allclose(back.ctf[key], table.ctf[key], atol=1e-6)


def test_random_subset_must_fit(make_star: Make, tmp_path: Path) -> None:
    table = read_particles(make_star())
    for wrong in ([1, 2], [0, 1, 1, 1, 1, 1]):
        with pytest.raises(ValueError, match="6 values of 1 or 2"):
            write_particles(tmp_path / "x.star", table, np.array(wrong))


def test_a_cs_file_that_claims_more_than_it_holds(make_cs: Callable[..., Path]) -> None:
    path = make_cs()
    content = path.read_bytes()
    claims = content.replace(b"'shape': (6,)", b"'shape': (6000000000,)", 1)
    path.write_bytes(claims)
    with pytest.raises(InputError, match=r"particles\.cs: cannot be read as a \.cs file"):
        read_particles(path)
    path.write_bytes(content[:6] + b"\3\0" + (1 << 30).to_bytes(4, "little") + content[10:])
    with pytest.raises(InputError, match="is cut off within its header"):
        read_particles(path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rlnImageName", "9" * 5000 + "@stack.mrcs", "Write it as 000001@stack.mrcs"),
        ("rlnImageName", "1@" + "x" * 5000, "is no name of a file"),
        ("rlnImageName", "1@" + "x" * 300, "was not found"),  # longer than a file system allows
        ("rlnMicrographName", "a\0b", "is no name of a file"),
        ("rlnDefocusU", "1e400", "_rlnDefocusU is inf"),
    ],
)
def test_values_that_are_damaged(
    column: str, value: str, message: str, make_star: Callable[..., Path], images: np.ndarray
) -> None:
    values: list[object] = list(read_star(make_star())["particles"].columns[column])
    values[3] = value
    with pytest.raises(InputError, match=rf"particles\.star, line \d+: .*{message}"):
        read_particles(make_star(particles={column: values}))
