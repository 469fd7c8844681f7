"""Real against simulated images: what of them a map, a CTF and a noise model do not explain.

Each particle of a half gets a twin that is simulated from the other half's map, at the particle's best template, with
its CTF and another background patch of its micrograph. What still tells the two apart is what the map, the noise or the
CTF has wrong. It is the test that the method itself is made of (p_sim = p_real), with images, and a critic, that had no
part in the map.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.critics.matching.templates import (
    SHIFT_SPACING,
    Observed,
    TemplateBank,
    angular_spacing,
)
from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.fourier import shells, to_half_planes
from cryogan.grids import centred_radius
from cryogan.physics.simulator import Imaging
from cryogan.refinement.half_map_test import HalfMapTest
from cryogan.refinement.half_set import HalfSet
from cryogan.rotations import small_rotations
from cryogan.run.likeness import Likeness, auc_deviation

AT_MOST = 250  # particles of each half
RING_WIDTH = 2  # pixels
BANDS = 4  # of frequencies, whose directions are compared
RIDGE = 0.1  # of the features' variance
LEAST_OF_MICROGRAPH, LEAST_MICROGRAPHS = 4, 5
SMALL = 1e-12

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Stream:
    """Images of one kind, real or simulated, and how they match a map.

    Attributes:
        images: (N, D, D).
        ratios: Log-likelihood ratio of the best template, (N,), nats.
        rotations: The best template's, (N, 3, 3).
        shifts: The best template's, (N, 2), A.
        information: On the pose, (N,), nats.
        views_left: Effective number of views that are left, (N,).
    """

    images: Tensor
    ratios: Tensor
    rotations: Tensor
    shifts: Tensor
    information: Tensor
    views_left: Tensor


@torch.no_grad()
def measure_likeness(test: HalfMapTest) -> Likeness:
    """Compare the particles of each half with their twins, which are simulated from the other half's map.

    Args:
        test: Half maps, and particles of each half.
    """
    pairs, names = [], []
    for side, half in enumerate(test.halves):
        rows = half.rows[:: -(-len(half.rows) // AT_MOST)]
        density = test.weighted(side)
        bank = _bank(half, density, test.width_A / test.resolution)
        pairs.append(_real_and_twins(half, test.for_twins(side), bank, rows))
        names.append(half.images.table.micrographs[rows.cpu().numpy()])
    real, twins = zip(*pairs, strict=True)
    features = [[_features(stream) for stream in streams] for streams in (real, twins)]
    count = sum(len(stream.images) for stream in real)
    ratio = torch.cat([stream.ratios for stream in real]), torch.cat([stream.ratios for stream in twins])
    match, match_deviation = _ratio_of_means(*(values.double().cpu().numpy()[:, None] for values in ratio))
    power, power_deviation = _ratio_of_means(*(_joined(kind, "power") for kind in features))
    variance, variance_deviation = _ratio_of_means(*(_joined(kind, "variance") for kind in features))
    difference = _joined(features[0], "mean") - _joined(features[1], "mean")
    return Likeness(
        images=count,
        auc={name: _held_out_auc(*features, names=chosen) for name, chosen in _FAMILIES.items()},
        auc_deviation=auc_deviation(count, count),
        power=tuple(power),
        power_deviation=tuple(power_deviation),
        mean=tuple(difference.mean(0)),
        mean_deviation=tuple(difference.std(0) / count**0.5),
        variance=tuple(variance),
        variance_deviation=tuple(variance_deviation),
        micrographs=_between_micrographs(features, np.concatenate(names)),
        match=float(match[0]),
        match_deviation=float(match_deviation[0]),
        nats=float(ratio[0].mean()),
        information=float(torch.cat([stream.information for stream in real]).mean()),
        views=len(bank.rotations),
        views_left=float(torch.cat([stream.views_left for stream in real]).median()),
    )


def _bank(half: HalfSet, density: Tensor, finest: float) -> TemplateBank:
    """The templates that a run's search goes through, at frequencies to which the half maps agree."""
    disc = half.disc(max(2.0, min(half.bank_shell, finest)))
    templates = half.templates(half.projector.transform(density), disc)
    return half.bank(templates)


def _real_and_twins(half: HalfSet, shown: Tensor, bank: TemplateBank, rows: Tensor) -> tuple[Stream, Stream]:
    images = torch.from_numpy(half.images.batch(rows.cpu().numpy())).to(shown.device)
    real = _match(half, bank, images, rows)
    phi = Imaging(*_between_templates(half, bank, real), rows)
    twins = half.simulator(half.projector.transform(shown), phi)
    return real, _match(half, bank, twins, rows)


def _between_templates(half: HalfSet, bank: TemplateBank, real: Stream) -> tuple[Tensor, Tensor]:
    """Move the best templates' poses within their cells: real particles are not on the grid."""
    count, device = len(real.ratios), real.shifts.device
    radius = angular_spacing(len(bank.rotations), len(half.group)) * (3 / (4 * torch.pi)) ** (1 / 3)
    turns = torch.randn(count, 3, generator=half.generator, device=device)
    lengths = radius * torch.rand(count, 1, generator=half.generator, device=device) ** (1 / 3)
    turns = turns / turns.norm(dim=1, keepdim=True) * lengths
    moves = torch.rand(count, 2, generator=half.generator, device=device) - 0.5
    spacing = SHIFT_SPACING * half.width_A if half.simulator.max_shift > 0 else 0.0
    return real.rotations @ small_rotations(turns), real.shifts + spacing * moves


def _match(half: HalfSet, bank: TemplateBank, images: Tensor, rows: Tensor) -> Stream:
    matched = partial(_match_some, half, bank)
    parts = zip(torch.split(images, IMAGES_AT_ONCE), torch.split(rows, IMAGES_AT_ONCE), strict=True)
    found = [half.micro_batch.run(partial(matched, *part)) for part in parts]
    return Stream(images, *(torch.cat(values) for values in zip(*found, strict=True)))


def _match_some(half: HalfSet, bank: TemplateBank, images: Tensor, rows: Tensor, size: int) -> list[Tensor]:
    """Match B images with the bank, `size` at a time: what `Stream` has of them."""
    disc, found = bank.disc, []
    for some, row in zip(torch.split(images, size), torch.split(rows, size), strict=True):
        ratios, _ = bank.log_likelihood_ratios(
            Observed.on(disc, to_half_planes(some), half.simulator.transfer(row))
        )  # (B, L, M)
        best, index = ratios.flatten(1).max(1)
        log_posterior = ratios.flatten(1).log_softmax(1)
        of_views = log_posterior.view_as(ratios).logsumexp(1)
        entropy = -(log_posterior.exp() * log_posterior).sum(1)
        views_left = (-(of_views.exp() * of_views).sum(1)).exp()
        count = len(bank.rotations)
        information = float(np.log(ratios[0].numel())) - entropy
        found.append((best, bank.rotations[index % count], bank.shifts[index // count], information, views_left))
    return [torch.cat(values) for values in zip(*found, strict=True)]


def _features(stream: Stream) -> dict[str, Array]:
    """Return numbers of each image, (N, F), by what they say something of."""
    images = stream.images
    count, box = len(images), images.shape[-1]
    radius = torch.from_numpy(np.minimum(centred_radius(box) // RING_WIDTH, box // 2 // RING_WIDTH - 1)).long()
    ring = radius.to(images.device).flatten()
    pixels = torch.bincount(ring)

    def over(index: Tensor, values: Tensor, size: int) -> Tensor:
        return values.new_zeros(count, size).index_add(1, index, values.flatten(1))

    mean = over(ring, images, len(pixels)) / pixels
    variance = over(ring, images.square(), len(pixels)) / pixels - mean.square()
    spectra = to_half_planes(images).abs().square() / box**2
    shell = shells(box, device=images.device).flatten()
    counted = torch.where(shell <= box // 2, shell, 0)  # the corners go to the constant, which is dropped
    power = (over(counted, spectra, box // 2 + 1) / torch.bincount(counted))[:, 1:]
    numbers = {
        "mean": mean,
        "variance": variance,
        "power": power,
        "direction": _anisotropy(spectra, shell),
        "match": torch.stack([stream.ratios, stream.information], 1),
    }
    return {name: values.double().cpu().numpy() for name, values in numbers.items()}


def _anisotropy(spectra: Tensor, shell: Tensor) -> Tensor:
    """Share of the power of each band of frequencies that has a direction, (N, BANDS): 0 if it is alike in all."""
    box = spectra.shape[-2]
    ky, kx = torch.meshgrid(torch.fft.fftfreq(box, 1 / box), torch.fft.rfftfreq(box, 1 / box), indexing="ij")
    angle = 2 * torch.atan2(ky, kx).flatten().to(spectra.device)
    flat, shares = spectra.flatten(1), []
    edges = np.geomspace(1, box // 2 + 1, BANDS + 1)
    for low, high in pairwise(edges):
        inside = (shell >= low) & (shell < high)
        power = flat[:, inside]
        parts = torch.stack([(power * angle[inside].cos()).sum(1), (power * angle[inside].sin()).sum(1)])
        shares.append(parts.norm(dim=0) / power.sum(1).clamp(min=SMALL))
    return torch.stack(shares, 1)


# What the critic looks at, by the name that it is called by.
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "all": ("mean", "variance", "power", "direction", "match"),
    "frequency": ("power",),
    "distance from the centre": ("mean", "variance"),
    "direction": ("direction",),
    "match with the map": ("match",),
}
_POSITIVE = ("variance", "power")  # whose logarithm is nearer to normal


def _held_out_auc(real: list[dict[str, Array]], twins: list[dict[str, Array]], *, names: tuple[str, ...]) -> float:
    """AUC of a linear critic that learns on one half's images and is asked of the other's, mean of both ways.

    Fisher's linear discriminant, the best linear critic of two normal distributions of one covariance.
    """

    def numbers(features: dict[str, Array]) -> Array:
        parts = [np.log(features[name].clip(min=SMALL)) if name in _POSITIVE else features[name] for name in names]
        return np.concatenate(parts, 1)

    sides = [(numbers(of_real), numbers(of_twins)) for of_real, of_twins in zip(real, twins, strict=True)]
    areas = []
    for learn, ask in (sides, sides[::-1]):
        scale = np.concatenate(learn).std(0) + SMALL
        first, second = (values / scale for values in learn)
        within = (np.cov(first.T) + np.cov(second.T)) / 2
        weights = np.linalg.solve(np.atleast_2d(within) + RIDGE * np.eye(len(scale)), first.mean(0) - second.mean(0))
        areas.append(auc(*(values / scale @ weights for values in ask)))
    return float(np.mean(areas))


def auc(positive: Array, negative: Array) -> float:
    """Return the area under the ROC curve of scores: the probability that a positive one is the larger.

    Args:
        positive: Scores of the images that should have the larger ones, (N,).
        negative: Scores of the others, (M,).
    """
    order = np.sort(negative)
    below = (np.searchsorted(order, positive, "left") + np.searchsorted(order, positive, "right")) / 2
    return float(below.mean() / len(negative))


def _joined(features: list[dict[str, Array]], name: str) -> Array:
    return np.concatenate([of_half[name] for of_half in features])


def _ratio_of_means(real: Array, twins: Array) -> tuple[Array, Array]:
    """Mean of real over that of simulated numbers (N, F), and its standard deviation by the delta method; (F,) each."""
    mean = twins.mean(0)
    mean = np.where(np.abs(mean) < SMALL, SMALL, mean)
    ratio = real.mean(0) / mean
    return ratio, (real - ratio * twins).std(0) / len(real) ** 0.5 / np.abs(mean)


def _between_micrographs(features: list[list[dict[str, Array]]], names: NDArray[np.str_]) -> float | None:
    """Standard deviation between micrographs of the log ratio of power, by one-way analysis of variance."""
    logs = [np.log(_joined(kind, "power").mean(1)) for kind in features]
    values = logs[0] - logs[1]
    _, group, counts = np.unique(names, return_inverse=True, return_counts=True)
    whole = counts[group] >= LEAST_OF_MICROGRAPH
    if len(np.unique(group[whole])) < LEAST_MICROGRAPHS:
        return None
    values, group = values[whole], np.unique(group[whole], return_inverse=True)[1]
    sizes = np.bincount(group)
    means = np.bincount(group, values) / sizes
    within = ((values - means[group]) ** 2).sum() / (len(values) - len(sizes))
    between = (sizes * (means - values.mean()) ** 2).sum() / (len(sizes) - 1)
    size = (len(values) - (sizes**2).sum() / len(values)) / (len(sizes) - 1)
    return float(max(0.0, (between - within) / size) ** 0.5)
