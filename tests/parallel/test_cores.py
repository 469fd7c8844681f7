"""The number of cores, and the package on a system that has not all that Linux has."""

import os
import subprocess
import sys

import pytest

from cryogan.parallel.cores import available_cores

IMPORT_ALL = """
import os, pkgutil, sys
sys.modules["fcntl"] = None  # an import fails, as where there is none
for name in ("sched_getaffinity", "sched_setaffinity"):
    vars(os).pop(name, None)
import cryogan
from cryogan.parallel.cores import available_cores
assert available_cores() == os.cpu_count()
for module in pkgutil.walk_packages(cryogan.__path__, "cryogan."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
        print(module.name)
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_cores_are_those_of_this_process() -> None:
    assert available_cores() == len(os.sched_getaffinity(0))


def test_every_module_imports_without_what_macos_lacks() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert {"cryogan.files", "cryogan.run.reconstruct", "cryogan.watch.server"} <= set(names)
