"""Checksums of the files that a run was made from, for its record: later, other files may go by the same names."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

IMAGES_LIMIT = 8 << 30  # bytes of image files that are read for their checksums; beyond, size and time stand for them


def checksums(tables: Iterable[Path], images: Iterable[Path]) -> dict[str, str]:
    """Return what identifies the content of files, by their whole paths.

    Args:
        tables: particle files and other small ones.
        images: image files; where they are too many bytes to be read once more, their size and time of change are
            returned in the place of checksums.

    Returns:
        `sha256 HEX`, or `size BYTES changed TIME`.
    """
    stacks = list(dict.fromkeys(path.resolve() for path in images))
    whole = sum(path.stat().st_size for path in stacks) <= IMAGES_LIMIT
    found = {str(path.resolve()): _digest(path) for path in tables}
    return found | {str(path): _digest(path) if whole else _size(path) for path in stacks}


def changed(recorded: Mapping[str, str]) -> list[str]:
    """Return the files that are no longer as they were recorded by `checksums`, or no longer there."""
    return [name for name, was in recorded.items() if not _is_same(Path(name), was)]


def _is_same(path: Path, was: str) -> bool:
    if not path.is_file():
        return False
    return (_digest(path) if was.startswith("sha256 ") else _size(path)) == was


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _size(path: Path) -> str:
    found = path.stat()
    return f"size {found.st_size} changed {datetime.fromtimestamp(found.st_mtime, UTC).isoformat()}"
