"""A page of a run in the browser: what it does now, what came of it, and a button that stops it."""

from cryogan.watch.server import watch

__all__ = ["watch"]
