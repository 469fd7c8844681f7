"""Small data sets on disk."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from cryogan.particles import write_stack, write_star

OPTICS: dict[str, Sequence[object]] = {
    "rlnOpticsGroup": [1],
    "rlnOpticsGroupName": ["opticsGroup1"],
    "rlnImagePixelSize": [2.5],
    "rlnImageSize": [16],
    "rlnImageDimensionality": [2],
    "rlnVoltage": [300.0],
    "rlnSphericalAberration": [2.7],
    "rlnAmplitudeContrast": [0.07],
}


def particle_columns(count: int) -> dict[str, Sequence[object]]:
    return {
        "rlnImageName": [f"{number:06d}@stack.mrcs" for number in range(1, count + 1)],
        "rlnMicrographName": [f"mic{number % 2}.mrc" for number in range(count)],
        "rlnDefocusU": [10_000.0 + number for number in range(count)],
        "rlnDefocusV": [9_900.0 + 30 * number for number in range(count)],
        "rlnDefocusAngle": [-30.0 + number for number in range(count)],
        "rlnOpticsGroup": [1] * count,
        "rlnUnknownColumn": ["kept as is"] * count,
    }


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((6, 16, 16)).astype(np.float32)


@pytest.fixture
def make_star(tmp_path: Path, images: np.ndarray) -> Callable[..., Path]:
    """Write stack.mrcs (6 of 16 px, 2.5 A) and a RELION 3.1 STAR; arguments replace or drop (None) columns."""

    def make(
        optics: Mapping[str, Sequence[object] | None] | None = None,
        particles: Mapping[str, Sequence[object] | None] | None = None,
        with_optics: bool = True,
    ) -> Path:
        write_stack(tmp_path / "stack.mrcs", images, 2.5)
        blocks = {}
        if with_optics:
            blocks["optics"] = _replaced(OPTICS, optics or {})
        blocks["particles" if with_optics else ""] = _replaced(particle_columns(len(images)), particles or {})
        write_star(tmp_path / "particles.star", blocks)
        return tmp_path / "particles.star"

    return make


@pytest.fixture
def make_cs(tmp_path: Path, images: np.ndarray) -> Callable[..., Path]:
    """Write P/J1/extract/stack.mrcs and P/J1/particles.cs, which names it from the project's folder P."""

    def make(drop: Sequence[str] = (), **changes: np.ndarray) -> Path:
        folder = tmp_path / "P" / "J1"
        (folder / "extract").mkdir(parents=True, exist_ok=True)
        write_stack(folder / "extract" / "stack.mrcs", images, 2.5)
        count = len(images)
        columns = {
            "blob/path": np.array([b">J1/extract/stack.mrcs"] * count),
            "blob/idx": np.arange(count, dtype=np.uint32)[::-1],
            "blob/psize_A": np.full(count, 2.5, np.float32),
            "blob/shape": np.full((count, 2), 16, np.uint32),
            "blob/sign": np.full(count, -1, np.float32),
            "ctf/df1_A": np.linspace(8e3, 9e3, count).astype(np.float32),
            "ctf/df2_A": np.linspace(7e3, 8e3, count).astype(np.float32),
            "ctf/df_angle_rad": np.full(count, np.pi / 6, np.float32),
            "ctf/accel_kv": np.full(count, 200, np.float32),
            "ctf/cs_mm": np.full(count, 0.01, np.float32),
            "ctf/amp_contrast": np.full(count, 0.1, np.float32),
            "ctf/phase_shift_rad": np.full(count, np.pi / 4, np.float32),
            "ctf/bfactor": np.full(count, 12, np.float32),
            "location/micrograph_path": np.array([b"J1/mic.mrc"] * count),
        }
        columns |= {name.replace("__", "/"): values for name, values in changes.items()}
        kept = {name: values for name, values in columns.items() if name not in drop}
        dtype = [(name, values.dtype, values.shape[1:]) for name, values in kept.items()]
        records = np.zeros(count, dtype=dtype)
        for name, values in kept.items():
            records[name] = values
        with (folder / "particles.cs").open("wb") as out:
            np.save(out, records)
        return folder / "particles.cs"

    return make


def _replaced(
    columns: Mapping[str, Sequence[object]], changes: Mapping[str, Sequence[object] | None]
) -> dict[str, Sequence[object]]:
    merged = {**columns, **changes}
    return {name: values for name, values in merged.items() if values is not None}
