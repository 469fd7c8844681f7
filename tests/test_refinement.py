"""Poses and refinement, from a run whose maps are the truth at low resolution."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cryosparc.dataset import Dataset
from rich.console import Console
from scipy.spatial.transform import Rotation

from cryogan.config import resolve
from cryogan.errors import InputError
from cryogan.particles import (
    open_stack,
    read_particles,
    read_star,
    read_volume,
    write_particles,
    write_stack,
    write_volume,
)
from cryogan.particles.halves import divide
from cryogan.physics.symmetry import point_group
from cryogan.refinement.refine import find_poses, refine
from cryogan.rotations import euler_to_rotations
from cryogan.run.folder import MapFolder, RunFolder
from cryogan.run.inputs import read_inputs
from cryogan.run.outcome import Outcome
from cryogan.run.plan import Plan
from cryogan.validation import fsc, low_pass

PIXEL, SEED = 4.0, 3
QUIET = Console(quiet=True)


def poses_of(star: Path) -> np.ndarray:
    table = read_star(star)["particles"]
    return euler_to_rotations(*(table.floats(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi"))).numpy()


def degrees(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between poses, up to D2."""
    traces = np.einsum("gij,njk,nik->gn", point_group("D2"), first, second).max(axis=0)
    return np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def finished(folder: Path, particles: Path) -> Path:
    """As `cryogan reconstruct` leaves it, with half maps of 14 A."""
    settings = resolve("default", None, {"symmetry": "D2", "max_shift": 4.0, "seed": SEED, "threads": 1})
    plan, images, *_ = read_inputs(particles / "particles.star", particles / "noise.star", None, settings)
    folder.mkdir()
    plan.write(folder)
    write_particles(folder / "particles.star", images.table, random_subset=divide(images.table, SEED).subset)
    truth, _ = read_volume(particles / "truth.mrc")
    generator = np.random.default_rng(0)
    for path in MapFolder(folder).half_maps:
        noise = low_pass(generator.standard_normal(truth.shape), PIXEL, 16.0)
        map_ = low_pass(truth, PIXEL, 14.0) + 0.02 * truth.std() / noise.std() * noise
        write_volume(path, map_.astype(np.float32), PIXEL)
    RunFolder(folder).record_outcome(Outcome.FINISHED)
    return folder


@pytest.fixture(scope="module")
def run(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("finished") / "run", particles)


@pytest.fixture(scope="module")
def refined(run: Path) -> Path:
    return refine(run, console=QUIET).folder


def test_poses_are_those_of_the_simulation(run: Path, particles: Path) -> None:
    folder = find_poses(run, console=QUIET).folder
    error = degrees(poses_of(folder / "particles.star"), poses_of(particles / "truth.star"))
    assert np.median(error) < 8
    assert (error < 20).mean() > 0.95


def test_refinement_reaches_the_nyquist_frequency(refined: Path, particles: Path) -> None:
    truth, _ = read_volume(particles / "truth.mrc")
    curve = fsc(read_volume(refined / "map.mrc")[0], truth)
    assert curve[1:15].min() > 0.9
    table = read_star(refined / "particles.star")["particles"]
    true = read_star(particles / "truth.star")["particles"]
    error = degrees(poses_of(refined / "particles.star"), poses_of(particles / "truth.star"))
    assert np.median(error) < 1.5
    assert (error < 10).mean() > 0.97
    for axis in "XY":
        off = table.floats(f"rlnOrigin{axis}Angst") - true.floats(f"rlnOrigin{axis}Angst")
        assert np.median(np.abs(off)) < 0.15 * PIXEL
    assert (table.floats("rlnMaxValueProbDistribution") >= 0.5).all()
    assert (table.floats("rlnLogLikeliContribution") > 0).all()
    halves = divide(read_particles(particles / "particles.star"), SEED).subset
    np.testing.assert_array_equal(table.floats("rlnRandomSubset"), halves)


def test_every_file_is_there(refined: Path) -> None:
    folder = MapFolder(refined)
    curves, particles = (folder.fsc_star, folder.fsc_csv), (folder.particles, folder.cryosparc_particles)
    for path in (*folder.half_maps, folder.map, folder.mask, *curves, *particles):
        assert path.stat().st_size > 1000
    assert folder.report.read_text().count("data:image/png") >= 4
    for name in ("fsc", "margins", "view_distribution", "scores", "view_averages"):
        assert (refined / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def cs_records(folder: Path) -> np.ndarray:
    """The rows of `particles.cs` and of the particles that were rejected, in the STAR's order."""
    files = [file for name in ("", "_rejected") if (file := folder / f"particles{name}.cs").exists()]
    records = np.concatenate([np.load(file) for file in files])
    ordered: np.ndarray = records[np.argsort(records["uid"])]
    return ordered


def test_cs_file_says_what_the_star_file_says(refined: Path, run: Path) -> None:
    records = cs_records(refined)
    star = read_star(refined / "particles.star")["particles"]
    from_vectors = Rotation.from_rotvec(records["alignments3D/pose"]).as_matrix()
    assert degrees(from_vectors, poses_of(refined / "particles.star")).max() < 0.1
    np.testing.assert_allclose(records["alignments3D/shift"][:, 0] * PIXEL, star.floats("rlnOriginXAngst"), atol=1e-3)
    np.testing.assert_array_equal(records["alignments3D/split"] + 1, star.floats("rlnRandomSubset"))
    with (refined / "all.cs").open("wb") as file:
        np.save(file, records)
    ours = read_particles(refined / "all.cs")
    theirs = read_particles(refined / "particles.star", found=Plan.read(run).image_folders)
    kept = read_star(refined / "particles_kept.star")["particles"]
    assert len(np.load(refined / "particles.cs")) == len(kept)
    np.testing.assert_array_equal(ours.image_index, theirs.image_index)
    for key, values in theirs.ctf.items():
        np.testing.assert_allclose(ours.ctf[key], values, rtol=1e-5, atol=1e-4)


def test_cryosparc_tools_open_the_cs_file(refined: Path) -> None:
    particles = Dataset.load(refined / "particles.cs")
    assert particles["alignments3D/pose"].shape == (len(particles), 3)
    np.testing.assert_allclose(particles["blob/psize_A"], PIXEL)
    rejected = refined / "particles_rejected.cs"
    uids = [*particles["uid"], *(Dataset.load(rejected)["uid"] if rejected.exists() else [])]
    assert sorted(uids) == list(range(1, 401))


needs_relion = pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed")


def relion(folder: Path, *command: str | Path) -> str:
    """What RELION said about it, which holds no warning of pixel size or sampling."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"WARNING.*(pixel|sampling)", done.stdout + done.stderr, re.IGNORECASE)
    return done.stdout


@pytest.fixture(scope="module")
def project(refined: Path, particles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RELION project: the folder of the stack, in float32, with our particles.star as it is."""
    folder = tmp_path_factory.mktemp("project")
    stack = np.asarray(open_stack(particles / "particles.mrcs"), dtype=np.float32)  # RELION 3.1 reads no float16
    write_stack(folder / "particles.mrcs", stack, PIXEL)
    shutil.copy(refined / "particles.star", folder)
    return folder


@needs_relion
def test_relion_reconstructs_the_same_map_from_our_poses(refined: Path, project: Path) -> None:
    relion(project, "relion_reconstruct", "--i", "particles.star", "--ctf", "--sym", "D2", "--o", "map.mrc")
    curve = fsc(read_volume(project / "map.mrc")[0], read_volume(refined / "map.mrc")[0])
    assert curve[1:14].min() > 0.99


@needs_relion
@pytest.mark.parametrize("search", ["--healpix_order 1", "--healpix_order 4 --sigma_ang 2"], ids=["global", "local"])
def test_relion_goes_on_from_our_map_and_poses(refined: Path, project: Path, tmp_path: Path, search: str) -> None:
    command = f"relion_refine --i particles.star --ref {refined / 'map.mrc'} --ini_high 20 --iter 2 --ctf --sym D2"
    command += f" --particle_diameter 110 --offset_range 3 --offset_step 2 --pad 1 --o {tmp_path / 'run'}"
    command += " --firstiter_cc --zero_mask --flatten_solvent --random_seed 1"
    relion(project, *command.split(), *search.split())
    theirs, pixel_size = read_volume(tmp_path / "run_it002_class001.mrc")
    assert pixel_size == pytest.approx(PIXEL, abs=1e-3)
    assert fsc(theirs, read_volume(refined / "map.mrc")[0])[1:7].min() > 0.75


@needs_relion
def test_relion_postprocess_takes_half_maps_and_mask(run: Path, refined: Path, tmp_path: Path) -> None:
    command = (
        f"relion_postprocess --i {MapFolder(run).half_map(1)} --mask {refined / 'mask.mrc'} --angpix {PIXEL} --o post/"
    )
    (tmp_path / "post").mkdir()
    output = relion(tmp_path, *command.split())
    assert float(re.search(r"FINAL RESOLUTION:\s*([\d.]+)", output)[1]) < 16
    assert list(tmp_path.glob("post/*masked.mrc"))


def test_junk_is_told_from_particles(particles: Path, refined: Path, tmp_path: Path) -> None:
    """Noise, ice and halves of molecules in the place of 3 particles of 10."""
    folder = tmp_path / "with_junk"
    shutil.copytree(particles, folder)
    images = np.array(open_stack(folder / "particles.mrcs"), dtype=np.float32)
    noise = np.array(open_stack(folder / "noise.mrcs"), dtype=np.float32)
    axis = np.arange(32) - 16
    ice = 8 * np.exp(-(axis[:, None] ** 2 + axis**2) / 40).astype(np.float32)
    junk = np.arange(len(images)) % 10 < 3
    for row in np.flatnonzero(junk):
        images[row, :, :16] = noise[row, :, :16]
        if row % 10 < 2:
            images[row] = noise[row] + (row % 10) * ice
    write_stack(folder / "particles.mrcs", images, PIXEL)
    found_poses = find_poses(finished(tmp_path / "run", folder), console=QUIET)
    out = found_poses.folder

    def kept(star: Path) -> np.ndarray:
        names = read_star(star)["particles"].texts("rlnImageName")
        return np.isin(np.arange(1, 401), [int(name.split("@")[0]) for name in names])

    found = kept(out / "particles_kept.star")
    assert (~found[junk]).mean() > 0.8
    assert (~found[~junk]).mean() < 0.05
    assert kept(out / "particles.star").all()
    np.testing.assert_array_equal(kept(out / "particles_rejected.star"), ~found)
    assert (found_poses.kept, found_poses.rejected) == (found.sum(), (~found).sum())
    assert str(found_poses.rejected) in found_poses.finding.sentence
    assert (out / "figures" / "rejected_particles.png").exists()
    weight = read_star(out / "particles.star")["particles"].floats("rlnParticleFigureOfMerit")
    assert weight.sum() == pytest.approx(found_poses.weight, abs=0.01)
    np.testing.assert_allclose(np.load(out / "particles.cs")["alignments3D/class_posterior"], weight[found], atol=1e-5)
    again(out, found_poses.kept)
    assert kept(refined / "particles_kept.star").mean() > 0.95


def again(poses: Path, count: int) -> None:
    """Both lists of kept particles can be what the next run begins with, in the same halves."""
    subset = read_star(poses / "particles_kept.star")["particles"].floats("rlnRandomSubset")
    settings = resolve("default", None, {"symmetry": "D2", "seed": SEED, "threads": 1})
    for name in ("particles_kept.star", "particles.cs"):
        inputs = read_inputs(poses / name, None, None, settings)
        assert len(inputs.images) == count
        np.testing.assert_array_equal(inputs.halves.subset, subset)


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("run.toml", "particles.star"):
        (tmp_path / "run" / name).write_bytes((run / name).read_bytes())
    with pytest.raises(InputError, match="--resume"):
        find_poses(tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run" / "poses").exists()


def test_results_are_not_overwritten(refined: Path, run: Path) -> None:
    with pytest.raises(InputError, match="is not an empty folder"):
        refine(run, console=QUIET)
