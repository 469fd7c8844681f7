"""Every setting of a reconstruction, defined once: the flags, TOML files and run records come from here."""

import difflib
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from cryogan.errors import InputError


class Settings(BaseModel):
    """Settings of `cryogan reconstruct`. Lengths in A, unless the description says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Particles
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

    particles_per_um2: float | None = Field(
        None,
        gt=0,
        description="Particles per square micrometre of the micrographs, for patches that `cryogan extract-patches` "
        "cut anywhere: none, one or several particles in each. Default: images are picked ones. Experimental.",
    )

    # Physics
    symmetry: str = Field("C1", description="Point group in RELION's setting: C1, Cn, Dn, T, O, I, I1, I2, I3, I4.")
    max_shift: float = Field(
        10.0, ge=0, description="Shifts are drawn from a triangular distribution of this half width, A."
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
    noise_model: str = Field(
        "coloured",
        description="Noise without background patches: white, with the spectrum measured outside the particle, or the "
        "counting of --dose electrons.",
    )
    dose: float | None = Field(None, gt=0, description="Electrons per square A, for --noise-model poisson.")
    learn_scales: bool = Field(
        False, description="Learn the scales of signal and noise, beside the map, whose own scale is learned anyway."
    )

    learn_poses: bool = Field(
        False,
        description="Learn the density of view directions, uniform otherwise, and the width of the shifts, --max-shift "
        "otherwise, in the view critic's sharpening.",
    )
    pose_prior: Path | None = Field(
        None,
        description="STAR file of view directions with _rlnAngleRot and _rlnAngleTilt, such as another run's poses, "
        "from whose density views are drawn, learned further with --learn-poses; docs/roadmap/pose-distribution.md.",
    )

    # View critic
    critic: str = Field(
        "views",
        description="views: compares images with views of the current map; convolutional: the paper's, Figure 5.",
    )
    views: int = Field(4608, ge=100, description="Rotations in the view critic's bank, over all of SO(3).")
    search_steps: int = Field(150, ge=1, description="Volume updates of the view critic's search from zero.")
    search_batch: int = Field(200, ge=2, description="Images of either stream for each of them.")
    sharpen_steps: int = Field(
        4, ge=1, description="Volume updates at the full frequency, after those that lead there."
    )
    sharpen_images: int = Field(10000, ge=2, description="Images of either stream, at most, for each of these.")

    # Classes
    classes: int = Field(
        1,
        ge=1,
        description="Maps of which the particles are a mixture, with learned weights: conformations, or junk.",
    )
    class_steps: int = Field(
        15, ge=1, description="Volume updates at low frequency in which each further class comes apart from the others."
    )

    # Volume
    mask_diameter: float | None = Field(
        None, gt=0, description="Diameter of the spherical mask. Default: 0.95 of the box, as the paper."
    )
    clip_depth: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Most negative density at the centre, as a fraction of the maximum, at each stage's end.",
    )

    # Critic and training
    architecture: Literal["paper", "residual", "ctf"] = Field(
        "paper",
        description="Of the convolutional critic. paper: Figure 5; residual: its blocks with a path around them; ctf: "
        "Figure 5 with the image's CTF as a second input plane.",
    )
    critic_width: int = Field(
        16, ge=1, description="Channels of the critic's first block; they double from block to block."
    )
    ctf_correction: float = Field(
        0.05, ge=0, description="tau of C / (C^2 + tau), applied to both streams before the critic; 0 leaves the CTF."
    )
    smoothing: float = Field(
        0.0,
        ge=0,
        description="S.d., A, of the Gaussian that smooths both streams for the convolutional critic.",
    )
    final_smoothing: float = Field(
        1.0, gt=0, le=1, description="The smoothing falls exponentially to this fraction at a stage's end."
    )
    augment: bool = Field(
        True, description="Turn and mirror the images of both streams at random, by multiples of 90 degrees."
    )
    steps: int = Field(600, ge=0, description="Volume updates at the working box; 0: as many as --epochs.")
    epochs: float = Field(16.0, gt=0, description="Passes of the critic through a half set, with --steps 0.")
    stable_epochs: float = Field(
        0.0,
        ge=0,
        description="Epochs at the working box without shifts before those of the last stage, which goes on from their "
        "map; 0: none. The last stage's schedules, begun anew.",
    )
    free_beyond: float | None = Field(
        None,
        gt=0,
        description="Resolution, A, beyond which the last stage changes the stable epochs' map; the rest is kept.",
    )
    coarse_to_fine: bool = Field(
        True, description="Begin with a box of 24 pixels, then 32, 48, 64, ... up to the working box."
    )
    starts: int = Field(
        2,
        ge=1,
        description="Trials of the coarsest stage, from different random numbers; the smallest critic gap goes on.",
    )
    coarse_steps: int = Field(800, ge=1, description="Volume updates of each coarser stage.")
    stages: str | None = Field(
        None,
        description="Boxes of the convolutional critic and the volume updates at each, coarse to fine, such as "
        "24:800,32:800,64:600; in the place of --coarse-to-fine, --coarse-steps, --steps and --epochs. The last is the "
        "working box.",
    )
    batch_size: int = Field(32, ge=1, description="Images in a batch of either stream.")
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

    # Half maps
    shared_critic_start: bool = Field(
        False,
        description="Start both critics from the same weights, as the paper: the halves tend to the same frame.",
    )

    # Run
    refine: bool = Field(False, description="Refine the finished half maps with poses, as `cryogan refine` does.")
    seed: int = Field(0, ge=0, description="Seed of every random number.")
    device: str = Field("cpu", description="torch device: cpu, cuda, cuda:1, ...")
    threads: int | None = Field(
        None, ge=1, description="CPU threads for each half, or process of a half. Default: half the cores."
    )
    max_minutes: float | None = Field(
        None, gt=0, description="Stop in time to have everything written after so many minutes."
    )
    checkpoint_minutes: float = Field(2.0, gt=0, description="Minutes from one checkpoint to the next.")

    @field_validator("pose_prior")
    @classmethod
    def _from_any_folder(cls, path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    @field_serializer("pose_prior")
    def _as_text(self, path: Path | None) -> str | None:
        return None if path is None else str(path)

    @field_validator("stages")
    @classmethod
    def _boxes_grow(cls, text: str | None) -> str | None:
        if text is not None:
            boxes = [box for box, _ in parse_stages(text)]
            if any(first >= second for first, second in pairwise(boxes)):
                raise ValueError("the boxes must grow from stage to stage")
        return text

    @property
    def kind(self) -> str:
        """What the images are, in messages."""
        return "particles" if self.particles_per_um2 is None else "patches"


def parse_stages(text: str) -> list[tuple[int, int]]:
    """(box, volume updates) of each stage; ValueError unless the text is like 24:800,32:800."""
    stages = []
    for part in text.split(","):
        box, _, steps = (each.strip() for each in part.partition(":"))
        if not (box.isdecimal() and steps.isdecimal() and int(box) >= 16 and int(box) % 2 == 0 and int(steps) > 0):
            raise ValueError(f"{part.strip()[:50]!r} is not an even box from 16 on and its steps, such as 24:800")
        stages.append((int(box), int(steps)))
    return stages


_REPLACED_BY_STAGES = ("coarse_to_fine", "coarse_steps", "steps", "epochs")

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The supplementary material's synthetic experiment, number by number; docs/method.md says what cannot be kept.
    "paper": {
        "max_shift": 0.0,
        "critic": "convolutional",
        "learn_scales": True,
        "envelope_at_nyquist": 0.2,
        "critic_width": 96,
        "ctf_correction": 0.0,
        "augment": False,
        "coarse_to_fine": False,
        "starts": 1,
        "steps": 0,
        "epochs": 16.0,
        "batch_size": 8,
        "critic_steps": 4,
        "penalty": 1e-3,
        "penalty_every": 1,
        "critic_rate": 1e-3,
        "volume_rate": 0.18,  # their 1e-3 a voxel, images of s.d. 1, box 180
        "critic_warmup": 4,
        "hold_rate": 0.0,
        "final_rate": 0.92**16,
        "clip_ramp": 0.125,
        "bf16": False,
        "shared_critic_start": True,
    },
}
# The real-data experiment: what the supplement says of it otherwise than of the synthetic one.
PRESETS["paper-experimental"] = PRESETS["paper"] | {
    "max_shift": 10.0,  # triangular; the paper does not say how wide
    "envelope_at_nyquist": 0.4,
    "smoothing": 2.548,  # 2 of their pixels of 1.274 A, if their width is the s.d.
    "final_smoothing": 0.98**12,
    "stable_epochs": 8.0,
    "free_beyond": 15.0,
    "epochs": 12.0,
    "penalty": 1.0,
    "final_rate": 0.92**12,
    "scale_clip": 10.0,
    "clip_ramp": 2 / 12,
}


def resolve(preset: str, file: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Settings of a preset, overridden by a TOML file, overridden by flags.

    Args:
        preset: a key of `PRESETS`.
        file: TOML with the names of `Settings`, at top level or under [settings], as `run.toml` has them.
        flags: only those that the user gave.

    Raises:
        InputError: unknown preset or setting (with a suggestion), value of the wrong kind, unreadable file, stages
            beside flags that they replace.
    """
    if preset not in PRESETS:
        raise InputError(f"Unknown preset {preset!r}{_suggestion(preset, list(PRESETS))}")
    values = dict(PRESETS[preset])
    if file is not None:
        values |= _read_toml(file)
    values |= flags
    replaced = [name for name in _REPLACED_BY_STAGES if name in flags]
    if values.get("stages") is not None and replaced:
        raise InputError(f"--stages says the boxes and steps: leave out --{replaced[0].replace('_', '-')}.")
    return validate(values, f"{file}: " if file else "")


def validate(values: Mapping[str, Any], where: str) -> Settings:
    """Settings from plain values; `where` begins the sentence of an `InputError`."""
    known = list(Settings.model_fields)
    for name in values:
        if name not in known:
            raise InputError(f"{where}unknown setting {name!r}{_suggestion(name, known)}")
    try:
        return Settings(**values)
    except ValidationError as error:
        raise InputError(where + first_complaint(error)) from error


def first_complaint(error: ValidationError) -> str:
    """One sentence of pydantic's first error."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    return f"setting {name} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}."


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"Cannot read the settings in {file}: {error}.") from error
    settings: dict[str, Any] = content.get("settings", content)
    return settings


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known)}."
