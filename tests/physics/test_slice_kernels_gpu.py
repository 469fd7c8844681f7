"""The Triton kernels, run by Triton's interpreter on a CPU, and on a GPU where there is one, beside the CPU's loops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
COMPARISON = Path(__file__).with_name("compare_slice_kernels.py")


def test_triton_kernels_do_what_the_loops_of_the_cpu_do() -> None:
    # In a process of its own: Triton looks once whether it interprets.
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, COMPARISON, "cpu"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_triton_kernels_on_a_gpu() -> None:
    done = subprocess.run([sys.executable, COMPARISON, "cuda"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
