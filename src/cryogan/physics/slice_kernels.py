"""Central slices on a CPU: compiled loops over the samples, which are the program's inner loops.

A spectrum is (P, P, P // 2 + 1, 2), float32, in z, y, x and real, imaginary part: frequency 0 is at index P // 2 of z
and y, and at 0 of x. A sample at k reads, or adds to, the eight voxels around it. `FourierProjector` has the same
operations in PyTorch, and `slice_kernels_gpu` in Triton.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.parallel.threads import in_threads

Array = NDArray[np.float32]
# Sums may be reordered to fill vector registers. The order is fixed when a loop is compiled: runs repeat.
_FAST = {"contract", "nsz", "reassoc"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop when it is first called; the machine code is kept on disk where there is a folder for it."""
    try:
        return numba.njit(nogil=True, fastmath=_FAST, forceinline=True, cache=True)(function)
    except RuntimeError:  # no folder can be written
        return numba.njit(nogil=True, fastmath=_FAST, forceinline=True)(function)


@compiled
def cell(size: int, turn: Array, u: float, v: float) -> tuple[Any, ...]:
    """Find the eight voxels around the frequency (u, v) of a slice.

    A real volume's spectrum at -k is the conjugate of that at k: where the sign is -1, k has been reflected.

    Args:
        size: P.
        turn: rotation (3, 3), times P / D.
        u: kx, cycles per box.
        v: ky, cycles per box.

    Returns:
        Sign; indices of the voxels, two each along x, y, z; distances to the first of them, in voxels.
    """
    x = turn[0, 0] * u + turn[0, 1] * v
    y = turn[1, 0] * u + turn[1, 1] * v
    z = turn[2, 0] * u + turn[2, 1] * v
    sign = np.float32(1)
    if x < 0:
        x, y, z, sign = -x, -y, -z, np.float32(-1)
    y, z = y + np.float32(size // 2), z + np.float32(size // 2)
    ix, iy, iz = int(x), int(y), int(z)
    jy = iy + 1 if iy + 1 < size else 0  # frequencies P / 2 and -P / 2 are the same
    jz = iz + 1 if iz + 1 < size else 0
    return sign, ix, ix + 1, iy, jy, iz, jz, x - np.float32(ix), y - np.float32(iy), z - np.float32(iz)


def read_slices(spectrum: Tensor, turns: Tensor, frequencies: Tensor) -> Tensor:
    """Interpolate slices trilinearly.

    Args:
        spectrum: (P, P, P // 2 + 1, 2).
        turns: rotations (B, 3, 3), times P / D.
        frequencies: (2, K), cycles per box.

    Returns:
        (B, K, 2).
    """
    samples = spectrum.new_empty(len(turns), frequencies.shape[1], 2)
    arrays = _arrays(spectrum, turns, frequencies, samples)
    in_threads(lambda start, stop: _read(*arrays, start, stop), len(turns))
    return samples


def add_slices(spectrum: Tensor, turns: Tensor, frequencies: Tensor, values: Tensor) -> None:
    """Add slices to a spectrum by the adjoint of `read_slices`.

    Args:
        spectrum: (P, P, P // 2 + 1, 2), changed.
        turns: rotations (B, 3, 3), times P / D.
        frequencies: (2, K), cycles per box.
        values: (B, K, 2).
    """
    assert spectrum.is_contiguous()
    arrays = _arrays(spectrum, turns, frequencies, values)
    # Slices in all directions put R - |z| samples on the plane z: each thread has planes with an equal share of them.
    threads = torch.get_num_threads()
    share = np.linspace(0, 1, threads + 1)
    height = np.where(share < 0.5, np.sqrt(2 * share) - 1, 1 - np.sqrt(2 * (1 - share)))
    scale = float(turns[:1].square().sum() / 3) ** 0.5  # P / D
    planes = len(spectrum) // 2 + np.rint(scale * float(frequencies.abs().max()) * height).astype(int)
    planes[0], planes[-1] = 0, len(spectrum)
    in_threads(lambda start, stop: _add(*arrays, planes[start], planes[stop]), threads)


def _arrays(*tensors: Tensor) -> list[Array]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


@compiled
def _read(spectrum: Array, turns: Array, frequencies: Array, out: Array, start: int, stop: int) -> None:
    """Fill slices `start` to `stop` of `out` (B, K, 2)."""
    one = np.float32(1)
    for b in range(start, stop):
        for i in range(frequencies.shape[1]):
            sign, ix, jx, iy, jy, iz, jz, fx, fy, fz = cell(
                len(spectrum), turns[b], frequencies[0, i], frequencies[1, i]
            )
            gx, gy, gz = one - fx, one - fy, one - fz
            for part in range(2):
                low = gy * (gx * spectrum[iz, iy, ix, part] + fx * spectrum[iz, iy, jx, part])
                low += fy * (gx * spectrum[iz, jy, ix, part] + fx * spectrum[iz, jy, jx, part])
                high = gy * (gx * spectrum[jz, iy, ix, part] + fx * spectrum[jz, iy, jx, part])
                high += fy * (gx * spectrum[jz, jy, ix, part] + fx * spectrum[jz, jy, jx, part])
                out[b, i, part] = gz * low + fz * high
            out[b, i, 1] *= sign


@compiled
def _add(spectrum: Array, turns: Array, frequencies: Array, values: Array, first: int, last: int) -> None:
    """Add slices to the planes `first` to `last` (without it) of a spectrum.

    Threads have planes of their own: the sums are the same, whatever their number.
    """
    one = np.float32(1)
    for b in range(len(turns)):
        for i in range(frequencies.shape[1]):
            sign, ix, jx, iy, jy, iz, jz, fx, fy, fz = cell(
                len(spectrum), turns[b], frequencies[0, i], frequencies[1, i]
            )
            real, imaginary = values[b, i, 0], sign * values[b, i, 1]
            for plane, weight in ((iz, one - fz), (jz, fz)):
                if first <= plane < last:
                    for row, along in ((iy, weight * (one - fy)), (jy, weight * fy)):
                        near, far = along * (one - fx), along * fx
                        spectrum[plane, row, ix, 0] += near * real
                        spectrum[plane, row, ix, 1] += near * imaginary
                        spectrum[plane, row, jx, 0] += far * real
                        spectrum[plane, row, jx, 1] += far * imaginary
