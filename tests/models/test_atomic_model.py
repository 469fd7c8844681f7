"""Maps from an atomic model."""

import re
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from half_turns import HALF_TURNS, centre_of_mass, half_turn
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.models.atomic_model import AtomicModel
from development_data import DATA

needs_data = pytest.mark.skipif(
    not (DATA / "bgal_paper" / "truth.mrc").is_file(),
    reason=f"no development data in {DATA}; set CRYOGAN_DATA",
)


def shell_correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    k = np.fft.fftfreq(len(a)) * len(a)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int).ravel()
    cross, power_a, power_b = (
        np.bincount(shell, x.real.ravel()) for x in (fa * fb.conj(), fa * fa.conj(), fb * fb.conj())
    )
    return (cross / np.sqrt(power_a * power_b))[: len(a) // 2]


def write_pdb(path: Path, positions: list[tuple[float, float, float]], residue: str = "ALA", chains: str = "A") -> Path:
    """Atoms whose chains alternate."""
    rows = [
        f"ATOM  {i:5d}  CA  {residue} {chains[i % len(chains)]}{i:4d}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00           C"
        for i, (x, y, z) in enumerate(positions, start=1)
    ]
    path.write_text("\n".join([*rows, "END", ""]))
    return path


def test_model_is_placed_on_voxel_half_d(tmp_path):
    # Three atoms as an L: 12 A along x and 24 A along y from the corner.
    path = write_pdb(tmp_path / "l.pdb", [(50, 50, 50), (62, 50, 50), (50, 74, 50)])
    volume = AtomicModel.read(path).density(8.0, 32, 2.0)
    assert volume.shape == (32, 32, 32)
    assert volume.dtype == np.float32
    assert np.abs(centre_of_mass(volume)).max() < 0.05
    # Centre of mass at (54, 58, 50): the atoms lie at (-2, -4, 0), (4, -4, 0), (-2, 8, 0) voxels in x, y, z.
    for z, y, x in [(16, 12, 14), (16, 12, 20), (16, 24, 14)]:
        assert volume[z, y, x] == pytest.approx(1, abs=0.02)


def test_orient_puts_the_longest_extent_on_z_without_a_mirror(tmp_path):
    path = write_pdb(tmp_path / "l.pdb", [(50, 50, 50), (60, 50, 50), (50, 80, 50), (50, 50, 55)])
    volume = AtomicModel.read(path).on_principal_axes().density(6.0, 48, 2.0)
    offset = np.indices(volume.shape) - 24
    z, y, x = (offset**2 * volume).sum(axis=(1, 2, 3))
    assert z > y > x
    # A half turn of the same molecule must match its map at some half turn, which no mirror image does.
    turned = write_pdb(tmp_path / "t.pdb", [(50, 50, 50), (40, 50, 50), (50, 20, 50), (50, 50, 55)])
    again = AtomicModel.read(turned).on_principal_axes().density(6.0, 48, 2.0)
    candidates = [volume, *(half_turn(volume, axes) for axes in HALF_TURNS)]
    assert min(np.abs(again - candidate).max() for candidate in candidates) < 1e-3


def test_sharper_than_the_pixel_does_not_alias(tmp_path):
    """An atom between voxels has the Fourier amplitudes of one on a voxel."""
    rng = np.random.default_rng(0)
    path = write_pdb(tmp_path / "one.pdb", [tuple(rng.uniform(0, 30, 3)) for _ in range(20)])
    coarse = AtomicModel.read(path).density(3.0, 24, 4.0)
    fine = AtomicModel.read(path).density(3.0, 96, 1.0)
    keep = np.arange(-11, 12)
    a = np.fft.fftn(coarse)[np.ix_(keep, keep, keep)]
    # 24 // 2 * 4 A and 96 // 2 * 1 A are the same place, so the spectra differ by the maximum's scale only.
    b = np.fft.fftn(fine)[np.ix_(keep, keep, keep)]
    a, b = a / a[0, 0, 0], b / b[0, 0, 0]
    assert np.abs(a - b).max() < 1e-3


@needs_data
def test_model_agrees_with_the_shared_truth():
    """The truth was made with X-ray form factors, which is what is left of the difference."""
    with mrcfile.open(DATA / "bgal_paper" / "truth.mrc", permissive=True) as mrc:
        truth = np.array(mrc.data)
    volume = AtomicModel.read(DATA / "models" / "5a1a.cif.gz").on_principal_axes().density(5.0, 64, 3.822)
    correlation = shell_correlation(volume, truth)
    assert correlation[:16].min() > 0.995
    assert correlation.min() > 0.98
    assert np.corrcoef(volume.ravel(), truth.ravel())[0, 1] > 0.995
    for axes in HALF_TURNS:
        assert np.abs(half_turn(volume, axes) - volume).max() < 0.01


@needs_data
def test_model_larger_than_the_box_names_the_smallest_box():
    path = DATA / "models" / "5a1a.cif.gz"
    with pytest.raises(InputError, match="box of at least") as caught:
        AtomicModel.read(path).density(5.0, 32, 3.822)
    found = re.search(r"at least (\d+) px", str(caught.value))
    assert found is not None
    smallest = int(found.group(1))
    assert AtomicModel.read(path).density(5.0, smallest, 3.822).shape == (smallest,) * 3
    with pytest.raises(InputError):
        AtomicModel.read(path).density(5.0, smallest - 2, 3.822)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.cif", b"hello"),
        ("empty.cif", b""),
        ("no_atoms.cif", b"data_x\n_a 1\n"),
        ("short_row.pdb", b"ATOM   nonsense\n"),
        ("not_gzip.cif.gz", b"xx"),
        ("picture.png", b"\x89PNG\r\n\x1a\n\xff\xfe"),
    ],
)
def test_unreadable_model(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(name)):
        AtomicModel.read(path).density(5.0, 32, 3.0)


def test_missing_model_and_water_only(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        AtomicModel.read(tmp_path / "missing.cif").density(5.0, 32, 3.0)
    with pytest.raises(InputError, match="besides water"):
        AtomicModel.read(write_pdb(tmp_path / "water.pdb", [(0, 0, 0)], residue="HOH")).density(5.0, 32, 3.0)


def test_sizes_must_be_positive(tmp_path):
    path = write_pdb(tmp_path / "one.pdb", [(0, 0, 0)])
    with pytest.raises(InputError, match="resolution_A"):
        AtomicModel.read(path).density(0.0, 32, 3.0)


def test_chains_are_kept_or_left_out_and_centred_anew(tmp_path):
    path = write_pdb(tmp_path / "two.pdb", [(0, 0, 0), (50, 0, 0), (0, 10, 0), (50, 10, 0), (0, 20, 0)], chains="AB")
    assert len(AtomicModel.read(path).coordinates_A) == 5
    a, b = AtomicModel.read(path, chains=["A"]), AtomicModel.read(path, chains=["B"])
    np.testing.assert_allclose(a.coordinates_A, [[0, -5, 0], [0, 5, 0]])
    np.testing.assert_allclose(b.coordinates_A, [[0, -10, 0], [0, 0, 0], [0, 10, 0]])
    np.testing.assert_array_equal(AtomicModel.read(path, without_chains=["A"]).coordinates_A, b.coordinates_A)
    # The map of both is that of either, moved to where it stands.
    both = AtomicModel.read(path)
    middle = both.coordinates_A[:3].mean(axis=0), both.coordinates_A[3:].mean(axis=0)
    chains = sorted((a, b), key=lambda model: -len(model.coordinates_A))
    parts = [model.moved(np.eye(3), place) for model, place in zip(chains, middle, strict=True)]
    whole, *maps = (model.density(8.0, 48, 2.0) for model in (both, *parts))
    assert np.corrcoef(whole.ravel(), sum(maps).ravel())[0, 1] > 0.999


def test_chains_that_are_not_there(tmp_path):
    path = write_pdb(tmp_path / "two.pdb", [(0, 0, 0), (5, 0, 0)], chains="AB")
    with pytest.raises(InputError, match=r"there is no chain C; its chains are B, A\."):
        AtomicModel.read(path, chains=["C"])
    with pytest.raises(InputError, match="there is no chain D"):
        AtomicModel.read(path, without_chains=["D"])
    with pytest.raises(InputError, match="no chain is left"):
        AtomicModel.read(path, chains=["A"], without_chains=["A"])


def test_a_moved_model_is_turned_and_then_shifted(tmp_path):
    path = write_pdb(tmp_path / "l.pdb", [(0, 0, 0), (12, 0, 0), (0, 24, 0)])
    model = AtomicModel.read(path)
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # x to y
    moved = model.moved(quarter, np.array([2.0, 4.0, -6.0]))
    x, y, z = model.coordinates_A.T
    np.testing.assert_allclose(moved.coordinates_A, np.stack([2 - y, 4 + x, z - 6], axis=1), atol=1e-12)
    expected = np.roll(np.rot90(model.density(8.0, 33, 2.0), -1, (1, 2)), (-3, 2, 1), (0, 1, 2))
    np.testing.assert_allclose(moved.density(8.0, 33, 2.0), expected, atol=1e-3)


@needs_data
@pytest.mark.parametrize(("name", "chain"), [("1gyt", "A"), ("1oel", "A1")])
def test_one_chain_of_a_complex_weighs_its_share(name, chain):
    path = DATA / "models" / f"{name}.cif.gz"
    whole, one = AtomicModel.read(path), AtomicModel.read(path, chains=[chain])
    weights = [sum(site.atom.element.weight * site.atom.occ for site in m.model.all()) / 1000 for m in (whole, one)]
    chains = 6 if name == "1gyt" else 14
    assert weights[0] / weights[1] == pytest.approx(chains, rel=0.01)
    assert weights[1] == pytest.approx(51, abs=2)
    assert np.linalg.norm(one.coordinates_A.mean(axis=0)) < 1  # centred on itself
