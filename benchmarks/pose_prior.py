"""What a prior on the view directions is worth: one search of a phantom, then four distributions of views.

    python benchmarks/pose_prior.py --out docs/runs/pose_prior.json

600 images of a phantom without symmetry (32 px of 4 A), four in five seen from within 20 degrees of two axes. The prior
is that of another run: 600 other views of the same density, in a frame of its own. The truth makes the images and
judges the maps.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from cryogan.config import Settings
from cryogan.critics import Stage, Task, TrainerInputs
from cryogan.critics.matching.marching import FrequencyMarching
from cryogan.critics.matching.schedule import marching_steps
from cryogan.critics.matching.search import InitialSearch
from cryogan.critics.matching.trainer import MatchingTrainer
from cryogan.critics.read_ahead import HeldImages
from cryogan.models.phantom import phantom
from cryogan.physics.ctf import CtfParameters
from cryogan.physics.noise import WhiteNoise
from cryogan.physics.pose_distribution import PoseDistribution
from cryogan.physics.projector import FourierProjector
from cryogan.physics.simulator import Simulator
from cryogan.rotations import uniform_rotations
from cryogan.validation import align, fsc

CPU, BOX, PIXEL, COUNT, MAX_SHIFT, SIGNAL = torch.device("cpu"), 32, 4.0, 600, 6.0, 3.0
AXES, DEGREES, SHARE = torch.tensor([[1.0, 2.0, 3.0], [-2.0, 1.0, 0.5]]), 20.0, 0.8


def build_simulator(seed: int, views: PoseDistribution | None) -> Simulator:
    """Of particles of different defocus, in white noise."""
    ones = torch.ones(COUNT)
    defocus = 8000 + 12000 * torch.linspace(0, 1, COUNT)
    optics = CtfParameters(defocus, defocus, 0 * ones, 300 * ones, 2.7 * ones, 0.1 * ones, 0 * ones, 0 * ones, ones)
    return Simulator(
        FourierProjector(BOX, device=CPU),
        optics,
        WhiteNoise(BOX),
        pixel_size=PIXEL,
        max_shift=MAX_SHIFT,
        generator=torch.Generator().manual_seed(seed),
        views=views,
    )


def preferred() -> PoseDistribution:
    """The density of the particles' views."""
    views = PoseDistribution(CPU)
    near = ((views.directions @ torch.nn.functional.normalize(AXES, dim=1).T) > np.cos(np.radians(DEGREES))).any(1)
    views.density.copy_(torch.where(near, SHARE / near.sum(), (1 - SHARE) / (~near).sum()) * len(near))
    return views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    truth = torch.from_numpy(phantom(BOX, PIXEL, 1)).float()
    truth[:, : BOX // 2] *= 0.3  # the phantom has D2
    truth[:, :, : BOX // 2] *= 0.5
    source = build_simulator(7, preferred())
    truth *= SIGNAL / source.projector(truth, source.sample(100).rotations).std()
    phi = source.sample(COUNT)
    with torch.no_grad():
        images = HeldImages(source(source.projector.transform(truth), phi).numpy())
    source.optics = source.optics[phi.particles]
    other = uniform_rotations(1, source.generator) @ preferred().sample(COUNT, source.generator)
    prior = preferred().mixture(other[:, :, 2], torch.full((COUNT,), torch.nan), torch.ones(COUNT))

    def start(kind: type[MatchingTrainer], steps: int, learn: bool, views: PoseDistribution | None) -> MatchingTrainer:
        s = Settings(orientations=1500, search_batch=150, marching_images=COUNT, max_shift=MAX_SHIFT, learn_poses=learn)
        simulator = build_simulator(a.seed, views)
        simulator.optics = source.optics
        task, stages = Task(s, BOX, PIXEL, 15 * PIXEL, COUNT), (Stage(BOX, steps),)
        return kind(TrainerInputs(task, stages, 0, images, simulator, SIGNAL, critic_seed=0, order_seed=a.seed))

    def judge(training: MatchingTrainer) -> dict[str, object]:
        """FSC with the truth, and correlation of the views' densities, in the map's frame."""
        found = training.result().numpy()
        alignment = align(found, truth.numpy(), PIXEL)
        curve = fsc(alignment.apply(found, PIXEL), truth.numpy())
        # truth(r) = map(M R^T r); see preferred_views.py. A mirror M sees the direction d from -M d.
        mirror = np.diag([1.0, -1.0, -1.0]) if alignment.mirrored else np.eye(3)
        in_map = torch.from_numpy(mirror @ alignment.rotation.T).float() @ phi.rotations
        views, correlation = training.simulator.views, None
        if views is not None:
            true = views.counts(in_map, torch.eye(3)[None])
            correlation = round(float(torch.corrcoef(torch.stack([views.density, true]))[0, 1]), 3)
        return {"correlation": correlation, "fsc": curve.round(3).tolist()}

    search = start(InitialSearch, 150, False, None)
    list(search.run())
    records = [{"views": "search"} | judge(search)]
    for name in ("uniform", "prior", "learned", "prior, learned"):
        views = None if name == "uniform" else PoseDistribution(CPU, prior if "prior" in name else None)
        began = time.process_time()
        training = start(FrequencyMarching, marching_steps(BOX, 4), "learned" in name, views)
        training.volume.start_from(search.result())
        list(training.run())
        seconds = round(time.process_time() - began, 1)
        records.append({"views": name, "cpu_seconds": seconds} | judge(training))
    a.out.write_text(json.dumps({"seed": a.seed, "images": COUNT, "records": records}, indent=1))
    print(a.out.read_text())


if __name__ == "__main__":
    main()
