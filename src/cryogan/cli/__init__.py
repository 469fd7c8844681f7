"""The command line; each module holds a family of commands."""

from cryogan.cli import inputs, maps, particles, poses, reconstruct, verdict  # noqa: F401  each registers its commands
from cryogan.cli.app import app
from cryogan.cli.entry import main

__all__ = ["app", "main"]
