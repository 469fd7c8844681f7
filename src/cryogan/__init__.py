"""CryoGAN: a 3-D map from particles of unknown pose, learned by matching distributions.

import cryogan
result = cryogan.reconstruct(Path("particles.star"), Path("run"), cryogan.Settings(symmetry="D2"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryogan.checking import check
    from cryogan.config import Settings
    from cryogan.critics.wasserstein.trainer import Training
    from cryogan.errors import InputError
    from cryogan.models.phantom import phantom
    from cryogan.particles import ParticleImages, ParticleTable, read_particles, read_volume, write_volume
    from cryogan.physics.ctf import CtfParameters
    from cryogan.physics.noise import Noise
    from cryogan.physics.projector import FourierProjector
    from cryogan.physics.simulator import Simulator
    from cryogan.physics.volume import Volume
    from cryogan.refinement.refine import Refined, find_poses, refine
    from cryogan.run.postprocess import Result
    from cryogan.run.reconstruct import reconstruct, resume
    from cryogan.simulation import simulate
    from cryogan.validation import align, find_axes, fsc, fsc_curves, resolution_at

__version__ = "0.1.0"

_PLACES = {
    "Training": "critics.wasserstein.trainer",
    "check": "checking",
    "Settings": "config",
    "InputError": "errors",
    "ParticleImages": "particles",
    "ParticleTable": "particles",
    "read_particles": "particles",
    "read_volume": "particles",
    "write_volume": "particles",
    "CtfParameters": "physics.ctf",
    "phantom": "models.phantom",
    "Noise": "physics.noise",
    "FourierProjector": "physics.projector",
    "Simulator": "physics.simulator",
    "Volume": "physics.volume",
    "Result": "run.postprocess",
    "reconstruct": "run.reconstruct",
    "resume": "run.reconstruct",
    "Refined": "refinement.refine",
    "find_poses": "refinement.refine",
    "refine": "refinement.refine",
    "simulate": "simulation",
    "align": "validation",
    "find_axes": "validation",
    "fsc": "validation",
    "fsc_curves": "validation",
    "resolution_at": "validation",
}
__all__ = [
    "CtfParameters",
    "FourierProjector",
    "InputError",
    "Noise",
    "ParticleImages",
    "ParticleTable",
    "Refined",
    "Result",
    "Settings",
    "Simulator",
    "Training",
    "Volume",
    "align",
    "check",
    "find_axes",
    "find_poses",
    "fsc",
    "fsc_curves",
    "phantom",
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
