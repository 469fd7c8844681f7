"""CryoGAN: a 3-D map from particles of unknown pose, learned by matching distributions.

import cryogan
result = cryogan.reconstruct(Path("particles.star"), Path("run"), cryogan.Settings(symmetry="D2"))
"""

import lazy_loader

__version__ = "0.1.0"

# The names stand in __init__.pyi, for type checkers too. PyTorch and SciPy take seconds to import: each name is
# imported when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
