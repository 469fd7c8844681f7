"""The same program on a CUDA device."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan.cli import main
from cryogan.config import resolve
from cryogan.models.phantom import phantom
from cryogan.run.build import build_trainer, start_from
from cryogan.run.inputs import read_inputs
from cryogan.simulation import simulate


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("critic", ["matching", "wasserstein"])
def test_two_stages_on_cuda(critic: str, tmp_path: Path) -> None:
    simulate(phantom(32, 6.0, 0), 6.0, tmp_path / "set", count=80)
    star, noise = tmp_path / "set" / "particles.star", tmp_path / "set" / "noise.star"
    flags = {"device": "cuda", "symmetry": "D2", "batch_size": 8, "starts": 1, "critic": critic}
    few = {
        "steps": 2,
        "coarse_steps": 2,
        "orientations": 200,
        "search_steps": 2,
        "search_batch": 20,
        "marching_images": 40,
    }
    plan, *_ = read_inputs(star, noise, None, resolve("default", None, flags | few))
    coarse, fine = (build_trainer(plan, index, star, 1) for index in range(2))
    assert len(list(coarse.run())) == 2
    start_from(fine, coarse)
    assert len(list(fine.run(until=2))) == 2
    volume = fine.result().cpu().numpy()
    assert np.isfinite(volume).all()
    assert volume.any()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_run_with_its_verdict_and_refinement_on_cuda(tmp_path: Path) -> None:
    simulate(phantom(32, 6.0, 0), 6.0, tmp_path / "set", count=200)
    star, noise = (str(tmp_path / "set" / name) for name in ("particles.star", "noise.star"))
    few = ["--orientations", "200", "--search-steps", "20", "--search-batch", "20", "--threads", "1"]
    main(["reconstruct", star, "--noise", noise, "--device", "cuda", "--refine", *few, "--out", str(tmp_path / "run")])
    assert (tmp_path / "run" / "verdict" / "verdict.json").exists()
    assert (tmp_path / "run" / "refined" / "map.mrc").exists()
