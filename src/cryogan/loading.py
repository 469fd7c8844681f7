"""Loading what a user names as `module:attribute`: a critic or a noise model of their own."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from cryogan.errors import InputError


def load_named(name: str, registry: Mapping[str, str], what: str) -> Any:
    """Return what a name stands for.

    Args:
        name: a key of the registry, or `module:attribute`.
        registry: places, as `module:attribute`, by name.
        what: what is named, for messages, such as "critic".

    Raises:
        InputError: there is nothing of that name, or its module cannot be imported.
    """
    module, _, attribute = registry.get(name, name).partition(":")
    if not attribute:
        raise InputError(f"Unknown {what} {name!r}. Give {', '.join(registry)}, or your own as module:name.")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"Cannot load the {what} {name} ({error}). Is its module on PYTHONPATH?") from error
