# Not in Spack's own repository; cyclopts needs it.
from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class PyRichRst(PythonPackage):
    """reStructuredText for rich."""

    pypi = "rich_rst/rich_rst-2.2.0-py3-none-any.whl"
    license("MIT")

    version("2.2.0", sha256="1ea1c43813dc4a8d86475fce27ffb74e0ada3d4656c9f8130ba2a59868055fe9", expand=False)

    with default_args(type=("build", "run")):
        depends_on("py-docutils")
        depends_on("py-rich@12:")
