"""CryoGAN: a 3-D map from particles of unknown pose, learned by matching distributions.

import cryogan
result = cryogan.reconstruct(Path("particles.star"), Path("run"), cryogan.Settings(symmetry="D2"))
"""

import lazy_loader

try:
    from cryogan._version import __version__  # written when the package is built or installed, from the tag
except ModuleNotFoundError:
    __version__ = "0+unknown"  # a checkout on the path

# The names stand in __init__.pyi, for type checkers too. PyTorch and SciPy take seconds to import: each name is
# imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
