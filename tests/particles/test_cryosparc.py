"""Particle files of cryoSPARC: both formats, and a round trip through its own tools."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryosparc.dataset import Dataset

from cryogan.errors import InputError
from cryogan.particles import ParticleTable, input_findings, read_particles, write_cs_particles, write_particles

Make = Callable[..., Path]

UIDS = np.array([2**63 + 5, 17, 99_999_999_999, 4, 2**64 - 5, 1_000], dtype=np.uint64)


@pytest.fixture
def job(make_cs: Make) -> Path:
    """A particle file with random uids, exposure groups and the poses of another refinement."""
    return make_cs(
        uid=UIDS,
        ctf__exp_group_id=np.array([3, 3, 4, 4, 3, 4], np.uint32),
        blob__import_sig=np.full(6, 123, np.uint64),
        alignments3D__class=np.ones(6, np.uint32),
        alignments3D__pose=np.ones((6, 3), np.float32),
    )


def poses(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 3)), rng.standard_normal((count, 2)), np.arange(count) % 2 + 1


def test_poses_join_on_the_uids_of_the_source(job: Path, tmp_path: Path) -> None:
    # A run writes its own STAR, and reads particles from that.
    write_particles(tmp_path / "run.star", read_particles(job).select([4, 0, 3]))
    table = read_particles(tmp_path / "run.star")
    assert table.uids is not None
    np.testing.assert_array_equal(table.uids, UIDS[[4, 0, 3]])
    vectors, shifts, half = poses(3)
    weight = np.array([0.9, 0.3, 1.0])
    write_cs_particles(tmp_path / "out.cs", table, vectors, shifts, half, source=job, dark=True, weight=weight)
    ours, theirs = Dataset.load(tmp_path / "out.cs"), Dataset.load(job)
    np.testing.assert_array_equal(ours["uid"], UIDS[[4, 0, 3]])
    for name in theirs.fields():
        if not name.startswith("alignments3D/"):
            np.testing.assert_array_equal(ours[name], np.array(theirs[name])[[4, 0, 3]], err_msg=name)
    assert ours["blob/path"][0] == ">J1/extract/stack.mrcs"  # as the project names it
    assert ours["blob/sign"].tolist() == [-1, -1, -1]
    assert "alignments3D/class" not in ours.fields()
    np.testing.assert_allclose(ours["alignments3D/pose"], vectors, rtol=1e-6)
    np.testing.assert_allclose(ours["alignments3D/shift"], shifts / 2.5, rtol=1e-6)
    assert ours["alignments3D/split"].tolist() == [0, 1, 0]
    np.testing.assert_allclose(ours["alignments3D/class_posterior"], weight, rtol=1e-6)
    joined = Dataset.innerjoin(theirs.drop_fields(["alignments3D/pose", "alignments3D/class"]), ours)
    assert len(joined) == 3


def test_columns_of_the_passthrough_are_kept_too(job: Path, tmp_path: Path) -> None:
    whole = Dataset.load(job)
    ctf = [name for name in whole.fields() if name.startswith("ctf/")]
    other = whole.filter_fields(ctf, copy=True)
    other.take([5, 3, 1, 0, 2, 4]).save(job.with_name("J1_passthrough_particles.cs"))
    whole.filter_fields([name for name in whole.fields() if name not in ctf], copy=True).save(job)
    table = read_particles(job)
    write_cs_particles(tmp_path / "out.cs", table, *poses(6), source=job)
    ours = Dataset.load(tmp_path / "out.cs")
    assert ours["ctf/exp_group_id"].tolist() == [3, 3, 4, 4, 3, 4]
    np.testing.assert_array_equal(ours["ctf/df1_A"], np.linspace(8e3, 9e3, 6).astype(np.float32))


def test_a_source_without_the_particles_is_refused(job: Path, make_cs: Make, tmp_path: Path) -> None:
    table = read_particles(job)
    make_cs(uid=UIDS + np.uint64(1))
    with pytest.raises(InputError, match=r"particles\.cs: has no particle of uid 9223372036854775813\. Bring back"):
        write_cs_particles(tmp_path / "out.cs", table, *poses(6), source=job)
    assert not (tmp_path / "out.cs").exists()


def test_particles_of_a_star_get_new_uids_and_their_sign(make_star: Make, tmp_path: Path) -> None:
    star = make_star()
    for dark, sign in ((False, 1), (True, -1)):
        write_cs_particles(tmp_path / "out.cs", read_particles(star), *poses(6), source=star, dark=dark)
        records = Dataset.load(tmp_path / "out.cs")
        assert records["blob/sign"].tolist() == [sign] * 6
        assert len(set(records["uid"])) == 6
        np.testing.assert_array_equal(records["blob/shape"], 16)


def same(ours: ParticleTable, theirs: ParticleTable) -> None:
    assert ours.stacks == theirs.stacks
    np.testing.assert_array_equal(ours.image_index, theirs.image_index)
    np.testing.assert_array_equal(ours.micrographs, theirs.micrographs)
    assert ours.ctf.keys() == theirs.ctf.keys()
    for key, values in theirs.ctf.items():
        np.testing.assert_array_equal(ours.ctf[key], values)


def test_both_formats_of_the_tools_are_read(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_particles(job)
    for number in (1, 2):
        Dataset.load(job).save(job.with_name(f"format{number}.cs"), format=number)
        same(read_particles(job.with_name(f"format{number}.cs")), table)
    assert job.with_name("format2.cs").read_bytes().startswith(b"\x95CSDAT")
    monkeypatch.setitem(sys.modules, "cryosparc.dataset", None)  # not installed
    with pytest.raises(InputError, match=r'format 2.*pip install.*Dataset\.load\("format2\.cs"\)\.save\('):
        read_particles(job.with_name("format2.cs"))


@pytest.mark.parametrize("magic", [b"\x94CSDAT", b"\x95CSDAT"])
def test_a_damaged_file_of_format_2_is_refused(job: Path, magic: bytes) -> None:
    job.write_bytes(magic + bytes(100))
    with pytest.raises(InputError, match=r"format 2, but .*cannot read it\. Copy it again\. Convert it with"):
        read_particles(job)


@pytest.mark.parametrize(
    ("sign", "invert", "severity"),
    [(-1, True, "note"), (-1, False, "warning"), (1, False, "note"), (1, True, "warning")],
)
def test_blob_sign_says_the_contrast(make_cs: Make, sign: int, invert: bool, severity: str) -> None:
    table = read_particles(make_cs(blob__sign=np.full(6, sign, np.float32)))
    assert table.blob_sign == sign
    (finding,) = input_findings(table, 16, 2.5, None, invert)
    assert finding.severity == severity
    assert finding.code.startswith("blob-sign")
    assert finding.values["sign"] == sign
    assert ("Add --invert" in finding.sentence) == (sign < 0 and not invert)


def test_filaments_are_tubes(make_cs: Make) -> None:
    tubes = np.array([5, 5, 7, 7, 7, 2**63], np.uint64)
    table = read_particles(make_cs(filament__filament_uid=tubes))
    assert table.tubes is not None
    assert table.tubes.tolist() == [str(tube) for tube in tubes]


def test_several_pixel_sizes_survive_the_star_of_a_run(make_cs: Make, tmp_path: Path) -> None:
    sizes = np.float32([2.5, 2.5, 3.0, 3.0, 2.5, 3.0])
    table = read_particles(make_cs(blob__psize_A=sizes, uid=UIDS))
    assert (table.box, table.pixel_size) == (16, 3.0)
    write_particles(tmp_path / "run.star", table)
    back = read_particles(tmp_path / "run.star")
    assert back.pixel_sizes is not None
    np.testing.assert_allclose(back.pixel_sizes, sizes, atol=1e-6)
    write_cs_particles(tmp_path / "out.cs", back, *poses(6))
    np.testing.assert_allclose(Dataset.load(tmp_path / "out.cs")["alignments3D/psize_A"], sizes)
