"""The sums of `normal_equations` on a CUDA device, in Triton: a program of the GPU has one image."""

import triton
import triton.language as tl
from torch import Tensor

from cryogan.physics.slice_kernels_gpu import cell, read

BLOCK = 256


@triton.jit
def _model(spectrum, width, row, ix, fx, mask):
    """Interpolate along x: real and imaginary part, and their slopes."""
    real, imaginary, next_real, next_imaginary = read(spectrum, row * width, ix, mask)
    dr, di = next_real - real, next_imaginary - imaginary
    return real + fx * dr, imaginary + fx * di, dr, di


@triton.jit
def _sum(spectrum, turns, angles, frequencies, root, images, transfer, sums, size, count, BLOCK: tl.constexpr):
    image = tl.program_id(0)
    turn, width = turns + 9 * image, size // 2 + 1
    angle_x, angle_y = tl.load(angles + 2 * image), tl.load(angles + 2 * image + 1)
    g00, g01, g02 = tl.load(turn), tl.load(turn + 1), tl.load(turn + 2)
    g10, g11, g12 = tl.load(turn + 3), tl.load(turn + 4), tl.load(turn + 5)
    g20, g21, g22 = tl.load(turn + 6), tl.load(turn + 7), tl.load(turn + 8)
    zero = tl.zeros([BLOCK], tl.float32)
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    s10, s11, s12, s13, s14, s15, s16, s17, s18, s19 = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        mask = i < count
        u, v = tl.load(frequencies + i, mask=mask, other=0.0), tl.load(frequencies + count + i, mask=mask, other=0.0)
        sign, r00, r01, r10, r11, ix, fx, fy, fz = cell(size, turn, u, v)
        weight = tl.load(root + i, mask=mask, other=0.0)
        place = (image * count + i) * 2
        real, imaginary = (
            tl.load(images + place, mask=mask, other=0.0),
            tl.load(images + place + 1, mask=mask, other=0.0),
        )
        cos, sin = tl.cos(angle_x * u + angle_y * v), tl.sin(angle_x * u + angle_y * v)
        r_re, r_im = weight * (real * cos + imaginary * sin), weight * (imaginary * cos - real * sin)
        weight *= tl.load(transfer + image * count + i, mask=mask, other=0.0)
        # Along x, in the four rows; then along y, in both planes; then along z.
        ar, ai, adr, adi = _model(spectrum, width, r00, ix, fx, mask)
        br, bi, bdr, bdi = _model(spectrum, width, r01, ix, fx, mask)
        near_yr, near_yi = br - ar, bi - ai
        near_r, near_i = ar + fy * near_yr, ai + fy * near_yi
        near_xr, near_xi = adr + fy * (bdr - adr), adi + fy * (bdi - adi)
        ar, ai, adr, adi = _model(spectrum, width, r10, ix, fx, mask)
        br, bi, bdr, bdi = _model(spectrum, width, r11, ix, fx, mask)
        far_yr, far_yi = br - ar, bi - ai
        z_r, z_i = ar + fy * far_yr - near_r, ai + fy * far_yi - near_i
        far_xr, far_xi = adr + fy * (bdr - adr), adi + fy * (bdi - adi)
        x_r, x_i = near_xr + fz * (far_xr - near_xr), near_xi + fz * (far_xi - near_xi)
        y_r, y_i = near_yr + fz * (far_yr - near_yr), near_yi + fz * (far_yi - near_yi)
        m_r, m_i = weight * (near_r + fz * z_r), weight * sign * (near_i + fz * z_i)
        # The reflection of k turns the sign of an imaginary part, and that of every slope.
        odd = weight * sign
        a_r, a_i = odd * (g02 * x_r + g12 * y_r + g22 * z_r), weight * (g02 * x_i + g12 * y_i + g22 * z_i)
        tx, ty, tz = g01 * u - g00 * v, g11 * u - g10 * v, g21 * u - g20 * v
        t_r, t_i = odd * (tx * x_r + ty * y_r + tz * z_r), weight * (tx * x_i + ty * y_i + tz * z_i)
        r_re, r_im = r_re - m_r, r_im - m_i
        aa, at, mm, tt = a_r * a_r + a_i * a_i, a_r * t_r + a_i * t_i, m_r * m_r + m_i * m_i, t_r * t_r + t_i * t_i
        ab, tb = a_i * m_r - a_r * m_i, t_i * m_r - t_r * m_i
        a_res, t_res = a_r * r_re + a_i * r_im, t_r * r_re + t_i * r_im
        b_res, m_res = m_r * r_im - m_i * r_re, m_r * r_re + m_i * r_im
        s0, s1, s2, s3 = s0 + m_res + 0.5 * mm, s1 + v * v * aa, s2 + u * v * aa, s3 + u * u * aa
        s4, s5, s6 = s4 + v * at, s5 + u * at, s6 + tt
        s7, s8, s9, s10, s11 = s7 + u * v * ab, s8 + v * v * ab, s9 + u * u * ab, s10 + u * tb, s11 + v * tb
        s12, s13, s14 = s12 + u * u * mm, s13 + u * v * mm, s14 + v * v * mm
        s15, s16, s17, s18, s19 = s15 + v * a_res, s16 + u * a_res, s17 + t_res, s18 + u * b_res, s19 + v * b_res
    _store(sums + 20 * image, s0, s1, s2, s3, s4)
    _store(sums + 20 * image + 5, s5, s6, s7, s8, s9)
    _store(sums + 20 * image + 10, s10, s11, s12, s13, s14)
    _store(sums + 20 * image + 15, s15, s16, s17, s18, s19)


@triton.jit
def _store(place, a, b, c, d, e):
    tl.store(place, tl.sum(a))
    tl.store(place + 1, tl.sum(b))
    tl.store(place + 2, tl.sum(c))
    tl.store(place + 3, tl.sum(d))
    tl.store(place + 4, tl.sum(e))


def sum_products(
    spectrum: Tensor,
    turns: Tensor,
    angles: Tensor,
    frequencies: Tensor,
    root: Tensor,
    images: Tensor,
    transfer: Tensor,
) -> Tensor:
    """Return the sums (B, 20) of `normal_equations._sum_products`, with its arguments."""
    assert spectrum.is_contiguous()
    sums, count = images.new_empty(len(images), 20), frequencies.shape[1]
    if len(images):
        contiguous = [tensor.contiguous() for tensor in (turns, angles, frequencies, root, images, transfer)]
        _sum[(len(images),)](spectrum, *contiguous, sums, len(spectrum), count, BLOCK=BLOCK)
    return sums
