"""The folder of `cryogan live`: the name of every file in it. Nothing here loads PyTorch or NumPy."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryogan.files import finite, is_locked, replacing
from cryogan.run.folder import RunFolder


@dataclass(frozen=True)
class LiveFolder:
    """The folder of `cryogan live`; it need not exist.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def record(self) -> Path:
        """What is followed, and the settings; a folder with this file can be gone on with."""
        return self.path / "live.toml"

    @property
    def lock(self) -> Path:
        """Locked while a process follows the collection."""
        return self.path / ".lock"

    @property
    def finish_request(self) -> Path:
        """A file that asks for the final run, and the end."""
        return self.path / "finish"

    @property
    def stop_request(self) -> Path:
        """A file that asks to stop; the same command goes on."""
        return self.path / "stop"

    @property
    def status(self) -> Path:
        """What the page shows, JSON."""
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        """Messages, with times."""
        return self.path / "log.txt"

    @property
    def failure(self) -> Path:
        """Why the last task failed that did."""
        return self.path / "failure.txt"

    @property
    def alerts(self) -> Path:
        """What the user was alerted to, a JSON object per line."""
        return self.path / "alerts.jsonl"

    @property
    def withdrawn(self) -> Path:
        """Names of particles that the collection no longer lists, JSON."""
        return self.path / "withdrawn.json"

    # Particles, in portions as they came.

    @property
    def copies(self) -> Path:
        """Folder of the copies of the collection's particle files, as they were last read."""
        return self.path / "input"

    @property
    def portions(self) -> Path:
        """Folder of the portions."""
        return self.path / "portions"

    def portion_stack(self, number: int) -> Path:
        """Images of a portion at the working box."""
        return self.portions / f"{number:06d}.mrcs"

    def portion_star(self, number: int) -> Path:
        """Particles of a portion; a portion with this file is whole."""
        return self.portions / f"{number:06d}.star"

    def portion_source(self, number: int) -> Path:
        """The rows of a portion's particles as the collection listed them."""
        return self.portions / f"{number:06d}_source.star"

    def portion_record(self, number: int) -> Path:
        """When a portion came, of what files, and what it is worth, JSON."""
        return self.portions / f"{number:06d}.json"

    def portion_numbers(self) -> list[int]:
        """Numbers of the whole portions, ascending."""
        return _numbers(path.stem for path in self.portions.glob("*.star"))

    # Maps.

    @property
    def maps(self) -> Path:
        """Folder of the runs that made the maps."""
        return self.path / "maps"

    def map_run(self, number: int) -> RunFolder:
        """The run that makes a map."""
        return RunFolder(self.maps / f"{number:04d}")

    def map_particles(self, number: int) -> Path:
        """The particles that a map is made of."""
        return self.maps / f"{number:04d}.star"

    def map_task(self, number: int) -> Path:
        """What a map is made of and begins with, JSON; one without a record is in the making."""
        return self.maps / f"{number:04d}.task.json"

    def map_record(self, number: int) -> Path:
        """What a map is made of and what it is worth, JSON; a map with this file is finished."""
        return self.maps / f"{number:04d}.json"

    def map_sample(self, number: int) -> Path:
        """A sample of a map's particles, which each portion is compared with."""
        return self.maps / f"{number:04d}_sample.star"

    def map_noise(self, number: int) -> Path:
        """Background patches of a map, beside their stack."""
        return self.maps / f"{number:04d}_noise.star"

    def map_numbers(self) -> list[int]:
        """Numbers of the finished maps, ascending."""
        return _numbers(path.stem for path in self.maps.glob("*.json"))

    def map_in_making(self) -> int | None:
        """Number of the map that is in the making, or was when the process ended; None: there is none."""
        begun = _numbers(path.name.removesuffix(".task.json") for path in self.maps.glob("*.task.json"))
        return next((number for number in begun if not self.map_record(number).exists()), None)

    @property
    def final(self) -> RunFolder:
        """The usual run of all particles, at the end."""
        return RunFolder(self.path / "final")

    @property
    def final_record(self) -> Path:
        """How the final run ended, JSON; with this file the collection is at its end."""
        return self.path / "final.json"

    @property
    def final_particles(self) -> Path:
        """All particles, under the names that the collection gave them."""
        return self.path / "particles.star"

    @property
    def is_live(self) -> bool:
        """Whether a collection was followed here."""
        return self.record.is_file()

    @property
    def is_busy(self) -> bool:
        """Whether a process follows the collection."""
        return is_locked(self.lock)

    def make(self) -> None:
        """Make the folders."""
        for folder in (self.copies, self.portions, self.maps):
            folder.mkdir(parents=True, exist_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object whole or not at all, with null in the place of NaN and infinity."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(values), allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is no file."""
    with suppress(FileNotFoundError):
        values: dict[str, Any] = json.loads(path.read_text())
        return values
    return {}


def _numbers(stems: Any) -> list[int]:
    return sorted(int(stem) for stem in stems if stem.isdigit())
