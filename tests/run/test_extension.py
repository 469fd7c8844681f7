"""A noise model and a critic of a user's own: one file each, from the command line and from Python."""

import io
import json
import os
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from cryogan import Settings, reconstruct
from cryogan.errors import InputError
from cryogan.run.inputs import read_inputs
from processes import cryogan

NOISE = '''
"""White noise of another strength in every other row."""

import torch

from cryogan import Noise


class Interlaced(Noise):
    def __init__(self, inputs):
        self.box = inputs.images.box
        self.scale = torch.ones(self.box, 1)
        self.scale[::2] = 0.5

    def sample(self, rows, generator):
        white = torch.randn(len(rows), self.box, self.box, generator=generator)
        return white * self.scale / self.scale.square().mean().sqrt()
'''
CRITIC = '''
"""Compares the mean of the real images with that of the simulated ones."""

import torch

from cryogan.critics import Critic, Stage, Trainer
from cryogan.critics.micro_batch import MicroBatch
from cryogan.critics.records import Record
from cryogan.critics.sampler import Sampler


class MeanImage(Critic):
    def stages(self, task):
        return (Stage(task.box, task.settings.steps),)

    def trainer(self, inputs):
        return MeanImageTrainer(inputs)


class MeanImageTrainer(Trainer):
    def __init__(self, inputs):
        self.settings, self.simulator, self.signal = inputs.task.settings, inputs.simulator, inputs.signal
        self.volume = inputs.volume(self.settings.symmetry)
        order, batch = torch.Generator().manual_seed(inputs.order_seed), self.settings.batch_size
        self.particles = Sampler(inputs.images, batch, order, self.simulator.generator.device)
        self.micro_batch = MicroBatch(batch)
        self.steps, self.step, self.seconds, self.distance = inputs.stage.steps, 0, 0.0, 0.0
        self.optimiser = torch.optim.Adam(self.volume.parameters(), 0.01)

    def run(self, until=None):
        while self.step < (self.steps if until is None else until):
            real, _ = self.particles.load(self.particles.rows())
            spectrum = self.simulator.projector.transform(self.volume())
            simulated = self.simulator(spectrum, self.simulator.sample(len(real)))
            distance = (real.mean(0) - simulated.mean(0)).square().mean()
            before = self.result()
            self.optimiser.zero_grad()
            distance.backward()
            self.optimiser.step()
            self.step, self.distance = self.step + 1, distance.detach()
            change = (self.result() - before).norm() / self.result().norm()
            yield Record(self.step, self.seconds, critic_gap=self.distance, map_change=change)

    def result(self):
        return self.volume().detach()

    def state_dict(self):
        return {"volume": self.volume.state_dict(), "step": self.step, "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state):
        self.volume.load_state_dict(state["volume"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
'''
STEPS = 3


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """A folder with the user's two files."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "my_noise.py").write_text(NOISE)
    (folder / "my_critic.py").write_text(CRITIC)
    return folder


def test_both_from_the_command_line(extension: Path, particles: Path, tmp_path: Path) -> None:
    run, flags = tmp_path / "run", ("--box", 16, "--steps", STEPS, "--batch-size", 16, "--threads", 1, "--json")
    named = ("--critic", "my_critic:MeanImage", "--noise-model", "my_noise:Interlaced")
    path = os.pathsep.join([str(extension), os.environ.get("PYTHONPATH", "")])
    process = cryogan(
        "reconstruct", particles / "particles.star", *named, *flags, "--out", run, environment={"PYTHONPATH": path}
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "hand-unknown" in [finding["code"] for finding in json.loads(out)["findings"]]
    record = tomllib.loads((run / "run.toml").read_text())
    assert record["settings"]["critic"] == "my_critic:MeanImage"
    assert record["plan"]["stages"] == [{"box": 16, "steps": STEPS, "method": ""}]
    assert (run / "map.mrc").exists()
    assert not (run / "class1").exists()


def test_both_from_python(extension: Path, particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(extension))
    settings = Settings(
        critic="my_critic:MeanImage",
        noise_model="my_noise:Interlaced",
        box=16,
        steps=STEPS,
        batch_size=16,
        threads=1,
    )
    result = reconstruct(particles / "particles.star", tmp_path / "run", settings, console=Console(file=io.StringIO()))
    assert result.findings[0].code == "images-read"
    assert result.convergence.finding in result.findings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": "absent:Critic"}, "Cannot load the critic absent:Critic"),
        ({"critic": "my_noise:Interlaced"}, "my_noise:Interlaced is not a critic"),
        ({"critic": "my_critic:Absent"}, "Cannot load the critic"),
    ],
)
def test_names_of_nothing_are_refused(
    changes: dict[str, str], message: str, extension: Path, particles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(extension))
    with pytest.raises(InputError, match=message):
        read_inputs(particles / "particles.star", None, None, Settings(**changes))
