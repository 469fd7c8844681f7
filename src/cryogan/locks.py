"""One process at a time: locks on files, which the system drops when their holder ends, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryogan.errors import InputError


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock on a file, which is made if need be.

    Raises:
        InputError: another process holds it, unless `wait`.
    """
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(
                f"Another process works in {file.parent}; wait for it, stop it, or give another folder."
            ) from None
        yield
