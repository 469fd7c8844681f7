"""The job of the CCP-EM Pipeliner, made, run and shown by the real package, as docs/pipeliner.md tells it."""

import os
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cryogan.particles import read_star, read_volume
from relion_projects import BOX, LABELS, PIXEL

pytest.importorskip("pipeliner", reason="ccpem-pipeliner is not installed")
from pipeliner.api.manage_project import PipelinerProject
from pipeliner.job_factory import get_job_types, read_job

ROOT = Path(__file__).parents[2]
JOB = "InitialModel/job001/"


def install(folder: Path) -> None:
    """Leave what pip leaves of the package for others to find: its entry points."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = folder / "cryogan-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cryogan\nVersion: 0\n")
    groups = {"console_scripts": project["scripts"]} | project["entry-points"]
    lines = [
        line for group, points in groups.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def project(
    make_project: Callable[[], Path], programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PipelinerProject]:
    """A new project of the Pipeliner, which is the current folder."""
    installed = tmp_path_factory.mktemp("site-packages")
    install(installed)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(make_project())
        patch.syspath_prepend(installed)
        patch.setenv("PYTHONPATH", f"{installed}:{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield PipelinerProject(make_new_project=True)


@pytest.fixture(scope="module")
def job(project: PipelinerProject) -> Any:
    """The job, run to its end."""
    settings = "".join(f"{name} = {value}\n" for name, value in LABELS.items() if name not in ("symmetry", "box"))
    Path("settings.toml").write_text(settings)
    form = {
        "fn_img": "Extract/job001/particles.star",
        "fn_mic": "Extract/job001/micrographs.star",
        "symmetry": "D2",
        "box": LABELS["box"],
        "nr_threads": 2,
        "other_args": "--config settings.toml",
    }
    project.run_job({"_rlnJobTypeLabel": "cryogan.initialmodel"} | form, run_in_foreground=True)
    assert Path(JOB, "PIPELINER_JOB_EXIT_SUCCESS").exists(), Path(JOB, "run.err").read_text()
    return project.get_job(JOB)


def test_the_pipeliner_lists_the_job_without_loading_what_computes(project: PipelinerProject) -> None:
    (listed,) = get_job_types("cryogan")
    assert listed.PROCESS_NAME == "cryogan.initialmodel"
    assert listed.jobinfo.is_available
    assert "10.1101/2020.03.20.001016" in str(listed.jobinfo.references[0])


@pytest.mark.slow
def test_its_nodes_are_in_the_project(job: Any) -> None:
    table = read_star("default_pipeline.star")["pipeline_nodes"]
    names, labels = table.texts("rlnPipeLineNodeName"), table.texts("rlnPipeLineNodeTypeLabel")
    nodes = {name.removeprefix(JOB): label for name, label in zip(names, labels, strict=True) if name.startswith(JOB)}
    assert nodes == {
        "map.mrc": "DensityMap.mrc.cryogan.initialmodel",
        "half1_map_unfil.mrc": "DensityMap.mrc.cryogan.initialmodel.halfmap",
        "half2_map_unfil.mrc": "DensityMap.mrc.cryogan.initialmodel.halfmap",
        "mask.mrc": "Mask3D.mrc.cryogan.initialmodel",
        "run/particles.star": "ParticleGroupMetadata.star.relion.cryogan.initialmodel",
    }
    volume, pixel_size = read_volume(Path(JOB, "map.mrc"))
    assert (len(volume), pixel_size) == (BOX, pytest.approx(PIXEL))


@pytest.mark.slow
def test_its_results_are_shown(job: Any) -> None:
    shown = {result.dobj_type: result for result in job.create_results_display()}
    assert set(shown) == {"text", "montage", "mapmodel", "graph", "html"}
    assert shown["text"].display_data.startswith(job.gather_metadata()["sentence"])
    assert shown["graph"].data_series_labels == ["corrected", "unmasked", "masked", "phase-randomised"]
    assert Path(shown["html"].html_file).read_text().lower().startswith("<!doctype html>")


@pytest.mark.slow
def test_a_deposition_names_the_start_model(job: Any) -> None:
    (start_model,) = job.prepare_onedep_deposition_data()
    assert start_model.category == "em_start_model"
    assert start_model.data["type"] == "INSILICO MODEL"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("relion_mask_create") is None, reason="RELION is not installed")
def test_a_job_that_follows_takes_its_nodes(project: PipelinerProject, job: Any) -> None:
    project.run_job({"_rlnJobTypeLabel": "relion.maskcreate", "fn_in": f"{JOB}map.mrc"}, run_in_foreground=True)
    assert Path("MaskCreate/job002/mask.mrc").exists()
    edges = read_star("default_pipeline.star")["pipeline_input_edges"]
    taken = zip(edges.texts("rlnPipeLineEdgeFromNode"), edges.texts("rlnPipeLineEdgeProcess"), strict=True)
    assert (f"{JOB}map.mrc", "MaskCreate/job002/") in set(taken)


def test_it_reads_the_form_of_relion_4() -> None:
    """The one that docs/relion.md gives for Schemes."""
    job = read_job(str(ROOT / "docs" / "relion" / "job_4.star"))
    assert job.PROCESS_NAME == "relion.external"
    assert job.joboptions["fn_exe"].get_string() == "cryogan_relion"
    assert job.joboptions["param1_label"].get_string() == "symmetry"
