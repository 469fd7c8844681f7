"""Work that a run does, counted by kind; and how fast a machine does each kind."""

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Work:
    """Numbers of operations.

    Attributes:
        products: Multiplications of a coefficient of an image with one of a template, at one shift.
        samples: Coefficients of slices that are read from a spectrum, with their slopes, or added to one.
        pixels: Pixels of images that are read and of as many that are simulated, both with their transforms.
        voxels: Voxels of padded volumes that are transformed.
    """

    products: float = 0.0
    samples: float = 0.0
    pixels: float = 0.0
    voxels: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        """Add two works."""
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> "Work":
        """Do the work a number of times."""
        return Work(*(factor * count for count in astuple(self)))


@dataclass(frozen=True)
class Speed:
    """Seconds that each kind of operation takes; attributes as of `Work`."""

    products: float
    samples: float
    pixels: float
    voxels: float

    def seconds(self, work: Work) -> float:
        """Return how long work takes, seconds."""
        return float(sum(rate * count for rate, count in zip(astuple(self), astuple(work), strict=True)))


# One core of a Zen 4: where only proportions count, or the machine that will run is not this one.
USUAL = Speed(products=5.7e-11, samples=1.1e-7, pixels=7.5e-8, voxels=2e-8)
