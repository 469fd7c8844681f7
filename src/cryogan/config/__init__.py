"""Settings of a reconstruction: presets, TOML files and flags in, one checked `Settings` out."""

from cryogan.config.groups import CRITICS, NOISE_MODELS, Group, parse_stages
from cryogan.config.plausible import require_plausible
from cryogan.config.presets import PRESETS
from cryogan.config.reading import first_complaint, resolve, validate
from cryogan.config.renamed import RENAMED_SETTINGS, RENAMED_VALUES, RenamedWarning, as_flag, current_flags
from cryogan.config.settings import GROUPS, Settings

__all__ = [
    "CRITICS",
    "GROUPS",
    "NOISE_MODELS",
    "PRESETS",
    "RENAMED_SETTINGS",
    "RENAMED_VALUES",
    "Group",
    "RenamedWarning",
    "Settings",
    "as_flag",
    "current_flags",
    "first_complaint",
    "parse_stages",
    "require_plausible",
    "resolve",
    "validate",
]
