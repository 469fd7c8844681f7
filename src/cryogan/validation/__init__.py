"""Measures of a reconstruction: alignment of maps, FSC and masks."""

import lazy_loader

# The names stand in __init__.pyi; PyTorch is loaded only for those that need it.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
