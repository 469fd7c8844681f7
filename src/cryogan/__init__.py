"""CryoGAN: a 3-D map from particles of unknown pose, learned by matching distributions.

import cryogan
run = cryogan.reconstruct("particles.star", "run", cryogan.Settings(symmetry="D2"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryogan.config import Settings
    from cryogan.errors import InputError
    from cryogan.particles import ParticleTable, read_particles, read_volume, write_volume
    from cryogan.physics.simulator import Simulator
    from cryogan.reconstruction import Result, reconstruct, resume
    from cryogan.refinement import find_poses, refine
    from cryogan.simulation import simulate
    from cryogan.validation import align, find_axes, fsc, fsc_curves, resolution_at

__version__ = "0.1.0"

_PLACES = {
    "Settings": "config",
    "InputError": "errors",
    "ParticleTable": "particles",
    "read_particles": "particles",
    "read_volume": "particles",
    "write_volume": "particles",
    "Simulator": "physics.simulator",
    "Result": "reconstruction",
    "reconstruct": "reconstruction",
    "resume": "reconstruction",
    "find_poses": "refinement",
    "refine": "refinement",
    "simulate": "simulation",
    "align": "validation",
    "find_axes": "validation",
    "fsc": "validation",
    "fsc_curves": "validation",
    "resolution_at": "validation",
}
__all__ = [
    "InputError",
    "ParticleTable",
    "Result",
    "Settings",
    "Simulator",
    "align",
    "find_axes",
    "find_poses",
    "fsc",
    "fsc_curves",
    "read_particles",
    "read_volume",
    "reconstruct",
    "refine",
    "resolution_at",
    "resume",
    "simulate",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for: PyTorch and SciPy take seconds.
    if name not in _PLACES:
        raise AttributeError(f"module 'cryogan' has no attribute {name!r}")
    return getattr(import_module(f"cryogan.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
