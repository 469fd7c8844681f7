# Spack package. `sha256` is that of the source archive of the release, which the release workflow prints.
from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class PyCryogan(PythonPackage):
    """Ab initio single-particle cryo-EM maps without orientations."""

    pypi = "cryogan/cryogan-0.1.0.tar.gz"
    license("BSD-3-Clause")

    version("0.1.0", sha256="0" * 64)

    variant("watch", default=True, description="Web server of cryogan watch")

    depends_on("python@3.11:", type=("build", "run"))
    depends_on("py-hatchling@1.26:", type="build")
    depends_on("py-hatch-vcs@0.4:", type="build")
    with default_args(type=("build", "run")):
        depends_on("py-torch@2.9:")
        depends_on("py-numpy@1.26:")
        depends_on("py-numba@0.61:")
        depends_on("py-scipy@1.12:")
        depends_on("py-mrcfile@1.5:")
        depends_on("py-gemmi@0.7:")
        depends_on("py-pydantic@2.7:")
        depends_on("py-cyclopts@5.0:")
        depends_on("py-rich@13:")
        depends_on("py-matplotlib@3.8:")
        depends_on("py-jinja2@3.1:")
        depends_on("py-tifffile@2024.1.30:")
        depends_on("py-tomli-w@1.0:")
        depends_on("py-lazy-loader@0.4:")
        depends_on("py-filelock@3.30:")
        depends_on("py-starlette@0.40:", when="+watch")
        depends_on("py-uvicorn@0.30:", when="+watch")
