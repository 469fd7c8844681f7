"""The command line; each module holds a family of commands."""

from cryogan.cli import (  # noqa: F401  each registers its commands
    compare,
    cryosparc,
    deposit,
    inputs,
    live,
    maps,
    particles,
    poses,
    reconstruct,
    verdict,
)
from cryogan.cli.app import app
from cryogan.cli.entry import main

__all__ = ["app", "main"]
