"""Every command that a run prints, run from the folder that its user stands in, with the programs that it names."""

import html
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tomli_w
from cryosparc.dataset import Dataset

from builders import TINY, tiny
from cryogan.particles import (
    open_stack,
    read_particles,
    read_star,
    read_volume,
    write_cs_particles,
    write_stack,
    write_star,
)
from cryogan.run.folder import Outcome, RunFolder
from cryogan.run.handover import next_commands
from cryogan.run.inputs import read_inputs
from cryogan.run.reconstruct import prepare
from cryogan.validation import flip_hand
from relion_projects import BOX, PIXEL, WORKING_BOX, simulated

DOWNSTREAM = Path(__file__).parents[2] / "docs" / "downstream.md"
needs_relion = pytest.mark.skipif(
    shutil.which("relion_refine_mpi") is None or shutil.which("mpirun") is None, reason="RELION is not installed"
)
# A few images; RELION may be started by root and on fewer cores than processes.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}
UIDS = np.arange(1, 121, dtype=np.uint64) * np.uint64(2**57 // 3)
FIRST_ITERATION = " --auto_iter_max 1 --healpix_order 1 --verb 0"
BLOCK = re.compile(r"<p>([^<]*)</p>\s*<pre>([^<]*)</pre>")


def shell(command: str, folder: Path, timeout: float = 600) -> str:
    """Run a line as a user types it; `cryogan` is the one under test."""
    function = f'cryogan() {{ {shlex.quote(sys.executable)} -m cryogan.cli "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-ec", function + command],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def as_if_finished(particles: Path, out: Path, finished: RunFolder, **settings: object) -> Mapping[str, str]:
    """A run on other files of the images of `finished`, with the maps of that; the commands of its report."""
    folder, inputs = RunFolder(out), read_inputs(particles, None, None, tiny(box=WORKING_BOX, **settings))
    prepare(folder, inputs)
    for path in (finished.map, *finished.half_maps):
        shutil.copy(path, folder.path)
    folder.record_outcome(Outcome.FINISHED)
    return next_commands(folder, inputs.plan, 10.0)


def next_in_report(run: RunFolder) -> Mapping[str, str]:
    """The commands at the end of the report, by what they do."""
    text = run.report.read_text()
    blocks = BLOCK.findall(text[text.index("<h2>Next</h2>") : text.index("<h2>Settings</h2>")])
    return {html.unescape(what): html.unescape(commands) for what, commands in blocks}


def commands_in_readme(run: RunFolder) -> list[str]:
    _, _, end = run.readme.read_text().partition("\nCommands\n")
    return [line.strip() for line in end.splitlines() if re.match("  [a-z]", line)]


def relion_of(commands: Mapping[str, str]) -> str:
    (found,) = (text for what, text in commands.items() if what.startswith("Refinement in RELION"))
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user stands: a folder with particles.star, particles.mrcs and run1, and a blank in its name."""
    folder = simulated(tmp_path_factory.mktemp("a user") / "project")
    settings = TINY["matching"] | {"box": WORKING_BOX, "search_steps": 3, "starts": 1}
    (folder / "settings.toml").write_text(tomli_w.dumps(settings))
    shell("cryogan reconstruct particles.star --out run1 --config settings.toml", folder)
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> RunFolder:
    return RunFolder(project / "run1")


def test_the_readme_and_the_report_print_these_commands(run: RunFolder) -> None:
    assert [command.split()[1] for command in commands_in_readme(run)] == [
        "reconstruct",
        "watch",
        "figures",
        "deposit",
        "refine",
        "verdict",
        "reslog",
        "poses",
    ]
    programs = [line.split()[0] for text in next_in_report(run).values() for line in text.splitlines() if line.split()]
    assert set(programs) == {"cryogan", "relion_image_handler", "mkdir", "mpirun", "chimerax"}


def test_the_commands_of_the_readme_run(project: Path, run: RunFolder) -> None:
    """But for watch, which does not end, and poses, from another folder."""
    *others, poses = (command for command in commands_in_readme(run) if "watch" not in command)
    for command in others:
        shell(command, project)
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    shell(poses.replace("run1", shlex.quote(str(run.path))), elsewhere)
    for found in (run.refined, run.poses):
        table = read_particles(found.particles, found=(project,))
        assert len(table) == 120
        assert table.stack_names == ("particles.mrcs",)
        assert found.cryosparc_particles.exists()


def test_watch_shows_the_run(project: Path, run: RunFolder) -> None:
    (command,) = (command for command in commands_in_readme(run) if "watch" in command)
    started = subprocess.Popen(
        [sys.executable, "-u", "-m", "cryogan.cli", *shlex.split(command)[1:], "--port", "0"],
        cwd=project,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        assert "http://127.0.0.1:" in started.stdout.readline()
    finally:
        started.terminate()
        started.communicate(timeout=30)


def test_cryogan_s_commands_of_the_report_run(project: Path, run: RunFolder) -> None:
    commands = [text for text in next_in_report(run).values() if text.startswith("cryogan ")]
    of_readme = commands_in_readme(run)
    (other_hand,) = (text for text in commands if text.partition("    #")[0] not in of_readme)  # those are run above
    shell(other_hand, project)
    mirrored, original = (read_volume(run.path / name)[0] for name in ("map_other_hand.mrc", "map.mrc"))
    np.testing.assert_array_equal(mirrored, flip_hand(original))


def test_the_chimerax_script_opens_files_beside_it(project: Path, run: RunFolder) -> None:
    """ChimeraX changes to the folder of a script while it runs it; here the program itself is not tried."""
    _, script = shlex.split(next_in_report(run)["ChimeraX:"])
    lines = [shlex.split(line) for line in (project / script).read_text().splitlines() if not line.startswith("#")]
    commands = {line[0] for line in lines}
    assert commands == {"open", "volume", "color", "hide", "set", "lighting", "view"}
    opened = next(line[1:] for line in lines if line[0] == "open")
    level = float(next(line[line.index("level") + 1] for line in lines if line[0] == "volume"))
    assert opened == ["map.mrc", "half1_map_unfil.mrc", "half2_map_unfil.mrc"]
    for name in opened:
        volume, _ = read_volume((project / script).parent / name)
        assert volume.min() < level < volume.max()


@needs_relion
def test_relion_refines_with_the_printed_commands(project: Path, run: RunFolder) -> None:
    """RELION finds the images, keeps the halves, and takes map, pixel size and diameter as they are meant."""
    commands = relion_of(next_in_report(run))
    shell(commands + FIRST_ITERATION, project)
    reference, header = read_volume(project / "reference.mrc")
    assert reference.shape == (BOX,) * 3
    assert header == pytest.approx(PIXEL, abs=1e-4)
    assert np.corrcoef(reference.ravel(), read_volume(project / "truth.mrc")[0].ravel())[0, 1] > 0
    refined = read_star(project / "refine" / "run_it001_data.star")["particles"]
    written = read_star(run.particles)["particles"]
    order, names = ({name: row for row, name in enumerate(t.columns["rlnImageName"])} for t in (refined, written))
    rows = [order[name] for name in names]
    assert len(rows) == 120
    np.testing.assert_array_equal(refined.floats("rlnRandomSubset")[rows], written.floats("rlnRandomSubset"))
    optimiser = read_star(project / "refine" / "run_it001_optimiser.star")["optimiser_general"]
    assert float(optimiser.columns["rlnParticleDiameter"][0]) == pytest.approx(0.875 * BOX * PIXEL)
    half1, pixel_size = read_volume(project / "refine" / "run_it001_half1_class001.mrc")
    assert half1.shape == (BOX,) * 3
    assert pixel_size == pytest.approx(PIXEL, abs=1e-3)


@needs_relion
def test_the_commands_of_the_page_run(project: Path, run: RunFolder, tmp_path: Path) -> None:
    """Those of docs/downstream.md, with the numbers of this run; RELION's FSC, in EMDB's XML, agrees with ours."""
    text = DOWNSTREAM.read_text()
    for old, new in {
        "3.822": "4.5",
        "1.274": "3",
        "192": "48",
        "--particle_diameter 200": "--particle_diameter 126",
    }.items():
        assert old in text
        text = text.replace(old, new)
    commands = "".join(line[4:] for line in text.splitlines(keepends=True) if line.startswith("    "))
    assert {"cryogan", "relion_image_handler", "mpirun", "relion_postprocess"} <= set(commands.split())
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    shell(commands.replace("--o refine/run", "--o refine/run" + FIRST_ITERATION), copy)
    assert (copy / "refine" / "run_it001_data.star").exists()
    theirs, ours = (ElementTree.parse(path).getroot() for path in (copy / "postprocess/map_fsc.xml", run.fsc_xml))
    assert ours.tag == theirs.tag
    assert set(ours.attrib) == set(theirs.attrib)
    assert [ours.attrib[name] for name in ("xaxis", "yaxis")] == [theirs.attrib[name] for name in ("xaxis", "yaxis")]
    assert {tuple(child.tag for child in point) for point in ours} == {tuple(child.tag for child in theirs[0])}
    x, y = (np.array([[float(point.findtext(name)) for point in root] for root in (ours, theirs)]) for name in "xy")
    np.testing.assert_allclose(x[0, 1:], x[1, 1:], atol=1e-5)
    curves, of_relion = (read_star(path)["fsc"].floats for path in (run.fsc_star, copy / "postprocess/map.star"))
    for column in ("rlnFourierShellCorrelationUnmaskedMaps", "rlnFourierShellCorrelationMaskedMaps"):
        np.testing.assert_allclose(curves(column), of_relion(column), atol=1e-5)
    corrected = "rlnFourierShellCorrelationCorrected"  # RELION's is that of the unmasked maps where it ends later
    np.testing.assert_allclose(y, [curves(corrected), of_relion(corrected)], atol=1e-5)


@needs_relion
def test_relion_finds_the_images_of_a_run_started_elsewhere(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed commands go to the folder from which the names hold; with blanks in the names of both folders."""
    folder, elsewhere = simulated(tmp_path / "a project"), tmp_path / "else where"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    commands = relion_of(as_if_finished(folder / "particles.star", Path("my run"), run))
    assert commands.startswith("cd ")
    assert "000001@particles.mrcs" in (elsewhere / "my run" / "particles.star").read_text()
    shell(commands + FIRST_ITERATION, elsewhere)
    assert (folder / "refine" / "run_it001_data.star").exists()


@pytest.fixture
def cs_run(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunFolder, str]:
    """A run, started in another folder, on a .cs file of a cryoSPARC project; and what its report prints of RELION."""
    folder, elsewhere = simulated(tmp_path / "project" / "J1"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    table = read_particles(folder / "particles.star")
    halves = np.arange(len(table)) % 2 + 1
    write_cs_particles(folder / "particles.cs", table, np.zeros((len(table), 3)), np.zeros((len(table), 2)), halves)
    records = Dataset.load(folder / "particles.cs")
    records["blob/path"] = [">J1/particles.mrcs"] * len(table)  # as cryoSPARC names it, from its project
    records["uid"] = UIDS
    records.save(folder / "particles.cs")
    monkeypatch.chdir(elsewhere)
    commands = as_if_finished(folder / "particles.cs", Path("run1"), run)
    return RunFolder(elsewhere / "run1"), relion_of(commands)


@needs_relion
def test_relion_finds_the_images_of_a_cs_file(cs_run: tuple[RunFolder, str], tmp_path: Path) -> None:
    """They are named by their whole path, so that no folder matters."""
    run, commands = cs_run
    assert not commands.startswith("cd ")
    shell(commands + FIRST_ITERATION, run.path.parent)
    refined = read_star(run.path.parent / "refine" / "run_it001_data.star")["particles"]
    stack = (tmp_path / "project" / "J1" / "particles.mrcs").resolve()
    assert {name.partition("@")[2] for name in refined.columns["rlnImageName"]} == {str(stack)}
    assert len(refined.columns["rlnImageName"]) == len(UIDS)


def test_poses_of_a_cs_file_are_found_from_any_folder(cs_run: tuple[RunFolder, str], tmp_path: Path) -> None:
    run, _ = cs_run
    elsewhere = tmp_path / "third"
    elsewhere.mkdir()
    shell(f"cryogan poses {run.path}", elsewhere)
    posed = Dataset.load(run.poses.cryosparc_particles)
    if run.poses.cryosparc_rejected.exists():
        posed = posed.append(Dataset.load(run.poses.cryosparc_rejected))
    order = np.argsort(posed["uid"])
    np.testing.assert_array_equal(posed["uid"][order], UIDS)
    assert set(posed["blob/path"]) == {">J1/particles.mrcs"}
    np.testing.assert_array_equal(posed["alignments3D/split"][order], np.arange(len(UIDS)) % 2)
    assert np.ptp(posed["alignments3D/pose"], axis=0).min() > 1


@needs_relion
def test_relion_gets_bright_protein_and_flipped_phases(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = simulated(tmp_path / "project")
    blocks = read_star(folder / "particles.star")
    optics = {name: list(values) for name, values in blocks["optics"].columns.items()}
    optics["rlnCtfDataArePhaseFlipped"] = ["1"]
    write_star(folder / "particles.star", {"optics": optics, "particles": dict(blocks["particles"].columns)})
    write_stack(folder / "particles.mrcs", -np.array(open_stack(folder / "particles.mrcs")), PIXEL)
    monkeypatch.chdir(folder)
    commands = relion_of(as_if_finished(Path("particles.star"), Path("run1"), run, invert=True))
    shell(commands + FIRST_ITERATION, folder)
    optimiser = read_star(folder / "refine" / "run_it001_optimiser.star")["optimiser_general"]
    assert optimiser.columns["rlnCtfDataArePhaseFlipped"][0] == "1"
    refined = read_star(folder / "refine" / "run_it001_data.star")["particles"]
    assert refined.columns["rlnImageName"][0].endswith("@bright.mrcs")
    original, bright = (read_particles(folder / f"{name}.star") for name in ("particles", "bright"))
    np.testing.assert_allclose(open_stack(bright.stacks[0]), -np.array(open_stack(original.stacks[0])), atol=1e-6)
    np.testing.assert_array_equal(bright.subset, read_particles("run1/particles.star").subset)


def test_float16_images_are_said(run: RunFolder, tmp_path: Path) -> None:
    folder = simulated(tmp_path / "project", float32=False)
    commands = as_if_finished(folder / "particles.star", folder / "run1", run)
    assert open_stack(folder / "particles.mrcs").dtype == np.float16
    readme = RunFolder(folder / "run1").readme.read_text()
    assert "its images are float16 (mode 12), which RELION 3 cannot read" in readme
    assert any(what.startswith("Refinement in RELION 4 or later") for what in commands)


def test_float32_images_are_not(run: RunFolder) -> None:
    assert "float16" not in run.readme.read_text() + " ".join(next_in_report(run))
