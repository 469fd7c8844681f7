"""Particles from a volume: the data source of demonstrations, tests and benchmarks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryogan.simulation.data_set import simulate

__all__ = ["simulate"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: the command line reads the options of `disturbances` and must not wait for PyTorch.
    if name != "simulate":
        raise AttributeError(f"module 'cryogan.simulation' has no attribute {name!r}")
    from cryogan.simulation.data_set import simulate

    return simulate
