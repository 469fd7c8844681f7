"""The settings as flags, in the groups of `cryogan.config`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from cryogan.cli.help import RARE
from cryogan.config import GROUPS, Settings, resolve
from cryogan.config.groups import (
    ClassSettings,
    CriticSettings,
    HalfMapSettings,
    MatchingSettings,
    ParticleSettings,
    PhysicsSettings,
    RunSettings,
    VolumeSettings,
    WassersteinSettings,
)

Preset = Annotated[
    str | None,
    Parameter(
        help="default; or paper or paper-experimental: the numbers of the paper's synthetic or real-data experiment.",
        group=RARE,
    ),
]
Config = Annotated[
    Path | None,
    Parameter(help="TOML file of settings, such as the run.toml of another run; flags override it.", group=RARE),
]


def _panel(title: str) -> Parameter:
    """Flags without a prefix, under a title of their own in the help, in the order of the settings."""
    return Parameter(name="*", group=Group(title, sort_key=list(GROUPS).index(title)))


@dataclass(frozen=True)
class SettingFlags:
    """The settings that stand on the command line; whether they go together is checked after preset and file."""

    particles: Annotated[ParticleSettings | None, _panel("Particles")] = None
    physics: Annotated[PhysicsSettings | None, _panel("Physics")] = None
    critic: Annotated[CriticSettings | None, _panel("Critic")] = None
    matching: Annotated[MatchingSettings | None, _panel("Matching critic")] = None
    classes: Annotated[ClassSettings | None, _panel("Classes")] = None
    volume: Annotated[VolumeSettings | None, _panel("Volume")] = None
    wasserstein: Annotated[WassersteinSettings | None, _panel("Wasserstein critic")] = None
    half_maps: Annotated[HalfMapSettings | None, _panel("Half maps")] = None
    run: Annotated[RunSettings | None, _panel("Run")] = None


Flags = Annotated[SettingFlags | None, Parameter(name="*")]


def given(flags: SettingFlags | None) -> dict[str, Any]:
    """The settings that the user gave as flags, by name."""
    groups = [getattr(flags, group.name) for group in fields(SettingFlags)] if flags else []
    values: dict[str, Any] = {}
    for group in groups:
        values |= group.model_dump(include=group.model_fields_set) if group else {}
    return values


def chosen_settings(preset: str | None, config: Path | None, flags: SettingFlags | None) -> Settings:
    """Settings of a preset, overridden by a file, overridden by flags. Raises InputError as `resolve` does."""
    return resolve(preset or "default", config, given(flags))
