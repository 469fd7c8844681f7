"""Files and folders of results: written whole or not at all, never over old ones, by one process at a time."""

import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from filelock import lock_descriptor

from cryogan.errors import InputError

_TRIES = 3  # of a lock that must be free: `is_locked` in another process may hold it for an instant
_BETWEEN_TRIES = 0.1  # seconds


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Replace a file atomically: write to the path that is given, which takes the name `path` when the block ends.

    If the block raises, the old file stays as it was and the new one is removed.

    Args:
        path: the file to write or replace.
        durable: have the system put the content on the disk first, so that a power cut leaves one of the two files.

    Yields:
        A path in the same folder to write to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def finite(values: Any) -> Any:
    """Return values with None in the place of what JSON cannot hold."""
    if isinstance(values, Mapping):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def require_new(folder: Path, remedy: str = "Give another --out.") -> None:
    """Refuse a folder for results that is not new: nothing is overwritten.

    Args:
        folder: where results will be written; may be absent or empty.
        remedy: a sentence that ends the message.

    Raises:
        InputError: the folder holds something, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder. {remedy}")


def unwritable(folder: Path, error: OSError) -> InputError:
    """Return the error to raise when a run cannot write to its folder, for example on a full disk."""
    return InputError(
        f"Cannot write to {folder} ({error.strerror or error}). Free disk space, then continue with "
        f"`cryogan reconstruct --resume {folder}`."
    )


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[None]:
    """Hold an exclusive lock for the length of the block.

    The system releases the lock when the process ends, however it ends. While it is held, the file names its holder,
    for those who may only read (`is_locked`).

    Args:
        file: the lock file; it is made if it is absent and stays when the lock is released.
        wait: wait until another process releases the lock, instead of refusing.

    Raises:
        InputError: another process holds the lock, and `wait` is false.
    """
    with file.open("a+") as handle:
        for attempt in range(_TRIES):
            if lock_descriptor(handle.fileno(), blocking=wait):
                break
            if attempt < _TRIES - 1:
                time.sleep(_BETWEEN_TRIES)
        else:
            raise InputError(f"Another process works in {file.parent}. Wait for it, stop it, or give another folder.")
        try:
            _note(handle, f"{os.getpid()} {socket.gethostname()}")
            yield
        finally:
            _note(handle, "")


def _note(handle: TextIO, holder: str) -> None:
    """Write who holds a lock into its file; a full disk does not matter, for the lock holds without."""
    with suppress(OSError):
        handle.truncate(0)
        handle.write(holder)
        handle.flush()


def is_locked(file: Path) -> bool:
    """Return whether a process holds the lock on a file.

    Of a lock file that may only be read (somebody else's run) no lock is taken and nothing is written: the lock counts
    as held if the file names a process that still runs, or one of another machine, which cannot be asked.
    """
    try:
        with file.open("r+") as handle:
            return not lock_descriptor(handle.fileno(), blocking=False)
    except FileNotFoundError:
        return False
    except OSError:  # PermissionError, or a read-only file system
        try:
            pid, _, host = file.read_text().partition(" ")
        except OSError:  # Windows: the holder alone may read
            return True
        return pid.isdigit() and (host != socket.gethostname() or _is_running(int(pid)))


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # there, os.kill ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
