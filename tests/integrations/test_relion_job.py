"""The External job, by RELION's own programs, as docs/relion.md tells it."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import finished
from cryogan.cli.relion import main
from cryogan.integrations.folder import End, JobFolder
from cryogan.integrations.job import write_in_particles_box
from cryogan.integrations.relion_job import write_output_nodes
from cryogan.models.phantom import phantom
from cryogan.particles import read_star, read_volume, write_volume
from cryogan.run.classes import ClassMap
from cryogan.run.folder import HALVES
from cryogan.run.plan import ImageFiles, Plan
from relion_projects import BOX, LABELS, PIXEL, WORKING_BOX

ROOT = Path(__file__).parents[2]
needs_relion = pytest.mark.skipif(
    shutil.which("relion_pipeliner") is None or shutil.which("mpirun") is None, reason="RELION is not installed"
)
PARTICLES = "Extract/job001/particles.star"
EMPTY_PIPELINE = "\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 2\n\n"
STATUS = {"running": 0, "success": 2, "failure": 3, "aborted": 4}  # of RELION 3.1
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


class Project:
    """A project of RELION 3.1, and its programs."""

    def __init__(self, path: Path, programs: Path) -> None:
        self.path = path
        self._environment = os.environ | ENVIRONMENT | {"PATH": f"{programs}:{os.environ['PATH']}"}
        (path / "default_pipeline.star").write_text(EMPTY_PIPELINE)

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str) -> str:
        process = self.start(*command)
        output = process.communicate(timeout=1800)[0]
        assert process.returncode == 0, output[-3000:]
        return output

    def run_job(self, name: str) -> None:
        self.run("relion_pipeliner", "--RunJobs", name, "--sec_wait_after", "1")

    def status(self, name: str) -> int:
        table = read_star(self.path / "default_pipeline.star")["pipeline_processes"]
        names = table.texts("rlnPipeLineProcessName")
        return int(table.texts("rlnPipeLineProcessStatus")[names.index(name)])


def filled_in(form: str, **labels: str) -> str:
    """One of the forms of the page, with the names of this project and these labels."""
    text = (ROOT / "docs" / "relion" / form).read_text()
    pairs = [*labels.items(), *[('""', '""')] * 10]
    for number in range(1, 11):
        label, value = pairs[number - 1]
        text = re.sub(rf"(param{number}_label) .*", rf"\1 {label}", text)
        text = re.sub(rf"(param{number}_value) .*", rf"\1 {value}", text)
    text = re.sub(r"(in_mic) .*", r"\1 Extract/job001/micrographs.star", text)
    return re.sub(r"(in_part) .*", rf"\1 {PARTICLES}", text)


def steps(job: JobFolder) -> list[tuple[int, int]]:
    """Half and number of each step, in the order in which they were made; the last line may be cut off."""
    lines = job.run.progress.read_text().splitlines(True) if job.run.progress.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(int(record["half"]), int(record["step"])) for record in records]


def wait_for_steps(job: JobFolder, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 1200
    while len(steps(job)) < count:
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"no step: {process.communicate()[0]}")
        time.sleep(0.05)


@pytest.fixture(scope="module")
def project(make_project: Callable[[], Path], programs: Path) -> Project:
    return Project(make_project(), programs)


@pytest.fixture(scope="module")
def job(project: Project) -> JobFolder:
    """A job on the form of the page that is killed, continued and aborted, and continued to its end."""
    folder, name = project.path / "cryogan", "External/job002/"
    folder.mkdir()
    settings = LABELS | {"symmetry": '"D2"', "search_steps": "40"}
    settings |= {"checkpoint_minutes": "0.0001", "verdict": "false"}
    (project.path / "settings.toml").write_text("".join(f"{label} = {value}\n" for label, value in settings.items()))
    (folder / "job.star").write_text(filled_in("job_3.1.star", config="settings.toml"))
    project.run("relion_pipeliner", "--addJobFromStar", "cryogan/job.star")
    job = JobFolder(project.path / name)

    killed = project.start(
        *("cryogan_relion", "--o", name, "--in_parts", PARTICLES, "--in_mics", "Extract/job001/micrographs.star"),
        *("--config", "settings.toml"),
    )
    wait_for_steps(job, 2, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not [end for end in End if job.end(end).exists()]

    before = len(steps(job))
    running = project.start("relion_pipeliner", "--RunJobs", name, "--sec_wait_after", "1")
    wait_for_steps(job, before + 1, running)
    job.abort_request.touch()
    running.communicate(timeout=600)
    assert [end for end in End if job.end(end).exists()] == [End.ABORTED]
    assert not job.abort_request.exists()
    assert project.status(name) == STATUS["aborted"]
    assert (job.path / "run.err").read_text().startswith("The job was stopped and has written its checkpoints.")
    stopped_at = {half: max((step for of, step in steps(job) if of == half), default=0) for half in HALVES}
    assert min(stopped_at.values()) < 40

    made = len(steps(job))
    project.run_job(name)
    assert all(step > stopped_at[half] for half, step in steps(job)[made:])  # no step was made again
    return job


@pytest.mark.slow
@needs_relion
def test_the_job_ends_with_its_nodes_in_the_project(project: Project, job: JobFolder) -> None:
    assert [end for end in End if job.end(end).exists()] == [End.SUCCESS]
    assert project.status("External/job002/") == STATUS["success"]
    assert job.noise.is_dir()  # background patches were cut
    table = read_star(project.path / "default_pipeline.star")["pipeline_nodes"]
    names, types = table.texts("rlnPipeLineNodeName"), table.texts("rlnPipeLineNodeType")
    nodes = {name.removeprefix("External/job002/"): kind for name, kind in zip(names, types, strict=True)}
    assert {name: kind for name, kind in nodes.items() if not name.startswith("Extract/")} == {
        "map.mrc": "6",
        "half1_map_unfil.mrc": "10",
        "half2_map_unfil.mrc": "10",
        "mask.mrc": "7",
        "run/particles.star": "3",
    }


@pytest.mark.slow
@needs_relion
def test_the_maps_are_in_the_particles_box_and_pixel_size(job: JobFolder) -> None:
    small, pixel_size = read_volume(job.run.map)
    assert (len(small), pixel_size) == (WORKING_BOX, pytest.approx(BOX * PIXEL / WORKING_BOX))
    for path in (job.map, *job.half_maps, job.mask):
        volume, pixel_size = read_volume(path)
        assert volume.shape == (BOX,) * 3
        assert pixel_size == pytest.approx(PIXEL)
    assert (volume.min(), volume.max()) == (0.0, 1.0)  # of the mask
    assert np.argmax(read_volume(job.map)[0]) != 0


@pytest.mark.slow
@needs_relion
def test_relion_refines_from_the_nodes(project: Project, job: JobFolder) -> None:
    """As its form starts it, with two iterations; the halves are kept."""
    name, made = "Refine3D/job003/", "External/job002/"
    form = {
        "Input images STAR file:": f"{made}run/particles.star",
        "Reference map:": f"{made}map.mrc",
        "Reference mask (optional):": f"{made}mask.mrc",
        "Ref. map is on absolute greyscale?": "No",
        "Initial low-pass filter (A):": "20",
        "Symmetry:": "D2",
        "Mask diameter (A):": "126",
        "Number of MPI procs:": "3",
        "Additional arguments:": "--auto_iter_max 2 --healpix_order 1",
    }
    options = ";".join(f"{label} == {value}" for label, value in form.items())
    project.run("relion_pipeliner", "--addJob", "Refine3D", "--addJobOptions", options)
    project.run_job(name)
    assert project.status(name) == STATUS["success"]
    refined = read_star(project.path / name / "run_it002_data.star")["particles"]
    written = read_star(job.run.particles)["particles"]
    order, names = ({name: row for row, name in enumerate(t.columns["rlnImageName"])} for t in (refined, written))
    rows = [order[name] for name in names]
    np.testing.assert_array_equal(refined.floats("rlnRandomSubset")[rows], written.floats("rlnRandomSubset"))
    half1, pixel_size = read_volume(project.path / name / "run_it002_half1_class001.mrc")
    assert (half1.shape, pixel_size) == ((BOX,) * 3, pytest.approx(PIXEL))


@pytest.mark.slow
@needs_relion
def test_a_job_is_not_gone_on_with_other_settings(
    project: Project, job: JobFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.path)
    arguments = ["--o", "External/job002/", "--in_parts", PARTICLES, "--noise", str(job.noise / "noise.star")]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--config", "settings.toml", "--symmetry", "C1"])
    assert ended.value.code == 2
    assert "was begun with --symmetry D2, and now it is C1. Start a new job" in capsys.readouterr().err
    assert job.end(End.FAILURE).exists()
    assert job.map.exists()


@pytest.mark.slow
@needs_relion
def test_a_schedule_of_the_page_runs(project: Project, job: JobFolder) -> None:
    """Those lines of the page, with an executable that does nothing in the place of the run."""
    text = (ROOT / "docs" / "relion.md").read_text()
    lines = [line.strip() for line in text.splitlines() if line.startswith("    relion_scheduler")]
    assert len(lines) == 5
    (project.path / "nothing").write_text('#!/bin/sh\ntouch "$2/RELION_JOB_EXIT_SUCCESS"\n')
    (project.path / "nothing").chmod(0o755)
    form = project.path / "cryogan" / "job.star"
    form.write_text(re.sub(r"(fn_exe) .*", r"\1 ./nothing", form.read_text()))
    for line in lines:
        output = project.run(*line.split())
    assert "The schedule has reached an exit point" in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], 'There are no particles. Fill in "Input particles".'),
        (["--in_parts", "p.star", "--in_3dref", "r.mrc"], 'Leave "Input 3D reference" empty.'),
        (["--in_parts", "p.star"], "p.star: cannot be read"),
        (["--in_parts", "p.star", "--symetry", "D2"], "unknown setting 'symetry'; did you mean symmetry?"),
        (["--in_parts", "p.star", "--box"], "box has no value. Fill in the field beside it."),
        (["--in_parts", "p.star", "--box", "64", "--box", "32"], "box is given twice."),
        (["--in_parts", "p.star", "--invert", "perhaps"], "setting invert = 'perhaps'"),
        (["--in_parts", "p.star", "two", "words"], "'two' belongs to no label"),
    ],
)
def test_bad_input_fails_with_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On standard error, which RELION writes to run.err; nothing is left half-written."""
    monkeypatch.chdir(tmp_path)
    job = JobFolder(Path("External/job001"))
    job.path.mkdir(parents=True)
    job.end(End.SUCCESS).touch()  # of an earlier call
    with pytest.raises(SystemExit) as ended:
        main(["--o", "External/job001/", *arguments, "--j", "4", "--pipeline_control", "External/job001/"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert list(job.path.iterdir()) == [job.end(End.FAILURE)]


def test_labels_become_settings_and_threads_are_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.setattr("cryogan.integrations.relion_job.run_external_job", lambda *given: seen.append(given))
    labels = ["--particle-diameter", "180", "--refine", "--verdict", "No", "--classes", "2"]
    main(["--o", str(tmp_path), "--in_parts", "p.star", "--in_mask", "m.mrc", *labels, "--j", "6"])
    ((folder, request, _),) = seen
    settings = request.settings
    assert (settings.particle_diameter, settings.refine, settings.verdict, settings.classes) == (180, True, False, 2)
    assert (settings.threads, settings.mask) == (3, Path("m.mrc").absolute())
    assert folder.end(End.SUCCESS).exists()


def test_the_nodes_of_a_refined_job_with_classes(particles: Path, tmp_path: Path) -> None:
    """Kept and rejected particles, and maps and particles of each class; dark particles are none."""
    job, density = JobFolder(tmp_path), phantom(32, 4.0, 1)
    finished(job.run.path, particles, density)
    plan = replace(Plan.read(job.run.path), image_files=ImageFiles(box=48, pixel_size=8 / 3))
    sources = (job.run.refined, job.run.class_folder(1))
    for source in sources:
        source.path.mkdir()
        for path in (source.map, *source.half_maps, source.mask):
            write_volume(path, density, 4.0)
        for path in (source.particles, source.kept_particles, source.rejected_particles):
            path.touch()
    write_in_particles_box(sources[0], job, plan)
    classes = [ClassMap(sources[1].path, 0.5, 200, 10.0)]
    maps = ["map.mrc", "half1_map_unfil.mrc", "half2_map_unfil.mrc", "mask.mrc"]
    for invert in (False, True):
        chosen = replace(plan, settings=plan.settings.model_copy(update={"invert": invert}))
        write_output_nodes(job, sources[0], classes, chosen)
        nodes = read_star(job.output_nodes)["output_nodes"]
        names = [str(Path(name).relative_to(tmp_path)) for name in nodes.texts("rlnPipeLineNodeName")]
        kept = ["run/refined/particles_kept.star", "run/refined/particles_rejected.star", "run/class1/particles.star"]
        assert names == [*maps, *(f"class1/{name}" for name in maps), *([] if invert else kept)]
        assert all((tmp_path / name).exists() for name in names)
    volume, pixel_size = read_volume(tmp_path / "class1" / "map.mrc")
    assert (len(volume), pixel_size) == (48, pytest.approx(8 / 3))
