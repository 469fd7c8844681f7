"""A page of a run in the browser: its state, its results, and a button that stops it."""

from cryogan.watch.server import watch

__all__ = ["watch"]
