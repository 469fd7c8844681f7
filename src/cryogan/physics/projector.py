"""The projection operator P, equations (14) and (15): by Fourier slices, and in real space as its oracle."""

from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from cryogan.fourier import to_images
from cryogan.grids import centred_axis, frequency_axis, frequency_radius
from cryogan.physics import slice_kernels
from cryogan.rotations import rotation_grid

AT_ONCE = 512  # images whose coefficients are added to a spectrum at a time, where PyTorch does it


class FourierProjector:
    """Projection by central slices of an oversampled Fourier transform, trilinearly interpolated.

    Args:
        box: D, pixels, even.
        oversampling: the volume is zero-padded to this multiple of D before its transform. Relative L2 error
            against analytic projections: 1.6 % at 2, 3 % at 1.5, 7 % at 1.
        device: device of the volumes.
        dtype: data type of the volumes.

    Raises:
        ValueError: the box is odd.
    """

    def __init__(
        self, box: int, oversampling: float = 2.0, *, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        if box % 2:
            raise ValueError(f"box {box} is odd")
        self.box = box
        self.padded = padded = 2 * round(oversampling * box / 2)
        axis = torch.from_numpy(centred_axis(box)).to(device=device, dtype=dtype)
        # Trilinear interpolation of the spectrum multiplies the volume by sinc^2; divide it out beforehand.
        # The alternating sign puts frequency 0 at index padded // 2 of the z and y axes, so that a point and
        # its neighbours are neighbours in memory.
        correction = 1.0 / torch.sinc(axis / padded).square()
        signed = correction * (1.0 - 2.0 * (axis % 2))
        self._before = (signed[:, None, None], signed[None, :, None], correction[None, None, :])
        # The volume's centre is at index box // 2 of the transform: move the phase origin there.
        k = torch.from_numpy(centred_axis(padded)).to(device=device, dtype=dtype)
        angle = 2.0 * torch.pi * (box // 2) / padded * k
        phase = torch.complex(angle.cos(), angle.sin())
        half = torch.cat([phase[padded // 2 :], phase[:1].conj()])
        self._after = (phase[:, None, None] * phase[None, :, None], half[None, None, :])
        # The coefficients inside the Nyquist disc.
        row, column = np.nonzero(frequency_radius(box) < box / 2)
        self._inside = torch.from_numpy(row * (box // 2 + 1) + column).to(device)
        self._points = torch.from_numpy(np.stack([column, frequency_axis(box)[row]])).to(device=device, dtype=dtype)

    def transform(self, volume: Tensor) -> Tensor:
        """Transform a volume (D, D, D) in z, y, x to its spectrum (2, P, P, P // 2 + 1), real and imaginary part.

        P is the padded box; the spectrum is corrected for the interpolation and laid out for `samples`.
        """
        p = self.padded
        for factor in self._before:
            volume = volume * factor
        spectrum = torch.fft.rfft(volume, n=p, dim=2)
        spectrum = torch.fft.fft(spectrum, n=p, dim=1) * self._after[1]
        spectrum = torch.fft.fft(spectrum, n=p, dim=0) * self._after[0]
        return torch.view_as_real(spectrum.contiguous()).permute(3, 0, 1, 2)

    @staticmethod
    def is_compiled(spectrum: Tensor) -> bool:
        """Whether slices of a spectrum are read by compiled loops: in single precision, on a CPU or a CUDA device."""
        return spectrum.dtype == torch.float32 and _loops(spectrum.device.type) is not None

    @staticmethod
    def voxels(spectrum: Tensor) -> Tensor:
        """View a spectrum (2, P, P, P // 2 + 1) as compiled loops read it, (P, P, P // 2 + 1, 2)."""
        return spectrum.permute(1, 2, 3, 0)

    def slices(self, spectrum: Tensor, rotations: Tensor) -> Tensor:
        """Project along the rotated z axis, to half-planes that are zero outside the Nyquist disc.

        Args:
            spectrum: from `transform`.
            rotations: (B, 3, 3), mapping (kx, ky, 0) to the volume's (kx, ky, kz).

        Returns:
            Half-planes (B, D, D // 2 + 1).
        """
        samples = torch.view_as_real(self.samples(spectrum, rotations, self._points))
        plane = torch.zeros(
            len(rotations), self.box * (self.box // 2 + 1), 2, device=samples.device, dtype=samples.dtype
        )
        plane = plane.index_copy(1, self._inside, samples)
        return torch.view_as_complex(plane).view(len(rotations), self.box, self.box // 2 + 1)

    def samples(self, spectrum: Tensor, rotations: Tensor, frequencies: Tensor) -> Tensor:
        """Interpolate the Fourier coefficients of projections at given frequencies.

        Args:
            spectrum: from `transform`.
            rotations: (B, 3, 3), as for `slices`.
            frequencies: (2, K), kx and ky in cycles per box.

        Returns:
            Complex (B, K), phase origin at the centre pixel.
        """
        if self.is_compiled(spectrum):
            samples = _Slices.apply(spectrum, rotations, frequencies, self.padded / self.box)  # type: ignore[no-untyped-call]
            return torch.view_as_complex(samples)
        batch, p = len(rotations), self.padded
        k = rotations[:, :, :2] @ (frequencies * (p / self.box))  # (B, 3, K), in voxels of the padded transform
        flip = k[:, 0] < 0  # a real volume's spectrum at -k is the conjugate of that at k
        k = torch.where(flip[:, None], -k, k)
        grid = torch.stack([2 * k[:, 0] / (p // 2) - 1, 2 * k[:, 1] / p, 2 * k[:, 2] / p], dim=-1)
        # Frequencies P / 2 and -P / 2 are the same.
        spectrum = torch.cat([spectrum, spectrum[:, :1]], 1)
        spectrum = torch.cat([spectrum, spectrum[:, :, :1]], 2)
        values = grid_sample(spectrum[None], grid.view(1, batch, 1, -1, 3), align_corners=True, mode="bilinear")
        real, imaginary = values[0, 0, :, 0], values[0, 1, :, 0]
        return torch.complex(real, torch.where(flip, -imaginary, imaginary))

    def add_samples(self, into: Tensor, rotations: Tensor, frequencies: Tensor, values: Tensor) -> None:
        """Add coefficients of images to a spectrum, by the adjoint of `samples`.

        Args:
            into: spectrum, from `transform` or of its layout; changed.
            rotations: (B, 3, 3), as for `slices`.
            frequencies: (2, K), kx and ky in cycles per box.
            values: complex (B, K).
        """
        if self.is_compiled(into):
            _add(into, rotations, frequencies, self.padded / self.box, torch.view_as_real(values.resolve_conj()))
            return
        for turns, part in zip(torch.split(rotations, AT_ONCE), torch.split(values, AT_ONCE), strict=True):
            with torch.enable_grad():
                probe = torch.zeros_like(into, requires_grad=True)
                into += torch.autograd.grad(self.samples(probe, turns, frequencies), probe, part)[0]

    def __call__(self, volume: Tensor, rotations: Tensor) -> Tensor:
        """Project a volume (D, D, D) for rotations (B, 3, 3) to images (B, D, D)."""
        return to_images(self.slices(self.transform(volume), rotations))


class _Slices(torch.autograd.Function):
    """`read_slices`, (B, K, 2); its gradient in the spectrum is `add_slices`."""

    @staticmethod
    def forward(ctx: Any, spectrum: Tensor, rotations: Tensor, frequencies: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(rotations, frequencies)
        ctx.size, ctx.scale = spectrum.shape, scale
        voxels, loops = FourierProjector.voxels(spectrum).contiguous(), _loops(spectrum.device.type)
        assert loops is not None
        samples: Tensor = loops.read_slices(voxels, rotations * scale, frequencies)
        return samples

    @staticmethod
    def backward(ctx: Any, values: Tensor) -> tuple[Tensor, None, None, None]:
        rotations, frequencies = ctx.saved_tensors
        parts, *size = ctx.size
        gradient = values.new_zeros(*size, parts).permute(3, 0, 1, 2)
        _add(gradient, rotations, frequencies, ctx.scale, values)
        return gradient, None, None, None


def _add(into: Tensor, rotations: Tensor, frequencies: Tensor, scale: float, values: Tensor) -> None:
    """Add slices (B, K, 2) to a spectrum in place."""
    voxels, loops = FourierProjector.voxels(into).contiguous(), _loops(into.device.type)
    assert loops is not None
    loops.add_slices(voxels, rotations * scale, frequencies, values)
    if voxels.data_ptr() != into.data_ptr():
        into.copy_(voxels.permute(3, 0, 1, 2))


@cache
def _loops(device: str) -> ModuleType | None:
    """Return the compiled loops of a kind of device."""
    if device == "cuda" and find_spec("triton") is not None:  # it comes with PyTorch for CUDA, on Linux
        from cryogan.physics import slice_kernels_gpu

        return slice_kernels_gpu
    return slice_kernels if device == "cpu" else None


def project_in_real_space(volume: Tensor, rotations: Tensor) -> Tensor:
    """Project a volume (D, D, D) for rotations (B, 3, 3) to images (B, D, D): rotate it, sum along z.

    The oracle for `FourierProjector`. Its trilinear interpolation has an error of about 1 % for a well-sampled volume.
    """
    box = volume.shape[-1]
    images = []
    for rotation in rotations:
        grid = rotation_grid(rotation, box)
        images.append(grid_sample(volume[None, None], grid, align_corners=False)[0, 0].sum(0))
    return torch.stack(images)
