"""All settings of a reconstruction together, and which of them go together."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import model_validator

from cryogan.config.groups import (
    ClassSettings,
    CriticSettings,
    Group,
    HalfMapSettings,
    MatchingSettings,
    ParticleSettings,
    PhysicsSettings,
    RunSettings,
    VolumeSettings,
    WassersteinSettings,
    is_dotted,
    parse_stages,
)
from cryogan.config.renamed import as_flag, current_names
from cryogan.errors import InputError

GROUPS: dict[str, type[Group]] = {
    "Particles": ParticleSettings,
    "Physics": PhysicsSettings,
    "Critic": CriticSettings,
    "Matching critic": MatchingSettings,
    "Classes": ClassSettings,
    "Volume": VolumeSettings,
    "Wasserstein critic": WassersteinSettings,
    "Half maps": HalfMapSettings,
    "Run": RunSettings,
}


# The last base comes first among the fields.
class Settings(
    RunSettings,
    HalfMapSettings,
    WassersteinSettings,
    VolumeSettings,
    ClassSettings,
    MatchingSettings,
    CriticSettings,
    PhysicsSettings,
    ParticleSettings,
):
    """Settings of `cryogan reconstruct`. Lengths in A, unless the description says otherwise.

    Raises:
        InputError: settings that contradict each other.
    """

    @model_validator(mode="before")
    @classmethod
    def _take_old_names(cls, values: Any) -> Any:
        return current_names(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _require_that_they_go_together(self) -> Self:
        _check_physics(self)
        if self.critic == "matching":
            _check_matching(self)
        elif self.critic == "wasserstein":
            _check_wasserstein(self)
        _check_stages(self)
        if self.particles_per_um2 is not None:
            _check_unpicked(self)
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with changes, which are checked as those of a new one."""
        return type(self)(**(self.model_dump() | dict(update or {})))

    def flags(self) -> list[str]:
        """Return the settings that are not the default, but for the seed, as flags of `cryogan reconstruct`."""
        flags = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value == field.default or name == "seed":
                continue
            flag = as_flag(name)
            if isinstance(value, bool):
                flags.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                flags += [flag, str(value)]
        return flags

    @property
    def kind(self) -> str:
        """What the images are, in messages."""
        return "particles" if self.particles_per_um2 is None else "patches"


def _check_physics(s: Settings) -> None:
    if (s.aperture_diameter is None) != (s.focal_length is None):
        raise InputError("An objective aperture needs both --aperture-diameter and --focal-length.")
    if not is_dotted(s.noise_model) and (s.noise_model == "poisson") != (s.dose is not None):
        raise InputError("--noise-model poisson and --dose need each other.")


def _check_matching(s: Settings) -> None:
    if s.learn_scales:
        raise InputError("--learn-scales needs --critic wasserstein: the matching critic's map has the images' scale.")
    for name in ("smoothing", "stable_epochs", "free_beyond", "scale_clip"):
        if getattr(s, name):
            raise InputError(f"{as_flag(name)} needs --critic wasserstein.")
    if s.stages is not None:
        raise InputError("--stages needs --critic wasserstein: the matching critic goes from coarse to fine by itself.")


def _check_wasserstein(s: Settings) -> None:
    if s.learn_poses:
        raise InputError("--learn-poses needs --critic matching, which finds the poses of the images.")
    if s.classes > 1:
        raise InputError("--classes needs --critic matching, which compares the images with templates of each class.")


def _check_stages(s: Settings) -> None:
    if s.stages is not None:
        last = parse_stages(s.stages)[-1][0]
        if s.box not in (None, last):
            raise InputError(f"--stages ends with a box of {last}, --box is {s.box}; leave out --box.")
        if s.stable_epochs > 0:
            raise InputError("--stages and --stable-epochs both say what goes before the last stage; give one of them.")
    if s.free_beyond is not None and s.stable_epochs == 0:
        raise InputError("--free-beyond needs --stable-epochs: there is no map whose frequencies could be kept.")


def _check_unpicked(s: Settings) -> None:
    if s.critic != "matching":
        raise InputError("--particles-per-um2 needs --critic matching.")
    for name, given in {"learn_poses": s.learn_poses, "refine": s.refine, "classes": s.classes > 1}.items():
        if given:
            raise InputError(f"{as_flag(name)} needs picked particles; leave out --particles-per-um2.")
