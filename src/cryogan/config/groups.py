"""Every setting, defined once and in groups: the flags, TOML files and run records come from here.

Lengths are in A, unless the description says otherwise.
"""

import re
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

# Where each critic and noise model is, by the name that users give; a new one of the package is one line here.
CRITICS = {
    "matching": "cryogan.critics.matching.method:Matching",
    "wasserstein": "cryogan.critics.wasserstein.method:Wasserstein",
}
NOISE_MODELS = {
    "white": "cryogan.run.noise:white",
    "coloured": "cryogan.run.noise:coloured",
    "poisson": "cryogan.run.noise:poisson",
}
_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_dotted(name: str) -> bool:
    """Whether a critic or noise model is named by module:name rather than one of the package's."""
    return _DOTTED.fullmatch(name) is not None


def parse_stages(text: str) -> list[tuple[int, int]]:
    """Box and number of volume updates of each stage.

    Args:
        text: such as 24:800,32:800; coarse to fine.

    Raises:
        ValueError: a part is not an even box from 16 on and a number of updates from 1 on.
    """
    stages = []
    for part in text.split(","):
        box, _, steps = (number.strip() for number in part.partition(":"))
        if not (box.isdecimal() and steps.isdecimal() and int(box) >= 16 and int(box) % 2 == 0 and int(steps) > 0):
            raise ValueError(f"{part.strip()[:50]!r} is not an even box from 16 on and its steps, such as 24:800")
        stages.append((int(box), int(steps)))
    return stages


def _one_of(known: Collection[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known and not is_dotted(name):
            raise ValueError(f"there are {', '.join(known)}, or give your own as module:name")
        return name

    return AfterValidator(check)


def _growing_stages(text: str | None) -> str | None:
    if text is not None:
        boxes = [box for box, _ in parse_stages(text)]
        if any(first >= second for first, second in pairwise(boxes)):
            raise ValueError("the boxes must grow from stage to stage")
    return text


# A run's record is read from any folder, and TOML has no paths.
_AbsolutePath = Annotated[Path, AfterValidator(Path.absolute), PlainSerializer(lambda path: str(path), return_type=str)]


class Group(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ParticleSettings(Group):
    """Settings of the particle images."""

    box: int | None = Field(
        None,
        ge=16,
        description="Working box in pixels, even; particles are Fourier-cropped to it. Default: 64, or the file's.",
    )
    particle_diameter: float | None = Field(
        None,
        gt=0,
        description="Diameter of the circle that holds the particle; outside is background. Default: 0.875 of the box.",
    )
    invert: bool = Field(False, description="Multiply the particles by -1, for protein darker than its surroundings.")
    keep_gradient: bool = Field(False, description="Do not subtract a plane fitted to the background of each image.")
    particles_per_um2: float | None = Field(
        None,
        gt=0,
        description="Particles per square micrometre of the micrographs, for unpicked patches made by `cryogan "
        "extract-patches`, which show none, one or several particles each. Default: the images are picked particles. "
        "Experimental.",
    )


class PhysicsSettings(Group):
    """Settings of the image formation model, equation (1)."""

    symmetry: str = Field("C1", description="Point group in RELION's setting: C1, Cn, Dn, T, O, I, I1, I2, I3, I4.")
    max_shift: float = Field(
        10.0, ge=0, description="Half width of the triangular distribution from which shifts are drawn, A."
    )
    oversampling: float = Field(
        2.0, ge=1, le=2, multiple_of=0.5, description="Zero-padding of the Fourier-slice projector: 1, 1.5 or 2."
    )
    envelope_at_nyquist: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Value to which the CTF's envelope, equation (18), falls at the working Nyquist frequency.",
    )
    aperture_diameter: float | None = Field(
        None, gt=0, description="Objective aperture in micrometres, equation (17); needs --focal-length."
    )
    focal_length: float | None = Field(None, gt=0, description="Focal length of the objective in millimetres.")
    noise_model: Annotated[str, _one_of(NOISE_MODELS)] = Field(
        "coloured",
        description="Noise where there are no background patches. white: the same power at all frequencies; coloured: "
        "the spectrum measured outside the particles; poisson: counting statistics of --dose electrons; or your own, "
        "as module:name.",
    )
    dose: float | None = Field(None, gt=0, description="Electrons per square A, for --noise-model poisson.")
    learn_scales: bool = Field(
        False,
        description="Learn the scales of signal and noise besides the map, which has its own scale. --critic "
        "wasserstein.",
    )
    learn_poses: bool = Field(
        False,
        description="Learn the density of view directions, uniform otherwise, and the width of the shifts, --max-shift "
        "otherwise, during frequency marching.",
    )
    pose_prior: _AbsolutePath | None = Field(
        None,
        description="STAR file of view directions with _rlnAngleRot and _rlnAngleTilt, such as another run's poses. "
        "Orientations are drawn from their density, which --learn-poses refines; docs/roadmap/pose-distribution.md.",
    )


class CriticSettings(Group):
    """The critic, and the trials from which it starts."""

    critic: Annotated[str, _one_of(CRITICS)] = Field(
        "matching",
        description="matching: projection matching, compares images with projections of the current map; wasserstein: "
        "the paper's neural network, Figure 5; or your own, as module:name.",
    )
    starts: int | None = Field(
        None,
        ge=1,
        description="Trials of the coarsest stage, from different random numbers; the one with the smallest critic gap "
        "goes on. Default: 1 with the matching critic, which makes eight times as many for T, O and I; 2 with "
        "wasserstein.",
    )


class MatchingSettings(Group):
    """Settings of the matching critic."""

    orientations: int = Field(4608, ge=100, description="Orientations in the bank of templates, over all of SO(3).")
    search_steps: int = Field(
        400, ge=1, description="Volume updates of the initial search from zero; an eighth of them for T, O and I."
    )
    search_batch: int = Field(
        100, ge=2, description="Images in each update of the initial search: real, and as many simulated."
    )
    marching_steps: int = Field(
        4,
        ge=1,
        description="Volume updates at the full frequency, after those in which frequency marching leads there.",
    )
    marching_images: int = Field(
        10000,
        ge=2,
        description="Largest number of images in each update of frequency marching: real, and as many simulated.",
    )


class ClassSettings(Group):
    """Settings of mixtures."""

    classes: int = Field(
        1,
        ge=1,
        description="Maps of which the particles are a mixture, with learned weights: conformations, or junk.",
    )
    class_steps: int = Field(
        15,
        ge=1,
        description="Volume updates at low frequency in which each further class separates from the others.",
    )


class VolumeSettings(Group):
    """Settings of the volume."""

    mask_diameter: float | None = Field(
        None, gt=0, description="Diameter of the spherical mask. Default: 0.95 of the box, as in the paper."
    )
    mask: _AbsolutePath | None = Field(
        None,
        description="MRC file of a mask, 0 to 1, in the particles' box, which bounds the map in place of the sphere, "
        "and in whose frame the map is; docs/membrane-proteins.md.",
    )
    clip_depth: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Most negative density at the centre, as a fraction of the maximum, at each stage's end.",
    )


class WassersteinSettings(Group):
    """Settings of the Wasserstein critic, the paper's."""

    architecture: Literal["paper", "residual", "ctf"] = Field(
        "paper",
        description="paper: Figure 5; residual: its blocks with skip connections; ctf: Figure 5 with the image's CTF "
        "as a second input plane.",
    )
    critic_width: int = Field(
        16, ge=1, description="Channels of the critic's first block; they double from block to block."
    )
    ctf_correction: float = Field(
        0.05,
        ge=0,
        description="tau of C / (C^2 + tau), which multiplies real and simulated images before the critic; 0: none.",
    )
    smoothing: float = Field(
        0.0, ge=0, description="S.d., A, of the Gaussian that smooths real and simulated images before the critic."
    )
    final_smoothing: float = Field(
        1.0, gt=0, le=1, description="The smoothing falls exponentially to this fraction at a stage's end."
    )
    augment: bool = Field(
        True, description="Rotate real and simulated images by random multiples of 90 degrees, and mirror them."
    )
    steps: int = Field(600, ge=0, description="Volume updates at the working box; 0: as many as --epochs.")
    epochs: float = Field(16.0, gt=0, description="Passes of the critic through a half set, with --steps 0.")
    stable_epochs: float = Field(
        0.0,
        ge=0,
        description="Epochs at the working box without shifts, before the last stage, which continues from their map "
        "and begins its schedules anew; 0: none.",
    )
    free_beyond: float | None = Field(
        None,
        gt=0,
        description="Resolution, A, beyond which the last stage changes the map of the stable epochs; the rest is "
        "kept.",
    )
    coarse_to_fine: bool = Field(
        True, description="Begin with a box of 24 pixels, then 32, 48, 64, ... up to the working box."
    )
    coarse_steps: int = Field(800, ge=1, description="Volume updates of each coarser stage.")
    stages: Annotated[str | None, AfterValidator(_growing_stages)] = Field(
        None,
        description="Boxes and the volume updates at each, coarse to fine, such as 24:800,32:800,64:600; replaces "
        "--coarse-to-fine, --coarse-steps, --steps and --epochs. The last is the working box.",
    )
    batch_size: int = Field(32, ge=1, description="Images in a batch: real, and as many simulated.")
    critic_steps: int = Field(2, ge=1, description="Critic updates for each volume update.")
    penalty: float = Field(10.0, ge=0, description="Weight lambda of the gradient penalty, equation (10).")
    penalty_every: int = Field(
        4, ge=1, description="Critic updates from one penalty to the next; its weight is multiplied by this."
    )
    critic_rate: float = Field(1e-3, gt=0, description="Adam's learning rate for the critic.")
    critic_warmup: int = Field(60, ge=1, description="Critic updates before the first volume update of a stage.")
    volume_rate: float = Field(
        1.0,
        gt=0,
        description="Adam's learning rate for the volume, in units of the particles' signal s.d. over the box.",
    )
    scale_rate: float = Field(1e-3, gt=0, description="Adam's learning rate for the logarithms of the scales.")
    hold_rate: float = Field(0.4, ge=0, lt=1, description="Fraction of a stage with full learning rates.")
    final_rate: float = Field(
        0.1, gt=0, le=1, description="Then the learning rates fall exponentially to this fraction at the stage's end."
    )
    critic_clip: float = Field(1e6, gt=0, description="Largest norm of the critic's gradient.")
    volume_clip: float = Field(1e3, gt=0, description="Largest gradient of one voxel.")
    scale_clip: float | None = Field(
        None, gt=0, description="Largest gradient of the scales of signal and noise. Default: none."
    )
    clip_ramp: float = Field(0.125, ge=0, le=1, description="Fraction of a stage over which both clips rise from zero.")
    bf16: bool = Field(False, description="Run the critic in bfloat16.")


class HalfMapSettings(Group):
    """Settings of the two half maps."""

    new_halves: bool = Field(
        False,
        description="Divide the particles anew although their file has halves (_rlnRandomSubset, alignments3D/split), "
        "which are kept otherwise.",
    )
    shared_critic_start: bool = Field(
        False,
        description="Start both critics from the same weights, as in the paper: the halves tend to the same frame.",
    )


class RunSettings(Group):
    """Settings of the run and the machine."""

    refine: bool = Field(False, description="Refine the finished half maps with poses, as `cryogan refine` does.")
    verdict: bool = Field(
        True, description="At the end of a run, judge how far its map can be believed, as `cryogan verdict` does."
    )
    retries: int = Field(
        1,
        ge=0,
        description="How often a half map is made again, from zero and with other random numbers, if the verdict finds "
        "that it alone is wrong.",
    )
    seed: int = Field(0, ge=0, description="Seed of every random number.")
    device: str = Field("cpu", description="torch device: cpu, cuda, cuda:1, ...")
    threads: int | None = Field(
        None, ge=1, description="CPU threads for each half, or process of a half. Default: half the cores."
    )
    max_minutes: float | None = Field(
        None, gt=0, description="Stop early enough to have everything written after this many minutes."
    )
    checkpoint_minutes: float = Field(2.0, gt=0, description="Minutes from one checkpoint to the next.")
