"""Files are replaced whole, and one process at a time works in a folder."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cryogan.errors import InputError
from cryogan.files import is_locked, locked, replacing, require_new

HOLD = """
import sys
from pathlib import Path
from cryogan.files import locked
with locked(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    sys.stdin.read()
"""
ASK = """
import os, sys
from pathlib import Path
from cryogan.files import is_locked
if os.geteuid() == 0:
    os.setuid(65534)
folder = Path(sys.argv[1])
try:
    (folder / "new").touch()
except OSError:
    print(is_locked(folder / ".lock"))
"""


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_whole_or_stays(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "a"
    with replacing(file, durable=durable) as temporary:
        temporary.write_text("old")

    def fail() -> None:
        with replacing(file, durable=durable) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_for_results_is_new_or_empty(tmp_path: Path) -> None:
    require_new(tmp_path)
    require_new(tmp_path / "absent")
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match=r"is not an empty folder\. Give another --out\."):
            require_new(taken)


def test_a_lock_is_seen_and_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    assert not is_locked(file)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_locked(file)
    with pytest.raises(InputError, match="Another process works in"), locked(file, wait=False):
        pass
    holder.kill()
    holder.communicate()
    assert not is_locked(file)
    with locked(file, wait=False):
        assert is_locked(file)
    assert not is_locked(file)


def test_who_may_only_read_sees_the_lock_and_writes_nothing() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        answers = []

        def ask() -> None:
            done = subprocess.run(
                [sys.executable, "-c", ASK, name], capture_output=True, text=True, check=True, timeout=60
            )
            answers.append(done.stdout.strip())

        if os.geteuid() != 0:
            pytest.skip("only root can make a folder that another user may only read")
        ask()
        with locked(folder / ".lock", wait=False):
            (folder / ".lock").chmod(0o444)
            before = (folder / ".lock").read_text()
            ask()
            assert (folder / ".lock").read_text() == before
        ask()
        (folder / ".lock").write_text(before.replace(str(os.getpid()), "4194305"))  # beyond the highest process number
        ask()
        (folder / ".lock").write_text("1 another-machine")
        ask()
    assert answers == ["False", "True", "False", "False", "True"]
