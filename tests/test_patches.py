"""Without picking: patches cut anywhere from micrographs whose particles are known, and a map of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import ks_2samp
from torch.nn.functional import pad

from cryogan.cli import main
from cryogan.config import Settings
from cryogan.critics.matching.marching import FrequencyMarching
from cryogan.critics.matching.work import shift_count
from cryogan.errors import InputError
from cryogan.extraction import extract_patches
from cryogan.fourier import radial_power
from cryogan.models.phantom import phantom
from cryogan.particles import ParticleImages, crop, open_stack, read_particles, read_star, read_volume, write_star
from cryogan.particles.micrographs import grid_places, read_micrograph
from cryogan.physics.ctf import CtfParameters
from cryogan.physics.noise import WhiteNoise, background_mask
from cryogan.physics.projector import FourierProjector
from cryogan.physics.unpicked import Unpicked, UnpickedSimulator
from cryogan.rotations import uniform_rotations
from cryogan.run.build import build_trainer
from cryogan.run.inputs import read_inputs
from cryogan.run.sizes import PARTICLE_FRACTION
from cryogan.simulation import simulate
from cryogan.validation import align, fsc

CPU = torch.device("cpu")
QUIET = Console(quiet=True)
PARTICLE, PATCH, PIXEL = 20, 32, 6.0
DENSITY = 1350.0  # half a particle in a patch
CLEAR_SNR = 10.0
DIAMETER = 84.0  # A, that of the phantom and a little more


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Micrographs with little noise, and patches of them that do not overlap."""
    folder = tmp_path_factory.mktemp("clear")
    volume = phantom(PARTICLE, PIXEL, 0)
    simulate(
        volume,
        PIXEL,
        folder / "data",
        count=1200,
        noise="white",
        snr=CLEAR_SNR,
        micrographs=20,
        write_micrographs=True,
        particles_per_um2=DENSITY,
    )
    extract_patches(folder / "data" / "micrographs.star", folder / "patches", box=PATCH, overlap=0.0, console=QUIET)
    return folder


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same at an SNR of 2, with patches that overlap by half."""
    folder = tmp_path_factory.mktemp("noisy")
    simulate(
        phantom(PARTICLE, PIXEL, 0),
        PIXEL,
        folder / "data",
        count=1200,
        snr=2.0,
        micrographs=20,
        write_micrographs=True,
        particles_per_um2=DENSITY,
    )
    extract_patches(folder / "data" / "micrographs.star", folder / "patches", box=PATCH, console=QUIET)
    return folder


def test_patches_cover_a_micrograph(noisy: Path) -> None:
    table = read_particles(noisy / "patches" / "particles.star")
    assert (table.box, table.pixel_size) == (PATCH, PIXEL)
    star = read_star(noisy / "patches" / "particles.star")["particles"]
    first = np.array(star.texts("rlnMicrographName")) == "micrograph_0000.mrc"
    x, y = (star.floats(f"rlnCoordinate{axis}")[first] for axis in "XY")
    micrograph = read_micrograph(noisy / "data" / "micrograph_0000.mrc")
    covered = np.zeros(micrograph.shape, dtype=int)
    whole = (micrograph - micrograph.mean()) / micrograph.std()
    images = np.asarray(open_stack(table.stacks[0]))
    for image, cx, cy in zip(images, x.astype(int), y.astype(int), strict=True):
        window = slice(cy - PATCH // 2, cy + PATCH // 2), slice(cx - PATCH // 2, cx + PATCH // 2)
        covered[window] += 1
        np.testing.assert_allclose(image, whole[window], atol=1e-4)
    assert (covered[PATCH:-PATCH, PATCH:-PATCH] == 4).all()
    known = read_particles(noisy / "data" / "particles.star")
    for name in ("defocus_u", "defocus_v", "defocus_angle", "voltage", "spherical_aberration", "amplitude_contrast"):
        of = {str(m): v for m, v in zip(known.micrographs, known.ctf[name], strict=True)}
        np.testing.assert_allclose(table.ctf[name], [of[str(m)] for m in table.micrographs], rtol=1e-5)


def test_reading_leaves_patches_as_they_are(noisy: Path, tmp_path: Path) -> None:
    """No circle of background; a picked particle's normalisation would make an empty patch and a full one alike."""
    table = read_particles(noisy / "patches" / "particles.star").select(np.arange(50))
    images = ParticleImages(table, PATCH, None, invert=True).batch(np.arange(50))
    stored = np.asarray(open_stack(table.stacks[0])[:50])
    # Turned over, and without the corners of their spectra.
    inside = np.fft.rfft2(stored) * (np.hypot(np.fft.fftfreq(PATCH, 1 / PATCH)[:, None], np.arange(17)) < PATCH / 2)
    np.testing.assert_allclose(images, -np.fft.irfft2(inside), atol=1e-4)
    assert images.std((1, 2)).max() > 1.2 * images.std((1, 2)).min()
    cropped = crop(table, PATCH, None, True, tmp_path, lambda _: None)
    kept = ParticleImages(table, PATCH, None, invert=True, cropped=cropped).batch(np.arange(50))
    np.testing.assert_allclose(kept, images, atol=5e-3)  # float16


def test_patches_of_background_are_about_as_strong_as_the_noise(noisy: Path) -> None:
    table = read_particles(noisy / "patches" / "noise.star", need_ctf=False)
    scales = {n: read_micrograph(noisy / "data" / n).std() for n in np.unique(table.micrographs).tolist()}
    patches = np.concatenate([np.asarray(open_stack(path)) for path in table.stacks])
    patches *= np.array([scales[str(name)] for name in table.micrographs])[:, None, None]
    # The noise has a variance of 1; the quietest are taken.
    assert 0.8 < patches.var() < 1.0


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_grids_begin_anywhere(overlap: float) -> None:
    corners = set()
    for seed in range(20):
        places = grid_places((100, 70), 32, overlap, np.random.default_rng(seed))
        assert (places >= 16).all()
        assert (places <= [70 - 16, 100 - 16]).all()
        steps = np.unique(np.diff(np.unique(places[:, 1])))
        assert steps.tolist() == [round(32 * (1 - overlap))]
        corners.add(tuple(places[0]))
    assert len(corners) > 5
    assert grid_places((32, 32), 32, overlap, np.random.default_rng(0)).tolist() == [[16, 16]]


def truth_in_patches(folder: Path, clean: Path, snr: float) -> torch.Tensor:
    """The truth in the box of the patches and the unit of their noise; `clean` is a folder to be made."""
    volume, _ = read_volume(folder / "data" / "truth.mrc")
    simulate(volume, PIXEL, clean, count=1200, poses=folder / "data" / "truth.star", noise="none")
    background = background_mask(PARTICLE, PARTICLE_FRACTION * PARTICLE / 2, CPU).numpy()
    deviation = np.asarray(open_stack(clean / "particles.mrcs"))[:, ~background].std()
    return pad(torch.from_numpy(volume), ((PATCH - PARTICLE) // 2,) * 6) * (snr**0.5 / deviation)


def simulated(clear: Path, density: float, count: int) -> torch.Tensor:
    """Patches that the simulator makes of the truth, in the micrographs' unit."""
    simulator = UnpickedSimulator(
        FourierProjector(PATCH, device=CPU),
        CtfParameters.from_columns(read_particles(clear / "patches" / "particles.star").ctf, device=CPU),
        WhiteNoise(PATCH),
        pixel_size=PIXEL,
        generator=torch.Generator().manual_seed(5),
        density=density * 1e-8,
        radius_A=DIAMETER / 2,
    )
    truth = truth_in_patches(clear, clear / f"clean{density:.0f}", CLEAR_SNR)
    with torch.no_grad():
        return simulator(simulator.projector.transform(truth), simulator.sample(count))


def test_simulated_patches_are_like_those_of_micrographs(clear: Path) -> None:
    """Two samples of one distribution: power spectrum, borders and middle, and how much is in a patch."""
    table = read_particles(clear / "patches" / "particles.star")
    scales = {n: read_micrograph(clear / "data" / n).std() for n in np.unique(table.micrographs).tolist()}
    patches = np.concatenate([np.asarray(open_stack(path)) for path in table.stacks])
    patches *= np.array([scales[str(name)] for name in table.micrographs])[:, None, None]
    real, fake = torch.from_numpy(patches), simulated(clear, DENSITY, 4000)
    spectra = (radial_power(fake) / radial_power(real))[1:13]
    np.testing.assert_allclose(spectra, 1, atol=0.12)
    border = torch.ones(PATCH, PATCH, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    for region in (border, ~border):
        assert (fake[:, region].var() / real[:, region].var()).item() == pytest.approx(1, abs=0.08)
    strengths = [images.var((1, 2)).log().numpy() for images in (real, fake)]
    assert ks_2samp(*strengths).pvalue > 0.01
    # The same test sees half as many particles again.
    crowded = simulated(clear, 1.5 * DENSITY, 4000).var((1, 2)).log().numpy()
    assert ks_2samp(strengths[0], crowded).pvalue < 1e-6


def test_only_whole_particles_are_counted(noisy: Path, tmp_path: Path) -> None:
    """A particle that the edge cuts is seen where it is; taken for one within reach, it would move the map, too."""
    s = Settings(particles_per_um2=DENSITY, particle_diameter=DIAMETER, orientations=300)
    files = [noisy / "patches" / name for name in ("particles.star", "noise.star")]
    plan, *_ = read_inputs(*files, None, s)
    training = build_trainer(plan, len(plan.stages) - 1, files[0], 1)
    assert isinstance(training, FrequencyMarching)
    for index in (0, len(plan.stages) - 1):
        assert shift_count(plan.task, plan.stages[index]) == len(build_trainer(plan, index, files[0], 1).shifts)
    training.volume.start_from(truth_in_patches(noisy, tmp_path / "clean", 2.0))
    simulator, generator = training.simulator, training.simulator.generator
    distance = torch.linspace(0, 95, 96)
    angle = 2 * torch.pi * torch.rand(96, generator=generator)
    phi = Unpicked(
        uniform_rotations(96, generator),
        distance[:, None] * torch.stack([angle.cos(), angle.sin()], 1),
        simulator.sample_particles(96),
        simulator.sample_seeds(96),
        patch=torch.arange(96),
    )
    with torch.no_grad():
        matcher = training.matcher(9.0)
        p_particle = matcher(*training.simulated(matcher.spectra, phi)).p_particle[:, 0]
    # The centre is whole up to 192 / 2 - 42 = 54 A.
    assert p_particle[distance < 51].mean() > 0.9
    assert p_particle[distance > 57].mean() < 0.1


def test_a_map_without_picking(noisy: Path) -> None:
    """A short search of one half, from a ball: the first shells of the molecule, whose coordinates nobody gave."""
    s = Settings(
        particles_per_um2=DENSITY,
        particle_diameter=DIAMETER,
        orientations=300,
        search_steps=24,
        search_batch=100,
        starts=1,
    )
    files = [noisy / "patches" / name for name in ("particles.star", "noise.star")]
    plan, _, findings, _ = read_inputs(*files, None, s)
    assert any("On average 0.50 particles have their centre in a patch" in finding.sentence for finding in findings)
    training = build_trainer(plan, 0, files[0], 1)
    truth = np.pad(read_volume(noisy / "data" / "truth.mrc")[0], (PATCH - PARTICLE) // 2)

    def fsc_with_truth() -> np.ndarray:
        found = training.result().numpy()
        return fsc(align(found, truth, PIXEL, seed=0).apply(found, PIXEL), truth)

    ball = fsc_with_truth()
    for _ in training.run():
        pass
    grown = fsc_with_truth()
    assert ball[4:8].mean() < 0.3
    assert grown[1:7].min() > 0.5


def test_reconstruct_from_patches(
    noisy: Path,
    examples: Callable[[str], list[list[str]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (example,) = examples("extract-patches")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "micrographs.star").write_text((noisy / "data" / "micrographs.star").read_text())
    main([*example, "--data-dir", str(noisy / "data"), "--quiet", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert made == {"folder": "patches", "patches": "patches/particles.star", "noise": "patches/noise.star"}
    arguments = [
        *(made["patches"], "--noise", made["noise"], "--particles-per-um2", "1350", "--particle-diameter", "84"),
        *("--starts", "1", "--orientations", "100", "--search-steps", "2", "--search-batch", "20"),
        *("--marching-steps", "1", "--marching-images", "40"),
    ]
    main(["check", *arguments[:7], "--json"])
    assert "patches of 20 micrographs" in json.loads(capsys.readouterr().out)["facts"]["patches"]
    main(["reconstruct", *arguments, "--threads", "1", "--out", "run", "--quiet", "--json"])
    assert json.loads(capsys.readouterr().out)["map"] == "run/map.mrc"
    table = read_star(tmp_path / "run" / "particles.star")["particles"]
    names, half = np.array(table.texts("rlnMicrographName")), table.floats("rlnRandomSubset")
    assert not set(names[half == 1]) & set(names[half == 2])  # overlapping patches share pixels
    assert len(set(names[half == 1])) == 10
    with pytest.raises(SystemExit) as ended:
        main(["refine", "run"])
    assert ended.value.code == 2
    assert "poses need picked particles" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"critic": "wasserstein"}, "needs --critic matching"),
        ({"learn_poses": True}, "--learn-poses needs picked particles"),
        ({"refine": True}, "--refine needs picked particles"),
        ({"particle_diameter": None}, "needs --particle-diameter, which like --mask-diameter is at most 144 A"),
        ({"particle_diameter": 150.0}, "is at most 144 A"),
        ({"mask_diameter": 150.0}, "is at most 144 A"),
    ],
)
def test_settings_that_do_not_go_together(noisy: Path, settings: dict[str, object], message: str) -> None:
    files = [noisy / "patches" / name for name in ("particles.star", "noise.star")]
    with pytest.raises(InputError, match=message):
        read_inputs(*files, None, Settings(**{"particles_per_um2": DENSITY, "particle_diameter": DIAMETER} | settings))


def test_patches_need_noise_and_two_micrographs(noisy: Path, tmp_path: Path) -> None:
    patches, s = noisy / "patches", Settings(particles_per_um2=DENSITY, particle_diameter=DIAMETER)
    with pytest.raises(InputError, match="needs --noise"):
        read_inputs(patches / "particles.star", None, None, s)
    text = (patches / "particles.star").read_text().splitlines(keepends=True)
    one = tmp_path / "one.star"
    one.write_text("".join(line for line in text if "mrcs" not in line or "micrograph_0000" in line))
    with pytest.raises(InputError, match="needs two micrographs"):
        read_inputs(one, patches / "noise.star", patches, s)


def test_micrographs_that_cannot_be_cut(noisy: Path, tmp_path: Path) -> None:
    data, text = noisy / "data", (noisy / "data" / "micrographs.star").read_text()
    (tmp_path / "no_ctf.star").write_text(text.replace("_rlnDefocusV", "_rlnSomething"))
    with pytest.raises(InputError, match=r"no_ctf\.star: no CTF: _rlnDefocusV missing\. .*micrographs_ctf\.star"):
        extract_patches(tmp_path / "no_ctf.star", tmp_path / "out", box=PATCH, data_dir=data, console=QUIET)
    for bad in ({"box": 8}, {"box": 33}, {"box": 32, "overlap": 1.0}):
        with pytest.raises(InputError, match="an even number from 16"):
            extract_patches(data / "micrographs.star", tmp_path / "out", console=QUIET, **bad)
    with pytest.raises(InputError, match="smaller than a patch of 2000 px"):
        extract_patches(data / "micrographs.star", tmp_path / "out", box=2000, console=QUIET)
    assert not (tmp_path / "out" / "particles.star").exists()


def test_micrographs_of_relion_3_0(noisy: Path, tmp_path: Path) -> None:
    """One table, without optics."""
    star = read_star(noisy / "data" / "micrographs.star")
    rows = len(star["micrographs"])
    columns = {name: list(values) for name, values in star["micrographs"].columns.items() if "Optics" not in name}
    constants = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.07}
    columns |= {name: [value] * rows for name, value in constants.items()}
    write_star(tmp_path / "old.star", {"": columns | {"rlnMicrographPixelSize": [PIXEL] * rows}})
    options = {"box": PATCH, "overlap": 0.0, "console": QUIET}
    old = extract_patches(tmp_path / "old.star", tmp_path / "old", data_dir=noisy / "data", **options)
    new = extract_patches(noisy / "data" / "micrographs.star", tmp_path / "new", **options)
    tables = [read_particles(path) for path in (old, new)]
    for name in tables[0].ctf:
        np.testing.assert_array_equal(tables[0].ctf[name], tables[1].ctf[name])
    assert tables[0].pixel_size == tables[1].pixel_size == PIXEL


def test_particles_stand_anywhere_only_in_micrographs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="above 0, is of the micrographs of --write-micrographs"):
        simulate(phantom(16, PIXEL, 0), PIXEL, tmp_path / "out", count=10, particles_per_um2=DENSITY)
