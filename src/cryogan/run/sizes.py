"""The sizes of a run: working box, particle and mask, where the user gave none from the particles' box."""

from dataclasses import dataclass

from cryogan.config import Settings, parse_stages
from cryogan.particles import ParticleTable

PARTICLE_FRACTION = 0.875  # of the box: the corners and a thin ring beyond it are background
_DEFAULT_BOX = 64
_MASK_FRACTION = 0.95  # the paper: 171 of 180


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run, where the user gave none from the particles' box.

    Attributes:
        box: working box, pixels.
        width: width of the box, A.
        particle_diameter: diameter of the circle that holds a particle, A.
        mask_diameter: diameter of the map's spherical mask, A.
        background: radius, A, beyond which a picked particle's image is background; None for patches.
    """

    box: int
    width: float
    particle_diameter: float
    mask_diameter: float
    background: float | None

    @classmethod
    def of(cls, table: ParticleTable, settings: Settings) -> "Sizes":
        """Return the sizes of a run on these particles."""
        even = table.box - table.box % 2
        box = parse_stages(settings.stages)[-1][0] if settings.stages else settings.box or min(_DEFAULT_BOX, even)
        width = table.pixel_size * even
        diameter = settings.particle_diameter or PARTICLE_FRACTION * width
        picked = settings.kind == "particles"
        mask_diameter = settings.mask_diameter or (_MASK_FRACTION * width if picked else diameter)
        return cls(box, width, diameter, mask_diameter, diameter / 2 if picked else None)
