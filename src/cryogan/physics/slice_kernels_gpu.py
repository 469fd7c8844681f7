"""Central slices on a CUDA device: the loops of `slice_kernels`, in Triton, which comes with PyTorch for CUDA.

Layouts are those of `slice_kernels`. A program of the GPU has `BLOCK` samples of one slice.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


@triton.jit
def cell(size, turn, u, v):
    """Find the eight voxels around frequencies (u, v) of a slice, as `slice_kernels.cell` does.

    Returns:
        Sign; for both z, the indices of the first voxels of both rows, over the voxels of a row; ix; the distances.
    """
    x = tl.load(turn) * u + tl.load(turn + 1) * v
    y = tl.load(turn + 3) * u + tl.load(turn + 4) * v
    z = tl.load(turn + 6) * u + tl.load(turn + 7) * v
    sign = tl.where(x < 0, -1.0, 1.0)
    half = size // 2
    x, y, z = x * sign, y * sign + half, z * sign + half
    ix, iy, iz = x.to(tl.int32), y.to(tl.int32), z.to(tl.int32)
    jy, jz = tl.where(iy + 1 < size, iy + 1, 0), tl.where(iz + 1 < size, iz + 1, 0)
    return sign, iz * size + iy, iz * size + jy, jz * size + iy, jz * size + jy, ix, x - ix, y - iy, z - iz


@triton.jit
def read(spectrum, row, column, mask):
    """Read a voxel and the next along x: real, imaginary part of the first, and of the second."""
    first = spectrum + (row + column) * 2
    real, imaginary = tl.load(first, mask=mask), tl.load(first + 1, mask=mask)
    return real, imaginary, tl.load(first + 2, mask=mask), tl.load(first + 3, mask=mask)


@triton.jit
def _read(spectrum, turns, frequencies, out, size, count, BLOCK: tl.constexpr):
    image, i = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    u, v = tl.load(frequencies + i, mask=mask, other=0.0), tl.load(frequencies + count + i, mask=mask, other=0.0)
    sign, r00, r01, r10, r11, ix, fx, fy, fz = cell(size, turns + 9 * image, u, v)
    width = size // 2 + 1
    a, b, c, d = read(spectrum, r00 * width, ix, mask)
    e, f, g, h = read(spectrum, r01 * width, ix, mask)
    real = (1 - fz) * ((1 - fy) * (a + fx * (c - a)) + fy * (e + fx * (g - e)))
    imaginary = (1 - fz) * ((1 - fy) * (b + fx * (d - b)) + fy * (f + fx * (h - f)))
    a, b, c, d = read(spectrum, r10 * width, ix, mask)
    e, f, g, h = read(spectrum, r11 * width, ix, mask)
    real += fz * ((1 - fy) * (a + fx * (c - a)) + fy * (e + fx * (g - e)))
    imaginary += fz * ((1 - fy) * (b + fx * (d - b)) + fy * (f + fx * (h - f)))
    place = out + (image * count + i) * 2
    tl.store(place, real, mask=mask)
    tl.store(place + 1, sign * imaginary, mask=mask)


@triton.jit
def _add_row(spectrum, row, column, weight, fx, real, imaginary, mask):
    first = spectrum + (row + column) * 2
    near, far = weight * (1 - fx), weight * fx
    tl.atomic_add(first, near * real, mask=mask)
    tl.atomic_add(first + 1, near * imaginary, mask=mask)
    tl.atomic_add(first + 2, far * real, mask=mask)
    tl.atomic_add(first + 3, far * imaginary, mask=mask)


@triton.jit
def _add(spectrum, turns, frequencies, values, size, count, BLOCK: tl.constexpr):
    image, i = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    u, v = tl.load(frequencies + i, mask=mask, other=0.0), tl.load(frequencies + count + i, mask=mask, other=0.0)
    sign, r00, r01, r10, r11, ix, fx, fy, fz = cell(size, turns + 9 * image, u, v)
    width = size // 2 + 1
    place = values + (image * count + i) * 2
    real, imaginary = tl.load(place, mask=mask, other=0.0), sign * tl.load(place + 1, mask=mask, other=0.0)
    _add_row(spectrum, r00 * width, ix, (1 - fz) * (1 - fy), fx, real, imaginary, mask)
    _add_row(spectrum, r01 * width, ix, (1 - fz) * fy, fx, real, imaginary, mask)
    _add_row(spectrum, r10 * width, ix, fz * (1 - fy), fx, real, imaginary, mask)
    _add_row(spectrum, r11 * width, ix, fz * fy, fx, real, imaginary, mask)


def read_slices(spectrum: Tensor, turns: Tensor, frequencies: Tensor) -> Tensor:
    """As `slice_kernels.read_slices`."""
    out = spectrum.new_empty(len(turns), frequencies.shape[1], 2)
    _launch(_read, spectrum, turns, frequencies, out)
    return out


def add_slices(spectrum: Tensor, turns: Tensor, frequencies: Tensor, values: Tensor) -> None:
    """As `slice_kernels.add_slices`; the sums' last digits depend on the order in which the GPU comes to them."""
    _launch(_add, spectrum, turns, frequencies, values.contiguous())


def _launch(kernel: Any, spectrum: Tensor, turns: Tensor, frequencies: Tensor, values: Tensor) -> None:
    assert spectrum.is_contiguous()
    count = frequencies.shape[1]
    grid = len(turns), triton.cdiv(count, BLOCK)
    if len(turns) and count:
        kernel[grid](spectrum, turns.contiguous(), frequencies.contiguous(), values, len(spectrum), count, BLOCK=BLOCK)
