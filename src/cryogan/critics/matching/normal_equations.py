"""Equation (viii) of docs/method.md for a batch of images: J* J and J* r, and the likelihood of the poses.

A compiled loop takes the map and its slope from the same eight voxels and keeps no J: on a CPU here, on a CUDA device
in `normal_equations_gpu`. `in_torch` is the same by finite differences, for other devices.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryogan.critics.matching.templates import Observed, Templates
from cryogan.parallel.threads import in_threads
from cryogan.physics.slice_kernels import Array, cell, compiled
from cryogan.rotations import small_rotations

DIFFERENCE_VOXELS = 0.5  # by which the outermost coefficient moves in a finite difference, of the padded spectrum


class NormalEquations(NamedTuple):
    """Equation (viii) of B images, without its damping.

    The M = 5 parameters of a pose are turns about x, y, z in radians, and shifts along x, y in A.

    Attributes:
        log_likelihood_ratio: l of the poses, (B,), nats.
        matrix: J* J, (B, 5, 5).
        gradient: J* r, (B, 5).
    """

    log_likelihood_ratio: Tensor
    matrix: Tensor
    gradient: Tensor


def normal_equations(templates: Templates, images: Observed, rotations: Tensor, shifts: Tensor) -> NormalEquations:
    """Return J* J and J* r at poses (B, 3, 3) and (B, 2) in A."""
    projector = templates.projector
    if not projector.is_compiled(templates.spectrum):
        return in_torch(templates, images, rotations, shifts)
    radians = 2.0 * math.pi / templates.width_A
    tensors = (
        projector.voxels(templates.spectrum).contiguous(),
        rotations * (projector.padded / projector.box),
        shifts * radians,
        templates.disc.frequencies,
        templates.precision.sqrt(),
        torch.view_as_real(images.coefficients.resolve_conj()),
        images.transfer,
    )
    sums = _on_gpu(*tensors) if templates.spectrum.is_cuda else _on_cpu(*tensors)
    place, factor = _layout(radians, sums.device)
    filled = sums[:, place] * factor  # (B, 6, 5)
    return NormalEquations(sums[:, 0], filled[:, :5], filled[:, 5])


def log_likelihood_ratio(templates: Templates, images: Observed, rotations: Tensor, shifts: Tensor) -> Tensor:
    """Return l of poses (B, 3, 3) and (B, 2) in A, (B,), nats."""
    if templates.projector.is_compiled(templates.spectrum):
        return normal_equations(templates, images, rotations, shifts).log_likelihood_ratio
    return templates.residual(images, rotations, shifts)[2]


# What `_sum_products` sums over the frequencies (u, v): m is the model C P x; a is its slope when the slice tips out of
# its plane, per radian and frequency; t is that when it turns within; b is i m; r is the residual. Two letters are a
# scalar product.
_SUMS = (
    "l", "vvaa", "uvaa", "uuaa", "vat", "uat", "tt", "uvab", "vvab", "uuab", "utb", "vtb",
    "uumm", "uvmm", "vvmm", "var", "uar", "tr", "ubr", "vbr",
)  # fmt: skip
# Where they stand in J* J, row by row, and then in J* r, with their signs.
_LAYOUT = (
    ("vvaa", "-uvaa", "vat", "uvab", "vvab"),
    ("-uvaa", "uuaa", "-uat", "-uuab", "-uvab"),
    ("vat", "-uat", "tt", "utb", "vtb"),
    ("uvab", "-uuab", "utb", "uumm", "uvmm"),
    ("vvab", "-uvab", "vtb", "uvmm", "vvmm"),
    ("var", "-uar", "tr", "ubr", "vbr"),
)


@lru_cache
def _layout(radians: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where in the sums each number of `_LAYOUT` is, (6, 5) int64, and its factor, (6, 5).

    Args:
        radians: of a shift by one A, per cycle and box.
        device: of the sums; they stay there, so that no step waits for a GPU.
    """
    place = torch.tensor([[_SUMS.index(name.lstrip("-")) for name in row] for row in _LAYOUT])
    sign = torch.tensor([[-1.0 if name[0] == "-" else 1.0 for name in row] for row in _LAYOUT])
    along = torch.tensor([1.0, 1.0, 1.0, radians, radians])
    factor = sign * along * torch.cat([along, torch.ones(1)])[:, None]
    return place.to(device), factor.to(device)


def _on_gpu(*tensors: Tensor) -> Tensor:
    # Triton comes with PyTorch for CUDA alone.
    from cryogan.critics.matching.normal_equations_gpu import sum_products

    return sum_products(*tensors)


def _on_cpu(*tensors: Tensor) -> Tensor:
    """Return the sums (B, 20); arguments as of `_sum_products`."""
    arrays = [tensor.contiguous().numpy() for tensor in tensors]
    sums = np.zeros((len(tensors[-1]), len(_SUMS)), np.float32)
    in_threads(lambda start, stop: _sum_products(*arrays, sums, start, stop), len(sums))
    return torch.from_numpy(sums)


@compiled
def _sum_products(
    spectrum: Array,
    turns: Array,
    angles: Array,
    frequencies: Array,
    root: Array,
    images: Array,
    transfer: Array,
    sums: Array,
    start: int,
    stop: int,
) -> None:
    """Fill `sums` (B, 20) of images `start` to `stop`.

    Args:
        spectrum: (P, P, P // 2 + 1, 2).
        turns: rotations (B, 3, 3), times P / D.
        angles: shifts (B, 2), radians per cycle and box.
        frequencies: (2, K), whole cycles per box.
        root: root of the precision, (K,).
        images: (B, K, 2).
        transfer: (B, K).
        sums: (B, 20), filled.
        start: first image.
        stop: image after the last.
    """
    m, a, t, r = np.empty((4, 2, frequencies.shape[1]), np.float32)
    last = int(np.abs(frequencies).max())
    for image in range(start, stop):
        _read_model(spectrum, turns[image], frequencies, root, transfer[image], m, a, t)
        _subtract_model(images[image], angles[image], last, frequencies, root, m, r)
        _multiply(frequencies, m, a, t, r, sums[image])


@compiled
def _read_model(
    spectrum: Array, turn: Array, frequencies: Array, root: Array, transfer: Array, m: Array, a: Array, t: Array
) -> None:
    """Fill m, a and t, (2, K), of one image: the model and its slopes, from the eight voxels around each sample."""
    one = np.float32(1)
    for i in range(frequencies.shape[1]):
        u, v = frequencies[0, i], frequencies[1, i]
        sign, ix, jx, iy, jy, iz, jz, fx, fy, fz = cell(len(spectrum), turn, u, v)
        gx, gy, gz = one - fx, one - fy, one - fz
        # Where the sample moves as the slice turns within its plane; as it tips, it moves along turn[:, 2].
        tx = turn[0, 1] * u - turn[0, 0] * v
        ty = turn[1, 1] * u - turn[1, 0] * v
        tz = turn[2, 1] * u - turn[2, 0] * v
        weight = root[i] * transfer[i]
        for part in range(2):
            v00, v01 = spectrum[iz, iy, ix, part], spectrum[iz, iy, jx, part]
            v10, v11 = spectrum[iz, jy, ix, part], spectrum[iz, jy, jx, part]
            w00, w01 = spectrum[jz, iy, ix, part], spectrum[jz, iy, jx, part]
            w10, w11 = spectrum[jz, jy, ix, part], spectrum[jz, jy, jx, part]
            slope_x = gz * (gy * (v01 - v00) + fy * (v11 - v10)) + fz * (gy * (w01 - w00) + fy * (w11 - w10))
            near, right = gx * v00 + fx * v01, gx * v10 + fx * v11
            far, across = gx * w00 + fx * w01, gx * w10 + fx * w11
            slope_y = gz * (right - near) + fz * (across - far)
            low, high = gy * near + fy * right, gy * far + fy * across
            slope_z = high - low
            # The reflection of k turns the sign of an imaginary part, and that of every slope.
            even, odd = (one, sign) if part == 0 else (sign, one)
            m[part, i] = weight * even * (low + fz * slope_z)
            a[part, i] = weight * odd * (turn[0, 2] * slope_x + turn[1, 2] * slope_y + turn[2, 2] * slope_z)
            t[part, i] = weight * odd * (tx * slope_x + ty * slope_y + tz * slope_z)


@compiled
def _subtract_model(image: Array, angle: Array, last: int, frequencies: Array, root: Array, m: Array, r: Array) -> None:
    """Fill r, (2, K), of one image (K, 2): S* y - m, whitened; `last` is the largest of the frequencies."""
    along_x, along_y = np.empty((last + 1, 2), np.float32), np.empty((2 * last + 1, 2), np.float32)
    for k in range(last + 1):
        along_x[k] = math.cos(angle[0] * k), math.sin(angle[0] * k)
    for k in range(-last, last + 1):
        along_y[k + last] = math.cos(angle[1] * k), math.sin(angle[1] * k)
    for i in range(frequencies.shape[1]):
        cos_x, sin_x = along_x[int(frequencies[0, i])]
        cos_y, sin_y = along_y[int(frequencies[1, i]) + last]
        cos, sin = cos_x * cos_y - sin_x * sin_y, cos_x * sin_y + sin_x * cos_y
        real, imaginary = root[i] * image[i, 0], root[i] * image[i, 1]
        r[0, i] = real * cos + imaginary * sin - m[0, i]
        r[1, i] = imaginary * cos - real * sin - m[1, i]


@compiled
def _multiply(frequencies: Array, m: Array, a: Array, t: Array, r: Array, sums: Array) -> None:
    """Fill `sums`, (20,), of one image, in the order of `_SUMS`."""
    half = np.float32(0.5)
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = np.float32(0)
    s10 = s11 = s12 = s13 = s14 = s15 = s16 = s17 = s18 = s19 = np.float32(0)
    for i in range(frequencies.shape[1]):
        u, v = frequencies[0, i], frequencies[1, i]
        aa, at = a[0, i] * a[0, i] + a[1, i] * a[1, i], a[0, i] * t[0, i] + a[1, i] * t[1, i]
        mm, tt = m[0, i] * m[0, i] + m[1, i] * m[1, i], t[0, i] * t[0, i] + t[1, i] * t[1, i]
        ab, tb = a[1, i] * m[0, i] - a[0, i] * m[1, i], t[1, i] * m[0, i] - t[0, i] * m[1, i]
        ar, tr = a[0, i] * r[0, i] + a[1, i] * r[1, i], t[0, i] * r[0, i] + t[1, i] * r[1, i]
        br, mr = m[0, i] * r[1, i] - m[1, i] * r[0, i], m[0, i] * r[0, i] + m[1, i] * r[1, i]
        s0, s1, s2, s3 = s0 + mr + half * mm, s1 + v * v * aa, s2 + u * v * aa, s3 + u * u * aa
        s4, s5, s6 = s4 + v * at, s5 + u * at, s6 + tt
        s7, s8, s9, s10, s11 = s7 + u * v * ab, s8 + v * v * ab, s9 + u * u * ab, s10 + u * tb, s11 + v * tb
        s12, s13, s14 = s12 + u * u * mm, s13 + u * v * mm, s14 + v * v * mm
        s15, s16, s17, s18, s19 = s15 + v * ar, s16 + u * ar, s17 + tr, s18 + u * br, s19 + v * br
    sums[:10] = s0, s1, s2, s3, s4, s5, s6, s7, s8, s9
    sums[10:] = s10, s11, s12, s13, s14, s15, s16, s17, s18, s19


def in_torch(templates: Templates, images: Observed, rotations: Tensor, shifts: Tensor) -> NormalEquations:
    """Return what `normal_equations` returns: the slopes of turns by finite differences, those of shifts exactly."""
    model, residual, ratio = templates.residual(images, rotations, shifts)
    projector = templates.projector
    delta = DIFFERENCE_VOXELS * projector.box / projector.padded / templates.disc.last_shell
    scale = templates.precision.sqrt() * images.transfer
    turns = small_rotations(delta * torch.eye(3, device=rotations.device, dtype=rotations.dtype))
    slopes = [(scale * templates.projections(rotations @ turn) - model) / delta for turn in turns]
    slopes += [2j * torch.pi / templates.width_A * k * model for k in templates.disc.frequencies]
    jacobian = torch.view_as_real(torch.stack(slopes, 1)).flatten(2)
    gradient = jacobian @ torch.view_as_real(residual).flatten(1)[:, :, None]
    return NormalEquations(ratio, jacobian @ jacobian.mT, gradient[:, :, 0])
