"""A small project, as RELION and the CCP-EM Pipeliner find it, and the programs that they start."""

import shlex
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relion_projects import make_relion_project


@pytest.fixture(scope="module")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Make a project with Extract/job001: 120 particles of the D2 phantom, and the micrographs that they are in."""

    def make() -> Path:
        return make_relion_project(tmp_path_factory.mktemp("project"))

    return make


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cryogan` and `cryogan_relion`, those under test, as pip installs them."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in {"cryogan": "cryogan.cli", "cryogan_relion": "cryogan.cli.relion"}.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder
