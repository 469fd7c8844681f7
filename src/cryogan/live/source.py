"""The particle files that a collection writes, read while they are written.

Nothing of the collection's is locked, moved or written to. A file that is appended to at the moment of reading is read
to its last whole line; one that is being rewritten, or cannot be read, counts as it was before. Of the particles that
it lists, those are ready whose stack is whole and has not changed from one look to the next.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryogan.errors import InputError
from cryogan.files import replacing
from cryogan.live.star_rows import fingerprints
from cryogan.particles import StarTable, read_particles, write_particles
from cryogan.particles.mrc import read_header
from cryogan.particles.relion import particle_block
from cryogan.particles.stacks import find_file
from cryogan.particles.star import read_star

State = tuple[int, int]  # size in bytes, and time of the last change in nanoseconds
Found = dict[tuple[Path, str], tuple[Path, State] | None]  # stacks by the file that names them, and their name
KINDS = (".star", ".cs")


@dataclass(frozen=True)
class Listed:
    """A particle that a file lists.

    Attributes:
        name: its name in the collection: that of its image, from the followed folder where its file is below.
        file: the file.
        row: its row among the file's particles, from 0.
        stack: its stack, where that was found.
        stack_state: size and time of the stack, as they were in two looks.
        fingerprint: a number that changes with its CTF.
    """

    name: str
    file: Path
    row: int
    stack: Path
    stack_state: State
    fingerprint: int

    @property
    def stands_still(self) -> bool:
        """Whether the stack is still there and as it was."""
        with suppress(OSError):
            return _state(self.stack) == self.stack_state
        return False


@dataclass
class Listing:
    """A particle file as it was last read.

    Attributes:
        copy: STAR file in our folder, with its whole lines.
        blocks: its content.
        names: names of its images, in the order of the rows.
        rows: rows of each stack, by its name.
        fingerprints: of its rows.
    """

    copy: Path
    blocks: dict[str, StarTable]
    names: list[str]
    rows: dict[str, list[int]]
    fingerprints: list[int]


@dataclass
class Look:
    """What a look at the collection has found.

    Attributes:
        away: whether the followed file or folder is not there.
        listed: names of all particles that are listed.
        ready: the particles whose images can be read, by name.
        waiting: number of those whose stack is not whole yet.
        complaints: why a file could not be read, by file.
        settled: whether no particle file has changed since the look before.
    """

    away: bool = False
    listed: set[str] = field(default_factory=set)
    ready: dict[str, Listed] = field(default_factory=dict)
    waiting: int = 0
    complaints: dict[Path, str] = field(default_factory=dict)
    settled: bool = True


class Source:
    """Follows a particle file, or a folder of them.

    Args:
        path: STAR or .cs file, or a folder that has or will have such files, also in folders below.
        copies: our folder for copies of the particle files.
        data_dir: another folder with image stacks.
    """

    def __init__(self, path: Path, copies: Path, data_dir: Path | None = None) -> None:
        self.path, self._copies, self._data_dir = path, copies, data_dir
        self._states: dict[Path, State] = {}  # of particle files, at the last look
        self._listings: dict[Path, Listing] = {}
        self._others: set[Path] = set()  # STAR files of something else than particles
        self._stacks: Found = {}  # at the last look
        self._last: Look | None = None  # the last look, if it saw what the one before saw
        self._whole: dict[Path, tuple[State, int]] = {}  # images of stacks by the state that they were counted in

    def folders(self, file: Path) -> tuple[Path, ...]:
        """Return where the stacks that a particle file names are looked for."""
        given = () if self._data_dir is None else (self._data_dir,)
        return (*file.absolute().parents, Path.cwd(), *given)

    def listing(self, file: Path) -> Listing:
        """Return a particle file as it was last read."""
        return self._listings[file]

    def look(self) -> Look:
        """Look at the collection."""
        files = list(self._files()) if self.path.exists() else []
        if not files and (self._listings or not self.path.exists()):
            self._last = None
            return Look(away=True)  # an empty folder is what is left of one whose disk is away
        found = Look()
        for file in files:
            self._read(file, found)
        for file in [file for file in self._listings if file not in files]:
            del self._listings[file]
            found.settled = False
        stacks = self._find_stacks()
        before, self._stacks = self._stacks, stacks
        if found.settled and not found.complaints and stacks == before and self._last is not None:
            return self._last
        self._find_ready(found, stacks, before)
        self._last = found if found.settled and not found.complaints and stacks == before else None
        return found

    def _files(self) -> Iterator[Path]:
        if self.path.is_file():
            yield self.path
            return
        for folder, below, names in os.walk(self.path):
            below.sort()
            for name in sorted(names):
                if Path(name).suffix.lower() in KINDS and not name.startswith("."):
                    yield Path(folder) / name

    def _read(self, file: Path, found: Look) -> None:
        """Read a particle file if it has changed; keep what it was if it cannot be read now."""
        try:
            state = _state(file)
        except OSError as error:
            found.complaints[file] = f"{file}: cannot be read ({error.strerror}). Check the path."
            found.settled = False
            return
        before, self._states[file] = self._states.get(file), state
        found.settled &= before == state
        if before == state and (file in self._listings or file in self._others):
            return
        try:
            listing = self._copied(file)
        except InputError as error:
            found.complaints[file] = str(error).replace(str(self._copy_of(file)), str(file))
            self._states.pop(file)  # read again at the next look
            return
        if listing is None:
            self._others.add(file)
        else:
            self._listings[file] = listing

    def _copy_of(self, file: Path) -> Path:
        """Return the path of our copy of a particle file."""
        name = file.name if file == self.path else str(file.relative_to(self.path)).replace(os.sep, "__")
        return self._copies / f"{name}.star"

    def _copied(self, file: Path) -> Listing | None:
        """Copy a particle file and read the copy; None: it is a STAR file of something else than particles."""
        copy = self._copy_of(file)
        if file.suffix.lower() == ".cs":
            write_particles(copy, read_particles(file, self._data_dir))
        else:
            try:
                text = file.read_bytes()
            except OSError as error:
                raise InputError(f"{file}: cannot be read ({error.strerror}). Check the path.") from None
            with replacing(copy) as temporary:
                temporary.write_bytes(text[: text.rfind(b"\n") + 1])
        blocks = read_star(copy)
        if file != self.path and not any("rlnImageName" in block for block in blocks.values()):
            return None  # a folder holds micrographs.star and others beside them
        names = particle_block(copy, blocks).texts("rlnImageName")
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows.setdefault(name.rpartition("@")[2], []).append(row)
        return Listing(copy, blocks, names, rows, fingerprints(copy, blocks))

    def _find_stacks(self) -> Found:
        """Return where each stack is, and its state; None where it is not there."""
        found: Found = {}
        for file, listing in self._listings.items():
            folders = self.folders(file)
            for stack in listing.rows:
                path = find_file(stack, folders)
                if path is None and self._data_dir is not None:
                    path = find_file(Path(stack).name, [self._data_dir])
                found[file, stack] = None
                with suppress(OSError):
                    found[file, stack] = None if path is None else (path, _state(path))
        return found

    def _find_ready(self, found: Look, stacks: Found, before: Found) -> None:
        """Add the particles whose stacks are whole and stand still."""
        for (file, stack), place in stacks.items():
            listing = self._listings[file]
            names = [(row, listing.names[row]) for row in listing.rows[stack]]
            if place is None:  # it may be away: under either name it counts as listed
                prefixes = ("", self._prefix(stack, file.parent / stack))
                found.listed.update(_own_name(name, prefix) for _, name in names for prefix in prefixes)
                found.waiting += len(names)
                continue
            path, state = place
            prefix = self._prefix(stack, path)
            images = self._images_in(path, state) if before.get((file, stack)) == place else 0
            for row, name in names:
                own, number = _own_name(name, prefix), name.rpartition("@")[0]
                found.listed.add(own)
                if (int(number) if number.isdigit() else 1) > images:
                    found.waiting += 1
                else:
                    found.ready[own] = Listed(own, file, row, path, state, listing.fingerprints[row])

    def _prefix(self, stack: str, path: Path) -> str:
        """Return what tells a stack from others of its name in other folders: its base, below the followed folder."""
        base = Path(str(path).removesuffix(stack))
        below = base != self.path and base.is_relative_to(self.path)
        return f"{base.relative_to(self.path).as_posix()}/" if below else ""

    def _images_in(self, stack: Path, state: State) -> int:
        """Return the number of whole images of a stack; 0 while it is not whole."""
        known = self._whole.get(stack)
        if known is None or known[0] != state:
            count = 0
            with suppress(InputError):
                count = read_header(stack).shape[0]
            self._whole[stack] = known = (state, count)
        return known[1]


def rows_by_file(particles: Sequence[Listed]) -> dict[Path, list[Listed]]:
    """Group particles by the file that lists them."""
    files: dict[Path, list[Listed]] = {}
    for particle in particles:
        files.setdefault(particle.file, []).append(particle)
    return files


def _own_name(name: str, prefix: str) -> str:
    """Return the name of an image with a prefix before that of its stack."""
    number, at, stack = name.rpartition("@")
    return f"{number}{at}{prefix}{stack}" if prefix else name


def _state(path: Path) -> State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
