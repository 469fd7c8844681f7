"""Is protein bright or dark? The map is kept positive, so the wrong sign is fatal to a run, and it is measured.

Particles are picked near their centres and their orientations are many, so the mean of their images, each with its own
CTF, is that of a spherically symmetric density: the molecule turned in all directions and blurred by the shifts.
Whatever the molecule is (globule, shell, ring, rod), this density is nowhere negative if protein is bright, and nowhere
positive if it is dark. Both are fitted to the images; the sign is that of the fit that explains them better. It needs
no guess of the molecule's shape or size. (A template, such as a blob at the centre, has the wrong sign for a shell:
beyond its first zero the transform of a shell is negative, and there the CTF is strongest.)
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize

from cryogan.grids import frequency_axis, frequency_radius
from cryogan.optics import ctf_phase, wavelength
from cryogan.particles.images import ParticleImages

FINEST_A = 20.0  # what is finer shows the molecule's insides, which vary with direction
FEWEST_IMAGES = 10
FEWEST_SHELLS = 4
# 960 background patches beside ribosomes reach 5; 101 particles of EMPIAR-10061 reach 29.
DECIDED = 10.0
# Of the power of the mean images: 0.05 in real apoferritin, 0.21 if its defocus is taken to be four times what it is.
UNEXPLAINED = 0.15
_BATCH = 256

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ContrastReport:
    """Sign of the protein's contrast in a set of images.

    Attributes:
        sign: +1 protein is bright, -1 dark, 0 not sure.
        z: root of the difference of chi squared between both signs, positive if bright fits better.
        count: images that were looked at.
        reason: why it is not sure, or where the sign comes from if not from the images; otherwise empty.
    """

    sign: int
    z: float
    count: int
    reason: str = ""


def contrast_sign(images: ParticleImages, count: int = 1000, stated: int | None = None) -> ContrastReport:
    """Measure whether protein is bright or dark.

    The mean around the centre of each image's transform, d(k), is compared with s C(k) J(k): C is the image's CTF,
    s = 1 or -1, and J the transform of a radial density of no negative value within the box, found by non-negative
    least squares over all images. Frequencies are those coarser than 20 A. The difference of chi squared between
    s = -1 and s = 1 decides, if it is large and the better fit leaves little unexplained.

    Args:
        images: particles with their CTFs.
        count: the most images to use, spread over the set.
        stated: sign that a file states for these images, as `blob/sign` of cryoSPARC does; it is taken where the
            images do not decide, and if they decide otherwise, nothing is sure.
    """
    measured = _measure(images, images.spread(count))
    if stated is None or measured.sign == stated:
        return measured
    if measured.sign == 0:
        return replace(measured, sign=stated, reason="as the file states, the images do not decide")
    seen = {1: "bright", -1: "dark"}
    return replace(
        measured, sign=0, reason=f"the images look {seen[measured.sign]}, the file states that they are {seen[stated]}"
    )


def _measure(images: ParticleImages, rows: NDArray[np.int64]) -> ContrastReport:
    """Sign by the images alone."""
    frequency = _frequencies(images)
    if len(rows) < FEWEST_IMAGES:
        return ContrastReport(0, 0.0, len(rows), "too few images")
    if len(frequency) < FEWEST_SHELLS:
        return ContrastReport(0, 0.0, len(rows), f"too few frequencies coarser than {FINEST_A:g} A")
    ctf = _mean_ctf(images, rows, frequency)
    if not np.isfinite(ctf).all():
        return ContrastReport(0, 0.0, len(rows), "their CTFs are not known")
    means = np.concatenate(
        [_radial_means(images, rows[start : start + _BATCH], len(frequency)) for start in range(0, len(rows), _BATCH)]
    )
    variance = means.var(axis=0, ddof=1)
    if not (variance > 0).all():
        return ContrastReport(0, 0.0, len(rows), "the images do not differ")
    bright, dark, power = _fit(frequency, means, ctf, variance, images.box * images.pixel_size / 2, images.pixel_size)
    difference = dark - bright
    z = float(np.sign(difference) * np.sqrt(abs(difference)))
    if abs(z) < DECIDED:
        return ContrastReport(0, z, len(rows), "both signs fit the mean of the images equally well")
    if min(bright, dark) - len(frequency) > UNEXPLAINED * power:  # noise alone gives 1 for each frequency
        return ContrastReport(0, z, len(rows), "neither sign fits the mean of the images; check the CTFs")
    return ContrastReport(int(np.sign(z)), z, len(rows))


def _frequencies(images: ParticleImages) -> Array:
    """Frequencies (S,) in 1/A of the shells 1 to S that are compared."""
    width = images.box * images.pixel_size
    return np.arange(1, 1 + min(images.box // 2 - 1, int(width / FINEST_A))) / width


def _radial_means(images: ParticleImages, rows: NDArray[np.int64], shells: int) -> Array:
    """Mean (B, S) of the real part of each image's transform about its centre, in the shells 1 to S."""
    box = images.box
    ky, kx = frequency_axis(box)[:, None], np.arange(box // 2 + 1)
    shell = np.rint(frequency_radius(box)).astype(np.int64)
    inside = (shell > 0) & (shell <= shells)
    # At the centre pixel, box // 2, the phase of (kx, ky) is that of kx + ky half periods.
    sign = (1 - 2 * ((ky + kx) % 2))[inside]
    sums = np.zeros((shells, len(sign)))
    sums[shell[inside] - 1, np.arange(len(sign))] = sign * np.broadcast_to(np.where(kx == 0, 1, 2), shell.shape)[inside]
    sums /= np.abs(sums).sum(axis=1, keepdims=True)
    means: Array = fft.rfft2(images.batch(rows)).real[:, inside].astype(np.float64) @ sums.T
    return means


def _fit(
    frequency: Array, means: Array, ctf: Array, variance: Array, radius_A: float, step_A: float
) -> tuple[float, float, float]:
    """Chi squared of the best density if protein is bright, if it is dark, and if there is none."""
    weight = np.sqrt(np.square(ctf).sum(axis=0) / variance)
    target = (ctf * means).sum(axis=0) / variance / weight
    radii = np.arange(step_A / 2, radius_A, step_A)
    shells = np.sinc(2 * frequency[:, None] * radii)  # transforms of thin shells of unit mass
    bright, dark = (optimize.nnls(weight[:, None] * shells, sign * target)[1] ** 2 for sign in (1, -1))
    return float(bright), float(dark), float(np.square(target).sum())


def _mean_ctf(images: ParticleImages, rows: NDArray[np.int64], frequency: Array) -> Array:
    """CTF (B, S) at each row's mean defocus, as the mean around the centre hides the astigmatism."""
    ctf = {key: values[rows, None] for key, values in images.table.ctf.items()}
    defocus = (ctf["defocus_u"] + ctf["defocus_v"]) / 2
    constant = np.deg2rad(ctf["phase_shift"]) + np.arcsin(ctf["amplitude_contrast"])
    wave = wavelength(ctf["voltage"])
    transfer: Array = -np.sin(ctf_phase(frequency**2, wave, defocus, ctf["spherical_aberration"], constant))
    return np.where(ctf["phase_flipped"] > 0, np.abs(transfer), transfer) if "phase_flipped" in ctf else transfer
