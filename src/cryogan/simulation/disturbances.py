"""The options with which `simulate` makes particles as untidy as those of a microscope."""

from pydantic import BaseModel, ConfigDict, Field

PARTICLE = "particle"
JUNK_KINDS = ("empty", "contaminant", "broken", "aggregate")


class Disturbances(BaseModel):
    """What separates particles of a microscope from clean simulated ones; everything is off by default.

    Each disturbance is drawn from a random generator of its own, so that switching one on does not change another,
    nor the images that it does not touch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    junk_empty: float = Field(default=0.0, ge=0, le=1, description="Share of images that hold noise only.")
    junk_contaminant: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of images that show a bright blob, such as ice, of four times the particles' power.",
    )
    junk_broken: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of images that show one side of the molecule, cut through its centre.",
    )
    junk_aggregate: float = Field(
        default=0.0, ge=0, le=1, description="Share of images that show three molecules, one over another."
    )
    neighbours: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of images with a second molecule, 1 to 1.25 molecular diameters from the first.",
    )
    miscentring: float = Field(
        default=0.0,
        ge=0,
        description="Scale, A, of further shifts with heavy tails: Student's t with two degrees of freedom in x and "
        "y, at most a quarter of the box.",
    )
    defocus_error: float = Field(
        default=0.0, ge=0, description="S.d., A, of the error of each particle's defocus in particles.star."
    )
    snr_spread: float = Field(
        default=0.0, ge=0, description="S.d. of the logarithm of the SNR between micrographs; --snr is the median."
    )
    ice_gradient: float = Field(
        default=0.0,
        ge=0,
        description="Linear ramp over each particle image, in s.d. of the noise at the box's edge; one direction in "
        "each micrograph. Noise patches have none.",
    )
    b_factor: float = Field(
        default=0.0, ge=0, description="B, A^2, of an envelope exp(-B k^2 / 4) that particles.star does not state."
    )
    preferred_views: float = Field(
        default=0.0,
        ge=0,
        description="Concentration kappa of the views about the volume's z axis (von Mises and Fisher); 0: uniform.",
    )
    belt: float = Field(
        default=0.0,
        ge=0,
        description="Density of a detergent belt about z, over the molecule's mean; truth.mrc is without it.",
    )
    belt_position: float = Field(
        default=0.0, description="Height of the belt's middle over the box's centre, A along z."
    )

    @property
    def junk(self) -> dict[str, float]:
        """The share of each kind of junk."""
        return {kind: getattr(self, f"junk_{kind}") for kind in JUNK_KINDS}

    @property
    def any(self) -> bool:
        """Whether anything is disturbed."""
        return self != Disturbances(belt_position=self.belt_position)
