"""Compare the Triton kernels with the CPU's loops: python compare_slice_kernels.py DEVICE."""

import math
import sys

import torch

from cryogan.critics.matching import normal_equations, normal_equations_gpu
from cryogan.fourier import Disc
from cryogan.physics import slice_kernels, slice_kernels_gpu
from cryogan.physics.projector import FourierProjector
from cryogan.rotations import uniform_rotations

BOX, IMAGES = 24, 5

device, generator = torch.device(sys.argv[1]), torch.Generator().manual_seed(0)
projector = FourierProjector(BOX, device=torch.device("cpu"))
volume = torch.randn(BOX, BOX, BOX, generator=generator)
spectrum = projector.voxels(projector.transform(volume)).contiguous()
rotations = uniform_rotations(IMAGES, generator)
rotations[0] = torch.eye(3)
rotations[1] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))  # samples on the edges of the half spectrum
turns = rotations * (projector.padded / BOX)
disc = Disc(BOX, BOX / 2, device=torch.device("cpu"))
values = torch.randn(IMAGES, len(disc), 2, generator=generator)

there = [tensor.to(device) for tensor in (spectrum, turns, disc.frequencies)]
samples = slice_kernels.read_slices(spectrum, turns, disc.frequencies)
torch.testing.assert_close(slice_kernels_gpu.read_slices(*there).cpu(), samples, rtol=1e-4, atol=1e-3)

sums, sums_there = torch.zeros_like(spectrum), torch.zeros_like(there[0])
slice_kernels.add_slices(sums, turns, disc.frequencies, values)
slice_kernels_gpu.add_slices(sums_there, *there[1:], values.to(device))
torch.testing.assert_close(sums_there.cpu(), sums, rtol=1e-4, atol=1e-4)

angles = torch.randn(IMAGES, 2, generator=generator) * 2 * math.pi / BOX
root, transfer = torch.rand(len(disc), generator=generator), torch.randn(IMAGES, len(disc), generator=generator)
tensors = [spectrum, turns, angles, disc.frequencies, root, values * samples.std(), transfer]
expected = normal_equations._on_cpu(*tensors)
found = normal_equations_gpu.sum_products(*(tensor.to(device) for tensor in tensors)).cpu()
torch.testing.assert_close(found / expected.abs().mean(0), expected / expected.abs().mean(0), rtol=1e-3, atol=1e-3)
