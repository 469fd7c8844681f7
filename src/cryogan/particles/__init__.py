"""Particle metadata, image stacks and preprocessed images."""

from cryogan.particles.contrast import ContrastReport, contrast_sign
from cryogan.particles.cryosparc_writer import write_cs_particles
from cryogan.particles.downsample_cache import crop
from cryogan.particles.images import ParticleImages
from cryogan.particles.maps import MapHeader, read_map, read_volume, write_map, write_volume
from cryogan.particles.mrc import open_stack, write_stack
from cryogan.particles.pose_prior import PosePrior, read_pose_prior
from cryogan.particles.reading import read_particles
from cryogan.particles.relion_writer import write_particles
from cryogan.particles.star import StarTable, read_star, write_star
from cryogan.particles.table import ParticleTable
from cryogan.particles.unmodelled import input_findings, unmodelled

__all__ = [
    "ContrastReport",
    "MapHeader",
    "ParticleImages",
    "ParticleTable",
    "PosePrior",
    "StarTable",
    "contrast_sign",
    "crop",
    "input_findings",
    "open_stack",
    "read_map",
    "read_particles",
    "read_pose_prior",
    "read_star",
    "read_volume",
    "unmodelled",
    "write_cs_particles",
    "write_map",
    "write_particles",
    "write_stack",
    "write_star",
    "write_volume",
]
