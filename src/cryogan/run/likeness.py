"""What tells real from simulated images, and how much is known of the particles' poses: the record of a run.

`cryogan.refinement.likeness` measures it; docs/trust.md explains it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Series = tuple[float, ...]


@dataclass(frozen=True)
class Likeness:
    """Comparison of particles with images that are simulated from the other half's map.

    Attributes:
        images: Number of real images, and of simulated ones.
        auc: Area under the ROC curve of a linear critic on images that it never saw, by what it looks at: 0.5 where
            real and simulated images are alike.
        auc_deviation: Standard deviation of the areas for images that are alike.
        power: Power of real over simulated images, by shell.
        power_deviation: Standard deviation of `power`.
        mean: Mean of real less mean of simulated images at each distance from the centre, s.d. of the noise.
        mean_deviation: Standard deviation of `mean`.
        variance: Variance of real over that of simulated images at each distance from the centre.
        variance_deviation: Standard deviation of `variance`.
        micrographs: Standard deviation, over micrographs, of the logarithm of real over simulated power, beyond that of
            single images; None: there are too few images of each.
        match: Mean log-likelihood ratio of real over that of simulated images, at their best templates.
        match_deviation: Standard deviation of `match`.
        nats: Mean log-likelihood ratio of the best template over "nothing but noise", nats.
        information: Mean information of an image on its pose, nats: what is known beyond the prior.
        views: Number of views in the bank of templates.
        views_left: Effective number of them that are left after seeing an image, median.
    """

    images: int
    auc: Mapping[str, float]
    auc_deviation: float
    power: Series
    power_deviation: Series
    mean: Series
    mean_deviation: Series
    variance: Series
    variance_deviation: Series
    micrographs: float | None
    match: float
    match_deviation: float
    nats: float
    information: float
    views: int
    views_left: float

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Likeness":
        """Return the likeness that was recorded as JSON."""
        fields: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
        return cls(**fields)

    @property
    def telling(self) -> str:
        """What tells real from simulated images best."""
        return max((name for name in self.auc if name != "all"), key=lambda name: self.auc[name])

    @property
    def differs(self) -> bool:
        """Whether real and simulated images can be told apart, beyond three standard deviations."""
        return self.auc["all"] > 0.5 + 3 * self.auc_deviation

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        if not self.differs:
            told = "cannot be told apart"
        else:
            told = f"can be told apart, most by {self.telling} (AUC {self.auc[self.telling]:.2f})"
        return f"Real and simulated images {told}: AUC {self.auc['all']:.2f} +- {self.auc_deviation:.2f}; 0.5 is alike."

    @property
    def poses_sentence(self) -> str:
        """What is known of the poses, in words."""
        return (
            f"A particle holds {self.information:.1f} nats on its pose, which leave {self.views_left:.0f} of "
            f"{self.views} views; it matches the map with {self.match:.2f} +- {self.match_deviation:.2f} of the "
            "log-likelihood of an image simulated from it."
        )


def auc_deviation(real: int, simulated: int) -> float:
    """Return the standard deviation of the area under the ROC curve (Mann-Whitney) of samples of one distribution.

    Args:
        real: Number of real images.
        simulated: Number of simulated images.
    """
    return math.sqrt((real + simulated + 1) / (12 * real * simulated))
