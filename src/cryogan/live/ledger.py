"""Which particles were taken up, in which portion and half: read from the portions' files at the start, then kept."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryogan.config import Settings
from cryogan.errors import InputError
from cryogan.live.folder import LiveFolder, read_json, write_json
from cryogan.live.source import Listed, Look, Source, State, rows_by_file
from cryogan.live.star_rows import choose_rows
from cryogan.particles import read_particles, read_star, write_particles, write_stack, write_star
from cryogan.particles.correction import CORRECTED
from cryogan.particles.halves import halves_of_portion
from cryogan.particles.mrc import read_header
from cryogan.particles.preprocess import ImageReader
from cryogan.particles.table import ParticleTable
from cryogan.run.sizes import Sizes

SOURCE_NAME, STACK = "cryoganSourceName", "cryoganSourceStack"
FINGERPRINT, CHECKSUM = "cryoganFingerprint", "cryoganChecksum"
MOST = 2000  # particles of a portion, which are in memory at once
GONE_LOOKS = 3  # looks at files that stand still, in which a particle is not listed, until it counts as vanished
FEW = 8  # particles that are refused together, where one of them cannot be used
SAME_SIZE = 1e-3  # of the pixel size at the working box, by which portions may differ


@dataclass(frozen=True)
class Taken:
    """A particle that was taken up.

    Attributes:
        portion: the portion that holds it.
        fingerprint: number that changes with its CTF.
        checksum: of its image at the working box.
        stack_state: size and time of its stack.
    """

    portion: int
    fingerprint: int
    checksum: int
    stack_state: State


@dataclass(frozen=True)
class Change:
    """What became of particles in a look.

    Attributes:
        portion: number of the portion that was taken up; None: none was.
        taken: number of new particles in it.
        rewritten: number of particles whose image or CTF was rewritten, and that are in it anew.
        unusable: number of images that are blank, constant or NaN.
        vanished: number of particles that the collection no longer lists.
        returned: number of those that it lists again.
    """

    portion: int | None = None
    taken: int = 0
    rewritten: int = 0
    unusable: int = 0
    vanished: int = 0
    returned: int = 0


class Ledger:
    """The particles that were taken up from a collection, by the names that it gives them.

    A portion is a stack at the working box, preprocessed as a run does it, and a STAR file with CTFs and halves: maps
    are made of these, so that a collection which goes away, or is rewritten meanwhile, stops no map. The half of a
    particle is that of its micrograph, and stays.

    Args:
        folder: our folder.
        settings: settings of the maps, as the user gave them.

    Attributes:
        taken: the particles by name.
        withdrawn: names of those that the collection no longer lists.
    """

    def __init__(self, folder: LiveFolder, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self.taken: dict[str, Taken] = {}
        self._refused: dict[str, tuple[int, State]] = {}  # fingerprints and stacks of what cannot be used
        self.withdrawn: set[str] = set(read_json(folder.withdrawn).get("names", []))
        self._halves: dict[str, int] = {}
        self._counts = [0, 0]
        self._looked_at: Look | None = None
        self._new: dict[str, Listed] = {}  # of the look that was looked at
        self._gone: dict[str, int] = {}  # looks in which a particle was not listed
        for number in folder.portion_numbers():
            self._remember(number)

    def __len__(self) -> int:
        """Number of particles of which maps are made."""
        return len(self.taken) - len(self.withdrawn)

    @property
    def last_portion(self) -> int:
        """Number of the last portion; 0: there is none."""
        return max((one.portion for one in self.taken.values()), default=0)

    def new(self, look: Look) -> dict[str, Listed]:
        """Return the particles of a look that are new, or may have been rewritten."""
        if look is not self._looked_at:
            self._looked_at = look
            self._new = {name: listed for name, listed in look.ready.items() if self._is_new(name, listed)}
        return self._new

    def _is_new(self, name: str, listed: Listed) -> bool:
        state, known = (listed.fingerprint, listed.stack_state), self.taken.get(name)
        return self._refused.get(name) != state and (known is None or (known.fingerprint, known.stack_state) != state)

    def follow_names(self, look: Look) -> Change:
        """Find particles that the collection no longer lists, or lists again."""
        if look.away or not look.settled or look.complaints:
            return Change()
        returned = self.withdrawn & look.listed
        missing = self.taken.keys() - look.listed - self.withdrawn
        self._gone = {name: self._gone.get(name, 0) + 1 for name in missing}
        vanished = {name for name, looks in self._gone.items() if looks >= GONE_LOOKS}
        if vanished or returned:
            self.withdrawn = (self.withdrawn | vanished) - returned
            write_json(self._folder.withdrawn, {"names": sorted(self.withdrawn)})
        return Change(vanished=len(vanished), returned=len(returned))

    def take_up(self, source: Source, new: dict[str, Listed], now: float) -> Change:
        """Take up new particles as a portion, at most `MOST`, all of one file.

        Args:
            source: the collection.
            new: as `new` returns them.
            now: the time, for the record.

        Raises:
            InputError: they cannot be used; with the row and the reason.
        """
        self._looked_at = None
        file, particles = next(iter(rows_by_file(list(new.values())).items()))
        particles, number = particles[:MOST], max(self._folder.portion_numbers(), default=0) + 1
        while True:
            try:
                change = self._write(number, source, file, particles, now)
                break
            except InputError:
                if not all(one.stands_still for one in particles):
                    raise  # it is being written, or away: later it can be read
                if len(particles) <= FEW:
                    self._refuse(particles)
                    raise
                particles = particles[: len(particles) // 2]
        if change.portion is not None:
            self._remember(number)
        return change

    def _refuse(self, particles: list[Listed]) -> None:
        """Remember particles that cannot be used, until they are rewritten."""
        self._refused |= {one.name: (one.fingerprint, one.stack_state) for one in particles}

    def _write(self, number: int, source: Source, file: Path, particles: list[Listed], now: float) -> Change:
        """Write a portion of those particles that are usable, and new or changed."""
        folder, listing = self._folder, source.listing(file)
        star = folder.portion_source(number)
        write_star(star, choose_rows(listing.copy, listing.blocks, [one.row for one in particles]))
        table = read_particles(star, found=source.folders(file))
        reader = self._reader(table)
        images, good = reader.read(np.arange(len(table)))
        stored = images.astype("<f2")
        checksums = [zlib.crc32(image.tobytes()) for image in stored]
        before = [self.taken.get(one.name) for one in particles]
        same = [
            known is not None and (known.fingerprint, known.checksum) == (one.fingerprint, checksum)
            for known, one, checksum in zip(before, particles, checksums, strict=True)
        ]
        self._refuse([particles[row] for row in np.flatnonzero(~good)])
        self._touch([particles[row] for row in np.flatnonzero(same)])
        keep = np.flatnonzero(good & ~np.array(same))
        unusable = int((~good).sum())
        if not len(keep):
            star.unlink()
            return Change(unusable=unusable)
        kept = [particles[row] for row in keep]
        rewritten = sum(before[row] is not None for row in keep)
        write_stack(folder.portion_stack(number), stored[keep], reader.pixel_size, np.float16)
        write_star(star, choose_rows(listing.copy, listing.blocks, [one.row for one in kept]))
        states = {str(one.stack): one.stack_state for one in kept}
        write_json(
            folder.portion_record(number),
            {"arrived": now, "particles": len(keep), "rewritten": rewritten, "unusable": unusable, "stacks": states},
        )
        columns = {
            SOURCE_NAME: np.array([one.name for one in kept]),
            STACK: np.array([str(one.stack) for one in kept]),
            FINGERPRINT: np.array([one.fingerprint for one in kept]),
            CHECKSUM: np.array(checksums)[keep],
        }
        self._write_star(number, table.select(keep), reader, columns)
        return Change(number, len(keep) - rewritten, rewritten, unusable)

    def _write_star(
        self, number: int, table: ParticleTable, reader: ImageReader, columns: dict[str, NDArray[Any]]
    ) -> None:
        """Write the particles of a portion, last of its files: with this one it is whole."""
        folder = self._folder
        units = np.where(table.micrographs == "", columns[SOURCE_NAME], table.micrographs)
        subset = halves_of_portion(units, self._halves, [*self._counts], self._settings.seed)
        stack = folder.portion_stack(number)
        placed = ParticleTable(
            stacks=(stack,),
            stack_names=(stack.name,),
            headers=(read_header(stack),),
            stack_index=np.zeros(len(table), dtype=np.int64),
            image_index=np.arange(len(table), dtype=np.int64),
            pixel_size=reader.pixel_size,
            box=reader.box,
            ctf={name: values for name, values in table.ctf.items() if name not in CORRECTED},
            micrographs=units,
            source=folder.portion_star(number),
            source_row=np.arange(len(table), dtype=np.int64),
        )
        images = [f"{image:06d}@{folder.portions.name}/{stack.name}" for image in range(1, len(table) + 1)]
        columns |= {"rlnImageName": np.array(images)}
        write_particles(folder.portion_star(number), placed, subset, columns)

    def _reader(self, table: ParticleTable) -> ImageReader:
        """Return the reader of a portion at the working box of the first.

        Raises:
            InputError: its box or pixel size are others.
        """
        s, sizes = self._settings, Sizes.of(table, self._settings)
        reader = ImageReader(table, sizes.box, sizes.background, s.invert, s.keep_gradient)
        numbers = self._folder.portion_numbers()
        if numbers:
            first = read_header(self._folder.portion_stack(numbers[0]))
            if first.shape[1] != reader.box or abs(reader.pixel_size / first.pixel_size - 1) > SAME_SIZE:
                raise InputError(
                    f"{table.source}: at the working box of {reader.box} px these images have pixels of "
                    f"{reader.pixel_size:.3f} A, those before {first.pixel_size:.3f} A. Extract all alike, or follow "
                    "each kind with a --out of its own."
                )
        return reader

    def _touch(self, same: list[Listed]) -> None:
        """Remember that stacks were written again with the same images."""
        for one in same:
            self.taken[one.name] = replace(self.taken[one.name], stack_state=one.stack_state)

    def _remember(self, number: int) -> None:
        """Read a portion that is whole."""
        table = read_star(self._folder.portion_star(number))["particles"]
        states = {
            path: (size, time)
            for path, (size, time) in read_json(self._folder.portion_record(number))["stacks"].items()
        }
        columns = (SOURCE_NAME, FINGERPRINT, CHECKSUM, STACK, "rlnMicrographName", "rlnRandomSubset")
        for name, fingerprint, checksum, stack, unit, half in zip(*map(table.texts, columns), strict=True):
            self._counts[int(half) - 1] += int(name not in self.taken)
            self._halves[unit] = int(half)
            self.taken[name] = Taken(number, int(fingerprint), int(checksum), states[stack])
