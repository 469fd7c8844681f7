"""Files for a deposition: read back by gemmi, with the values of the run."""

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import gemmi
import numpy as np
import pytest

import builders
from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.particles import read_star, read_volume
from cryogan.run.checksums import changed
from cryogan.run.deposit import deposit
from cryogan.run.folder import MapFolder, RunFolder
from cryogan.run.fsc_files import write_fsc
from cryogan.run.plan import Plan
from cryogan.validation import fsc_curves


@pytest.fixture(scope="module")
def run(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run at its end, its half maps with some noise of their own."""
    folder = tmp_path_factory.mktemp("deposit") / "run"
    truth, pixel_size = read_volume(particles / "truth.mrc")
    run = RunFolder(builders.finished(folder, particles, truth))
    noise = 5 * np.random.default_rng(0).standard_normal((2, *truth.shape)) * truth.std()
    write_fsc(run, fsc_curves(truth + noise[0], truth + noise[1], pixel_size))
    shutil.copy(run.map, run.mask)
    return run


def items(file: Path) -> dict[str, list[str]]:
    """The values of each item, by gemmi."""
    block = gemmi.cif.read(str(file)).sole_block()
    names = [
        f"{category}{tag}"
        for category in block.get_mmcif_category_names()
        for tag in block.get_mmcif_category(category)
    ]
    return {name: [gemmi.cif.as_string(value) for value in block.find_values(name)] for name in names}


def test_gemmi_reads_back_the_values_of_the_run(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    main(["deposit", str(run.path), "--json"])
    answer = json.loads(capsys.readouterr().out)
    made = run.deposition
    assert answer["folder"] == str(made.path)
    assert {file.name for file in made.path.iterdir()} == {
        "map.mrc",
        "half1_map_unfil.mrc",
        "half2_map_unfil.mrc",
        "mask.mrc",
        "fsc.xml",
        "metadata.cif",
    }
    for name in ("map.mrc", "half2_map_unfil.mrc", "fsc.xml"):
        assert (made.path / name).read_bytes() == (run.path / name).read_bytes()
    plan, found = Plan.read(run.path), items(made.deposition_metadata)
    resolution = float(found["_em_3d_reconstruction.resolution"][0])
    assert resolution == pytest.approx(answer["resolution_A"], abs=0.005)
    assert 2 * plan.pixel_size < resolution < plan.box * plan.pixel_size
    assert found["_em_3d_reconstruction.resolution_method"] == ["FSC 0.143 CUT-OFF"]
    assert found["_em_3d_reconstruction.num_particles"] == [str(plan.particle_count)]
    assert float(found["_em_3d_reconstruction.actual_pixel_size"][0]) == pytest.approx(plan.pixel_size)
    assert found["_em_single_particle_entity.point_symmetry"] == ["D2"]
    assert found["_em_start_model.type"] == ["NONE"]
    assert set(found["_em_software.name"]) == {"CryoGAN"}
    assert {"INITIAL EULER ASSIGNMENT", "FINAL EULER ASSIGNMENT", "RECONSTRUCTION"} <= set(
        found["_em_software.category"]
    )
    optics = read_star(run.particles)["optics"]
    assert float(found["_em_imaging.accelerating_voltage"][0]) == optics.floats("rlnVoltage")[0]
    assert "There is no verdict" in found["_em_3d_reconstruction.details"][0]
    with pytest.raises(InputError, match="not an empty folder"):
        deposit(run.path)


# What the depositor and EMDB add; without it the translator stops.
OF_OTHERS = {
    "_database_2.": {"database_id": ["EMDB"], "database_code": ["EMD-0001"]},
    "_em_admin.": {"entry_id": ["cryogan"], "title": ["map"], "current_status": ["REL"], "deposition_site": ["PDBE"]},
    "_em_entity_assembly.": {"id": ["1"], "parent_id": ["0"], "name": ["phantom"], "type": ["COMPLEX"]},
    "_em_specimen.": {"id": ["1"], "experiment_id": ["1"], "vitrification_applied": ["YES"]},
    "_em_image_recording.": {"id": ["1"], "imaging_id": ["1"], "film_or_detector_model": ["GATAN K3"]},
    "_em_map.": {"id": ["1"], "file": ["map.mrc"], "type": ["primary map"], "format": ["CCP4"]},
}


def test_the_translator_of_emdb_takes_the_metadata(run: RunFolder, tmp_path: Path) -> None:
    """EMDB's own program (wwpdb.utils.emdb) makes its header file of it, which its schema then knows."""
    translator_module = pytest.importorskip("wwpdb.utils.emdb.cif_emdb_translator.cif_emdb_translator")
    made = deposit(run.path, tmp_path / "files")
    document = gemmi.cif.read(str(made.folder.deposition_metadata))
    for category, rows in OF_OTHERS.items():
        document.sole_block().set_mmcif_category(category, rows)
    document.write_file(str(tmp_path / "whole.cif"))
    translator = translator_module.CifEMDBTranslator()
    translator.set_logger_logging(False, False, False, False)
    translator.read_cif_in_file(str(tmp_path / "whole.cif"))
    translator.translate_cif_to_xml()
    translator.write_xml_out_file(str(tmp_path / "emdb.xml"))
    root = ElementTree.parse(tmp_path / "emdb.xml").getroot()

    def texts(name: str) -> set[str | None]:
        return {element.text for element in root.iter(name)}

    assert texts("number_images_used") == {str(made.particles)}
    assert texts("resolution") == {f"{made.resolution:.2f}"}
    assert texts("resolution_method") == {"FSC 0.143 CUT-OFF"}
    assert texts("point_group") == {"D2"}
    assert texts("acceleration_voltage") == {"300"}
    assert {element.get("type_of_model") for element in root.iter("startup_model")} == {"NONE"}
    for part in ("ctf_correction", "initial_angle_assignment", "final_angle_assignment", "final_reconstruction"):
        assert [element.text for found in root.iter(part) for element in found.iter("name")] == ["CryoGAN"], part


def test_other_maps_of_the_run_with_their_particles(run: RunFolder, tmp_path: Path) -> None:
    refined = run.refined
    refined.path.mkdir()
    for name in (
        "map.mrc",
        "half1_map_unfil.mrc",
        "half2_map_unfil.mrc",
        "mask.mrc",
        "fsc.xml",
        "fsc.csv",
        "particles.star",
    ):
        shutil.copy(run.path / name, refined.path / name)
    lines = run.particles.read_text().splitlines()
    refined.kept_particles.write_text("\n".join(lines[:-10]) + "\n")
    made = deposit(run.path, tmp_path / "files", refined.path)
    assert made.particles == len(read_star(refined.kept_particles)["particles"]) < Plan.read(run.path).particle_count
    assert any("no verdict on these maps" in remark for remark in made.remarks)
    shutil.rmtree(refined.path)


def test_what_cannot_be_deposited_is_refused_and_nothing_is_written(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "files"
    with pytest.raises(InputError, match=r"has no map\.mrc"):
        deposit(run.path, out, run.snapshots)
    other = tmp_path / "other"
    shutil.copytree(run.path, other)
    with pytest.raises(InputError, match="Give the run that these maps are of"):
        deposit(run.path, out, other)
    RunFolder(other).half_map(2).unlink()
    with pytest.raises(InputError, match="is not finished"):
        deposit(other, out)
    assert not MapFolder(out).path.exists()


def test_the_record_has_checksums_and_changes_are_said(copied: Callable[..., Path], tmp_path: Path) -> None:
    star = copied()
    folder = RunFolder(tmp_path / "run")
    builders.prepared(folder.path, star.parent, builders.tiny())
    recorded = tomllib.loads(folder.record.read_text())["checksums"]
    assert set(recorded) == {
        str(star.parent / name) for name in ("particles.star", "noise.star", "particles.mrcs", "noise.mrcs")
    }
    for name, was in recorded.items():
        assert was == f"sha256 {hashlib.sha256(Path(name).read_bytes()).hexdigest()}"
    assert changed(recorded) == []
    star.write_text(star.read_text() + "\n")
    (star.parent / "noise.mrcs").unlink()
    assert changed(recorded) == [str(star), str(star.parent / "noise.mrcs")]
