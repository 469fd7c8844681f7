"""Atomic models in RELION's setting of their point group."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.models.atomic_model import AtomicModel
from cryogan.particles import read_volume
from cryogan.physics.symmetry import Symmetriser, point_group
from cryogan.simulation.symmetry_axes import on_symmetry_axes
from development_data import DATA

needs_data = pytest.mark.skipif(
    not (DATA / "models" / "1oel.cif.gz").is_file(), reason=f"no development data in {DATA}; set CRYOGAN_DATA"
)


def asymmetry_A(model: AtomicModel, symmetry: str) -> float:
    """R.m.s. distance, over the operators, of a turned model's atoms from the nearest atom of the model."""
    atoms = model.coordinates_A[:: max(1, len(model.coordinates_A) // 2000)]
    turned = np.einsum("gij,nj->gni", point_group(symmetry)[1:], atoms)
    distances = cKDTree(model.coordinates_A).query(turned.reshape(-1, 3))[0]
    return float(np.sqrt((distances**2).mean()))


def write_assembly(path: Path, symmetry: str, turn: np.ndarray) -> Path:
    """Copies of ten atoms under a point group, in a frame turned by `turn`."""
    unit = np.random.default_rng(1).uniform((6, -6, -14), (22, 6, 14), (10, 3))
    atoms = np.einsum("ij,gjk,nk->gni", turn, point_group(symmetry), unit).reshape(-1, 3)
    rows = [
        f"ATOM  {i:5d}  CA  ALA A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00           C"
        for i, (x, y, z) in enumerate(atoms, start=1)
    ]
    path.write_text("\n".join([*rows, "END", ""]))
    return path


@pytest.mark.parametrize("symmetry", ["C3", "D2", "T"])
def test_axes_are_relions_whatever_the_files_frame(symmetry: str, tmp_path: Path) -> None:
    turn = Rotation.from_euler("ZYZ", [40, 70, -25], degrees=True).as_matrix()
    model = AtomicModel.read(write_assembly(tmp_path / "model.pdb", symmetry, turn))
    assert asymmetry_A(model, symmetry) > 2
    assert asymmetry_A(on_symmetry_axes(model, symmetry, 40, 3.0), symmetry) < 0.02


def test_a_model_without_the_symmetry_is_refused(tmp_path: Path) -> None:
    model = AtomicModel.read(write_assembly(tmp_path / "model.pdb", "C3", np.eye(3)))
    with pytest.raises(InputError, match=r"correlates with itself only to .* under the point group C4"):
        on_symmetry_axes(model, "C4", 40, 3.0)


# The subunits of the crystals are not all alike: those of 1oel differ by about 0.7 A.
@needs_data
@pytest.mark.parametrize(
    ("name", "symmetry", "alike_A"), [("1k4c", "C4", 0.1), ("1gyt", "D3", 0.6), ("1oel", "D7", 0.8), ("4v1w", "O", 0.1)]
)
def test_models_of_all_point_groups(name: str, symmetry: str, alike_A: float) -> None:
    model = AtomicModel.read(DATA / "models" / f"{name}.cif.gz")
    assert asymmetry_A(on_symmetry_axes(model, symmetry, 48, 5.0), symmetry) < alike_A


@needs_data
def test_truth_of_a_simulated_model_has_its_symmetry(tmp_path: Path) -> None:
    command = ["simulate", "--model", str(DATA / "models" / "4v1w.cif.gz"), "--symmetry", "O", "--box", "48"]
    main([*command, "--pixel-size", "5", "--resolution", "10", "--particles", "5", "--out", str(tmp_path / "set")])
    volume = read_volume(tmp_path / "set" / "truth.mrc")[0]
    symmetrised = Symmetriser("O", len(volume), device=torch.device("cpu"))(torch.from_numpy(volume)).numpy()
    assert np.corrcoef(volume.ravel(), symmetrised.ravel())[0, 1] > 0.999


@needs_data
def test_one_chain_is_simulated(tmp_path: Path) -> None:
    command = ["simulate", "--model", str(DATA / "models" / "1gyt.cif.gz"), "--box", "32", "--pixel-size", "4"]
    main([*command, "--chains", "A", "--resolution", "8", "--particles", "5", "--out", str(tmp_path / "set")])
    expected = AtomicModel.read(DATA / "models" / "1gyt.cif.gz", chains=["A"]).on_principal_axes().density(8.0, 32, 4.0)
    np.testing.assert_array_equal(read_volume(tmp_path / "set" / "truth.mrc")[0], expected)


def test_options_of_a_model_without_one_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--symmetry", "--chains", "--without-chains"):
        with pytest.raises(SystemExit) as caught:
            main(["simulate", option, "C4", "--out", str(tmp_path / "set")])
        assert caught.value.code == 2
        assert "Give it with --model" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
