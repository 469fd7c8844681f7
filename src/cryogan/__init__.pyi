from .checking import check
from .config import Settings
from .critics.wasserstein.trainer import Training
from .errors import InputError
from .models.phantom import phantom
from .particles import ParticleImages, ParticleTable, read_particles, read_volume, write_volume
from .physics.ctf import CtfParameters
from .physics.noise import Noise
from .physics.projector import FourierProjector
from .physics.simulator import Simulator
from .physics.volume import Volume
from .refinement.refine import Refined, find_poses, refine
from .run.postprocess import Result
from .run.reconstruct import reconstruct, resume
from .simulation import simulate
from .validation import align, find_axes, fsc, fsc_curves, resolution_at

__version__: str
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
