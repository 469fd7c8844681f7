from collections.abc import Callable

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest

from development_data import DATA


@pytest.fixture(scope="session")
def truth() -> Callable[[str], tuple[npt.NDArray[np.float64], float]]:
    """The true map of a data set and its pixel size in A."""

    def read(name: str) -> tuple[npt.NDArray[np.float64], float]:
        path = DATA / name / "truth.mrc"
        if not path.exists():
            pytest.skip(f"{name}/truth.mrc is not in the data folder: set CRYOGAN_DATA to it")
        with mrcfile.open(path) as file:
            return np.asarray(file.data, dtype=np.float64), float(file.voxel_size.x)

    return read
