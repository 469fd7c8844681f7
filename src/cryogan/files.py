"""Files and folders of results: whole or not there, new, and one process at a time in each."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryogan.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes the place of `path` only if the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_new(folder: Path, remedy: str = "give another --out.") -> None:
    """Nothing is overwritten.

    Raises:
        InputError: the folder holds something, or is a file; `remedy` ends the sentence.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; {remedy}")


def unwritable(folder: Path, error: OSError) -> InputError:
    """What to say of a full disk under a run in this folder."""
    return InputError(
        f"Cannot write to {folder} ({error.strerror or error}): free disk space, then continue with "
        f"`cryogan reconstruct --resume {folder}`."
    )


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock on a file, which is made if need be; the system drops it when its holder ends, however it ends.

    Raises:
        InputError: another process holds it, unless `wait`.
    """
    with file.open("w") as handle:
        for last_try in (False, False, True):  # `is_locked` of another process holds it for an instant
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                break
            except BlockingIOError:
                if last_try:
                    raise InputError(
                        f"Another process works in {file.parent}; wait for it, stop it, or give another folder."
                    ) from None
                time.sleep(0.1)
        yield


def is_locked(file: Path) -> bool:
    """Whether another process holds the lock on a file."""
    try:
        with file.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
