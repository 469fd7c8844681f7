"""Fourier shell correlation of two maps, and its correction for the mask."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from cryogan.errors import InputError
from cryogan.validation.checks import Array, cubic, half_frequency, positive
from cryogan.validation.masks import check_mask

RANDOMISE_BELOW = 0.8  # relion_postprocess --randomize_at_fsc
# RELION: the shells next to the first randomised one still leak unrandomised signal through the mask.
SHELLS_KEPT_AFTER_RANDOMISATION = 2


@dataclass(frozen=True, eq=False)
class FscCurves:
    """FSC curves of two half maps over the shells 0 to D//2; every array is (D//2+1,).

    Attributes:
        shell: number of the shell.
        frequency: 1/A.
        resolution: A, infinite at shell 0.
        unmasked: FSC of the maps as they are.
        masked: FSC of the maps times the mask.
        phase_randomised: FSC of the masked maps with random phases beyond `randomised_from`.
        corrected: masked FSC without what the mask correlates.
        pixel_size: A.
        randomised_from: resolution in A from which on phases were randomised; 2 x `pixel_size` if none were.
    """

    shell: npt.NDArray[np.int64]
    frequency: Array
    resolution: Array
    unmasked: Array
    masked: Array
    phase_randomised: Array
    corrected: Array
    pixel_size: float
    randomised_from: float


def fsc(volume1: npt.ArrayLike, volume2: npt.ArrayLike) -> Array:
    """Compute the Fourier shell correlation of two maps, without a mask.

    ``FSC(s) = sum Re(F1 F2*) / sqrt(sum |F1|^2 sum |F2|^2)`` over ``round(|k|) = s`` (Harauz and van Heel 1986),
    in float64. The sums run over the half transform as stored, as RELION's do, so that the values are those of
    `relion_image_handler --fsc`.

    Args:
        volume1: (D, D, D).
        volume2: (D, D, D).

    Returns:
        (D//2+1,); 1 at shell 0 by definition, 0 in a shell where a map has no power.

    Raises:
        InputError: the maps are not cubic, not finite or differ in shape.
    """
    first, second = _pair(volume1, volume2)
    return _correlate(fft.rfftn(first), fft.rfftn(second))


def fsc_curves(
    half1: npt.ArrayLike,
    half2: npt.ArrayLike,
    pixel_size: float,
    mask: npt.ArrayLike | None = None,
    seed: int = 0,
) -> FscCurves:
    """Compute the FSC of two half maps: unmasked, masked, and corrected for what the mask correlates.

    The correction is that of `relion_postprocess` (Chen et al. 2013, Ultramicroscopy 135:24): the phases of
    both halves are randomised from the first shell where the unmasked FSC is below 0.8; from two shells beyond
    it corrected = (masked - random) / (1 - random), and corrected = masked before. Without a mask, or if the
    unmasked FSC stays above 0.8, nothing is randomised and the last three curves are equal.

    Args:
        half1: (D, D, D).
        half2: (D, D, D).
        pixel_size: A.
        mask: (D, D, D), multiplies both maps.
        seed: seed of the random phases.

    Raises:
        InputError: maps and mask differ in shape, are not cubic or not finite, or the mask is none (`check_mask`).
    """
    first, second = _pair(half1, half2)
    pixel_size = positive(pixel_size, "pixel size")
    box = first.shape[0]
    unmasked = _correlate(fft.rfftn(first), fft.rfftn(second))
    masked = random = corrected = unmasked
    randomised_from = 2 * pixel_size
    if mask is not None:
        window = check_mask(mask, box)
        masked = random = corrected = fsc(first * window, second * window)
        low = np.flatnonzero(unmasked[1:] < RANDOMISE_BELOW)
        if low.size:
            shell = int(low[0]) + 1
            randomised_from = box * pixel_size / shell
            random, corrected = _correct(first, second, window, masked, shell, seed)
    shells = np.arange(box // 2 + 1)
    with np.errstate(divide="ignore"):
        resolution = box * pixel_size / shells
    return FscCurves(
        shell=shells,
        frequency=shells / (box * pixel_size),
        resolution=resolution,
        unmasked=unmasked,
        masked=masked,
        phase_randomised=random,
        corrected=corrected,
        pixel_size=pixel_size,
        randomised_from=randomised_from,
    )


def _correct(first: Array, second: Array, window: Array, masked: Array, shell: int, seed: int) -> tuple[Array, Array]:
    """Phase-randomised and corrected FSC of masked maps; the phases are random from `shell` on."""
    generator = np.random.default_rng(seed)
    random = fsc(
        randomise_phases(first, shell, generator) * window,
        randomise_phases(second, shell, generator) * window,
    )
    return random, without_mask_correlation(masked, random, shell)


def without_mask_correlation(masked: Array, random: Array, shell: float) -> Array:
    """Correct FSC curves of masked maps for what the mask correlates (Chen et al. 2013).

    Args:
        masked: (..., D//2+1).
        random: (D//2+1,), of the masked maps with random phases from `shell` on.
        shell: shell from which on the phases were randomised.

    Returns:
        (..., D//2+1).
    """
    beyond = np.arange(len(random)) >= shell + SHELLS_KEPT_AFTER_RANDOMISATION
    beyond &= random < 1
    corrected = masked.copy()
    corrected[..., beyond] = (masked[..., beyond] - random[beyond]) / (1 - random[beyond])
    return corrected


def randomise_phases(volume: npt.ArrayLike, shell: int, generator: np.random.Generator) -> Array:
    """Replace the phases of a map (D, D, D) by uniformly random ones where |k| >= `shell`; amplitudes stay."""
    array = cubic(volume)
    transform = fft.rfftn(array)
    # The phases of a real white map are uniform and have the symmetry that keeps the result real.
    noise = fft.rfftn(generator.standard_normal(array.shape))
    beyond = half_frequency(array.shape[0]) >= shell
    transform[beyond] = np.abs(transform[beyond]) * noise[beyond] / np.abs(noise[beyond])
    return fft.irfftn(transform, s=array.shape, axes=(0, 1, 2))


def resolution_at(curve: npt.ArrayLike, pixel_size: float, threshold: float, box: int | None = None) -> float:
    """Find the resolution in A where an FSC curve first falls below a threshold.

    The crossing is interpolated linearly in frequency between the two shells around it, from shell 1 on. A
    curve that stays at or above the threshold gives Nyquist, 2 x `pixel_size`: the maps agree at least that
    far. One already below it at shell 1 gives the box size in A, the coarsest shell: the maps agree at no
    resolution.

    Args:
        curve: (D//2+1,).
        pixel_size: A.
        threshold: such as 0.143 for half maps, 0.5 for a map and its truth.
        box: D, which the curve does not determine; default: the even 2 (length - 1).

    Raises:
        InputError: the curve is too short, not finite, or not of that box.
    """
    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InputError("The FSC curve must be a list of at least 2 finite values, one for each shell.")
    pixel_size = positive(pixel_size, "pixel size")
    size = 2 * (len(values) - 1) if box is None else box
    if size // 2 + 1 != len(values):
        raise InputError(f"An FSC curve of {len(values)} shells is not of box {size}. Give its box.")
    return float(size * pixel_size / crossing_shells(values[None], threshold, size)[0])


def crossing_shells(curves: Array, threshold: float, box: int) -> Array:
    """Find where FSC curves first fall below a threshold, as `resolution_at` does.

    Args:
        curves: (N, D//2+1).
        threshold: such as 0.143.
        box: D.

    Returns:
        (N,) shells, interpolated linearly, from 1 to the Nyquist frequency D/2.
    """
    rows, low = np.arange(len(curves)), curves[:, 1:] < threshold
    after = low.argmax(axis=1) + 1
    before, beyond = curves[rows, after - 1], curves[rows, after]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = after - 1 + (before - threshold) / (before - beyond)
    crossing = np.where(after == 1, 1.0, crossing)
    shells: Array = np.where(low.any(axis=1), crossing, box / 2)
    return shells


def _pair(volume1: npt.ArrayLike, volume2: npt.ArrayLike) -> tuple[Array, Array]:
    """Check that two maps are cubic and of one shape."""
    first, second = cubic(volume1, "first map"), cubic(volume2, "second map")
    if first.shape != second.shape:
        raise InputError(f"The maps are {first.shape} and {second.shape}. Resample one to the other's box.")
    return first, second


def _correlate(first: npt.NDArray[np.complex128], second: npt.NDArray[np.complex128]) -> Array:
    """FSC (D//2+1,) of two half transforms (D, D, D//2+1)."""
    box = first.shape[0]
    shell = np.rint(half_frequency(box)).astype(np.int64).ravel()

    def total(values: Array) -> Array:
        sums: Array = np.bincount(shell, weights=values.ravel())[: box // 2 + 1].astype(np.float64)
        return sums

    cross = total((first * second.conj()).real)
    # Two roots rather than one, because the product of two tiny powers underflows.
    power = np.sqrt(total(np.abs(first) ** 2)) * np.sqrt(total(np.abs(second) ** 2))
    curve: Array = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    curve[0] = 1
    return curve
