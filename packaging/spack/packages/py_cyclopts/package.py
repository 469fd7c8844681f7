# Not in Spack's own repository; the wheel needs no build.
from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class PyCyclopts(PythonPackage):
    """Command lines from type hints."""

    pypi = "cyclopts/cyclopts-5.5.2-py3-none-any.whl"
    license("Apache-2.0")

    version("5.5.2", sha256="4fbe863ebace1c65dafc6520c82217915b103d27fbd1d8fcd168f2abcca3a12a", expand=False)

    with default_args(type=("build", "run")):
        depends_on("python@3.11:")
        depends_on("py-attrs@23.1:")
        depends_on("py-docstring-parser@0.15:3")
        depends_on("py-rich-rst@2.0.1:2")
        depends_on("py-rich@13.6:")
