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

import numpy as np
import pytest
import tomli_w

from builders import TINY
from cryogan.models.phantom import phantom
from cryogan.particles import open_stack, read_particles, read_star, read_volume, write_stack, write_star
from cryogan.run.folder import RunFolder
from cryogan.simulation import simulate
from cryogan.validation import flip_hand

BOX, PIXEL, WORKING_BOX = 48, 3.0, 32
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
FIRST_ITERATION = " --auto_iter_max 1 --healpix_order 1 --verb 0"
BLOCK = re.compile(r"<p>([^<]*)</p>\s*<pre>([^<]*)</pre>")


def shell(command: str, folder: Path, timeout: float = 120) -> str:
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


def simulated(folder: Path, **settings: object) -> Path:
    simulate(
        phantom(BOX, PIXEL, 1),
        PIXEL,
        folder,
        count=120,
        snr=10.0,
        max_shift=4.0,
        micrographs=10,
        seed=1,
        **{"float32": True} | settings,
    )
    return folder


def reconstructed(folder: Path, particles: str = "particles.star", out: str = "run1", options: str = "") -> RunFolder:
    """A run that a user has started in a folder."""
    settings = TINY["matching"] | {"box": WORKING_BOX, "search_steps": 3, "starts": 1}
    (folder / "settings.toml").write_text(tomli_w.dumps(settings))
    command = f"cryogan reconstruct {particles} --out {shlex.quote(out)} --config settings.toml {options}"
    shell(command, folder)
    return RunFolder(folder / out)


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
    reconstructed(folder)
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> RunFolder:
    return RunFolder(project / "run1")


def test_the_readme_and_the_report_print_these_commands(run: RunFolder) -> None:
    assert [command.split()[1] for command in commands_in_readme(run)] == [
        "reconstruct",
        "watch",
        "figures",
        "refine",
        "poses",
    ]
    programs = [line.split()[0] for text in next_in_report(run).values() for line in text.splitlines() if line.split()]
    assert set(programs) == {"cryogan", "relion_image_handler", "mkdir", "mpirun", "chimerax"}


def test_the_commands_of_the_readme_run(project: Path, run: RunFolder, tmp_path: Path) -> None:
    """But for watch, which does not end; from a copy, in which refine and poses find nothing of another test."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    for command in commands_in_readme(run):
        if "watch" not in command:
            shell(command, copy)
    again = RunFolder(copy / "run1")
    for found in (again.refined, again.poses):
        table = read_particles(found.particles, found=(copy,))
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


def test_cryogan_s_commands_of_the_report_run(project: Path, run: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    commands = [text for text in next_in_report(run).values() if text.startswith("cryogan ")]
    assert len(commands) == 3
    for command in commands:
        shell(command, copy)
    mirrored, original = (read_volume(copy / "run1" / name)[0] for name in ("map_other_hand.mrc", "map.mrc"))
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
def test_relion_finds_the_images_of_a_run_started_elsewhere(project: Path, tmp_path: Path) -> None:
    """The printed commands go to the folder from which the names hold; with blanks in the names of both folders."""
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    run = reconstructed(elsewhere, shlex.quote(str(project / "particles.star")), "my run")
    commands = relion_of(next_in_report(run))
    assert commands.startswith("cd ")
    assert "000001@particles.mrcs" in run.particles.read_text()
    copy = tmp_path / "project"  # RELION writes where it stands
    shutil.copytree(project, copy)
    shell(commands.replace(str(project), str(copy)) + FIRST_ITERATION, elsewhere)
    assert (copy / "refine" / "run_it001_data.star").exists()


@needs_relion
def test_relion_gets_bright_protein_and_flipped_phases(tmp_path: Path) -> None:
    folder = simulated(tmp_path / "project")
    blocks = read_star(folder / "particles.star")
    optics = {name: list(values) for name, values in blocks["optics"].columns.items()}
    optics["rlnCtfDataArePhaseFlipped"] = ["1"]
    write_star(folder / "particles.star", {"optics": optics, "particles": dict(blocks["particles"].columns)})
    write_stack(folder / "particles.mrcs", -np.array(open_stack(folder / "particles.mrcs")), PIXEL)
    run = reconstructed(folder, options="--invert")
    commands = relion_of(next_in_report(run))
    shell(commands + FIRST_ITERATION, folder)
    optimiser = read_star(folder / "refine" / "run_it001_optimiser.star")["optimiser_general"]
    assert optimiser.columns["rlnCtfDataArePhaseFlipped"][0] == "1"
    refined = read_star(folder / "refine" / "run_it001_data.star")["particles"]
    assert refined.columns["rlnImageName"][0].endswith("@bright.mrcs")
    original, bright = (read_particles(folder / f"{name}.star") for name in ("particles", "bright"))
    np.testing.assert_allclose(open_stack(bright.stacks[0]), -np.array(open_stack(original.stacks[0])), atol=1e-6)
    np.testing.assert_array_equal(bright.subset, read_particles(run.particles, found=(folder,)).subset)


def test_float16_images_are_said(tmp_path: Path) -> None:
    folder = simulated(tmp_path / "project", float32=False)
    run = reconstructed(folder)
    assert open_stack(folder / "particles.mrcs").dtype == np.float16
    assert "its images are float16 (mode 12), which RELION 3 cannot read" in run.readme.read_text()
    assert any(what.startswith("Refinement in RELION 4 or later") for what in next_in_report(run))


def test_float32_images_are_not(run: RunFolder) -> None:
    assert "float16" not in run.readme.read_text() + " ".join(next_in_report(run))
