"""The folder of a run: the name of every file in it, and what can be asked of it without reading a map.

Everything that reads or writes a run goes through `RunFolder`. Nothing here loads PyTorch, NumPy or a plotting library,
so that a command line or a web page can look at a run at once.
"""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryogan.errors import InputError
from cryogan.files import is_locked, locked, replacing, require_new
from cryogan.run.map_folder import MapFolder
from cryogan.run.outcome import Outcome

__all__ = ["HALVES", "MapFolder", "Outcome", "RunFolder", "State"]
HALVES = (1, 2)
State = Literal["running", "stopping", "comparing", "stopped", "finished"]


@dataclass(frozen=True)
class RunFolder(MapFolder):
    """The folder of `cryogan reconstruct`; it need not exist."""

    @property
    def record(self) -> Path:
        """Settings, inputs, resolved numbers, versions and machine; a folder with this file can be resumed."""
        return self.path / "run.toml"

    @property
    def outcome_record(self) -> Path:
        """How each half and the run ended."""
        return self.path / "outcome.json"

    @property
    def progress(self) -> Path:
        """The course of both halves, a JSON object per line."""
        return self.path / "progress.jsonl"

    @property
    def unfinished_start(self) -> Path:
        """A marker that is there while the folder is prepared, and stays if that is interrupted."""
        return self.path / ".preparing"

    @property
    def log(self) -> Path:
        """Messages of the run, with times."""
        return self.path / "log.txt"

    @property
    def stop_request(self) -> Path:
        """A file that anyone may create, on any machine, to stop the run."""
        return self.path / "stop"

    @property
    def lock(self) -> Path:
        """Locked while a process works in the folder."""
        return self.path / ".lock"

    def half_lock(self, half: int) -> Path:
        """Locked while a process trains half 1 or 2."""
        return self.path / f".half{half}.lock"

    def checkpoint(self, half: int) -> Path:
        """All that the training of half 1 or 2 goes on from."""
        return self.path / f"half{half}.pt"

    @property
    def readme(self) -> Path:
        """Description of each file, for people."""
        return self.path / "README.txt"

    @property
    def views(self) -> Path:
        """View directions and shifts that half 1 simulates, where the directions are not uniform."""
        return self.path / "views.star"

    @property
    def given_mask(self) -> Path:
        """The mask that bounds the map in place of a sphere, as it was given."""
        return self.path / "given_mask.mrc"

    @property
    def symmetry_record(self) -> Path:
        """The symmetry that half maps made without one have by themselves, see `cryogan.run.symmetry`."""
        return self.path / "symmetry.json"

    # Maps of the halves while they are trained, each half in a frame of its own.

    @property
    def snapshots(self) -> Path:
        """Folder of the maps of single halves, each half in a frame of its own."""
        return self.path / "snapshots"

    def snapshot(self, half: int, step: int) -> Path:
        """The map of half 1 or 2 after `step` volume updates of the run."""
        return self.snapshots / f"half{half}_step{step:06d}.mrc"

    def snapshot_steps(self, half: int) -> list[int]:
        """Steps of which there is a map of half 1 or 2, ascending."""
        prefix = f"half{half}_step"
        steps = (path.stem.removeprefix(prefix) for path in self.snapshots.glob(f"{prefix}*.mrc"))
        return sorted(int(step) for step in steps if step.isdigit())

    def latest(self, half: int) -> Path:
        """The map of half 1 or 2 a few seconds ago, for those who watch the run."""
        return self.snapshots / f"half{half}_latest.mrc"

    def final(self, half: int) -> Path:
        """The trained map of half 1 or 2 in its own frame, before the halves are aligned and compared."""
        return self.snapshots / f"half{half}_final.mrc"

    def searched(self, half: int) -> Path:
        """The map of half 1 or 2 in its own frame that the initial search made without the symmetry of the run."""
        return self.snapshots / f"half{half}_search.mrc"

    def trained_map(self, half: int) -> Path:
        """Find the trained map of half 1 or 2: `final`, or in runs of version 0.1 the snapshot after the last step."""
        path = self.final(half)
        if not path.exists() and self._outcomes() is None and (steps := self._planned_steps()):
            path = self.snapshot(half, steps)
        return path

    def class_map(self, half: int, number: int) -> Path:
        """The map of a class of half 1 or 2 in its own frame; classes count from 1, in no order."""
        return self.snapshots / f"half{half}_class{number}.mrc"

    def class_table(self, half: int) -> Path:
        """Weights of the classes of half 1 or 2, and the probability of each class for each particle."""
        return self.snapshots / f"half{half}_classes.star"

    # Results in folders of their own.

    def class_folder(self, number: int) -> MapFolder:
        """Maps, FSC and particles of a class; 1 is the largest."""
        return MapFolder(self.path / f"class{number}")

    @property
    def refined(self) -> MapFolder:
        """Where `cryogan refine` writes by default."""
        return MapFolder(self.path / "refined")

    @property
    def poses(self) -> MapFolder:
        """Where `cryogan poses` writes by default."""
        return MapFolder(self.path / "poses")

    @property
    def verdict(self) -> Path:
        """Folder where `cryogan verdict` writes, see `cryogan.run.verdict`."""
        return self.path / "verdict"

    @property
    def deposition(self) -> MapFolder:
        """Where `cryogan deposit` writes by default."""
        return MapFolder(self.path / "deposit")

    # State of a run, and requests to it.

    @property
    def is_run(self) -> bool:
        """Whether a run was prepared here, so that it can be resumed."""
        return self.record.is_file()

    @property
    def is_busy(self) -> bool:
        """Whether a process works in the folder."""
        return is_locked(self.lock)

    @property
    def is_trained(self) -> bool:
        """Whether both halves have the map that they are compared by."""
        outcomes = self._outcomes()
        if outcomes is None:  # of version 0.1
            return all(self.trained_map(half).exists() for half in HALVES)
        return all(self.outcome(half).has_map and self.final(half).exists() for half in HALVES)

    @property
    def is_finished(self) -> bool:
        """Whether the half maps are trained, compared and written."""
        return self.outcome().has_map

    def state(self) -> State:
        """Return what the run does now, or how it ended."""
        if not self.is_busy:
            return "finished" if self.is_finished else "stopped"
        if self.is_trained:
            return "comparing"
        return "stopping" if self.stop_request.exists() else "running"

    def outcome(self, half: int | None = None) -> Outcome:
        """Return how half 1 or 2 ended; or the run, for None."""
        outcomes = self._outcomes()
        if outcomes is None:  # of version 0.1
            done = self.fsc_csv.exists() if half is None else self.trained_map(half).exists()
            return Outcome.FINISHED if done else Outcome.STOPPED
        return Outcome.read(outcomes.get("run" if half is None else f"half{half}"))

    def record_outcome(self, outcome: Outcome, half: int | None = None) -> None:
        """Record how half 1 or 2 ended; or the run, for None, which with `Outcome.RUNNING` forgets about the halves."""
        begins = half is None and outcome is Outcome.RUNNING
        outcomes = {} if begins else self._outcomes() or {}
        outcomes["run" if half is None else f"half{half}"] = outcome.value
        with replacing(self.outcome_record) as temporary:
            temporary.write_text(json.dumps(outcomes) + "\n")

    def records(self, half: int) -> list[dict[str, Any]]:
        """Return the lines of `progress` of half 1 or 2 by step; of a step that was run twice, the later."""
        last: dict[float, dict[str, Any]] = {}
        for line in self.progress.read_text().splitlines():
            with suppress(ValueError, KeyError, TypeError):  # cut off: the disk was full, or the run was killed
                record = json.loads(line)
                if record["half"] == half:
                    last[record["step"]] = record
        return [last[step] for step in sorted(last)]

    def forget(self, half: int) -> None:
        """Delete the maps and the checkpoint of half 1 or 2 of a finished run, so that it begins from zero."""
        for path in (self.checkpoint(half), *self.snapshots.glob(f"half{half}_*")):
            path.unlink()

    def request_stop(self) -> None:
        """Ask the run to write its checkpoints and to end."""
        self.stop_request.touch()

    def require_new(self) -> None:
        """Refuse a folder that holds anything but what an interrupted start has left: nothing is overwritten.

        Raises:
            InputError: it holds something else.
        """
        if self.is_run or not self.unfinished_start.exists():
            require_new(self.path, f"Give another --out, or --resume {self.path} to go on with a run.")

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Make the folder, and take it for prepared when the block has written `record`, last.

        Raises:
            InputError: it is not new.
        """
        self.require_new()
        self.path.mkdir(parents=True, exist_ok=True)
        self.unfinished_start.touch()
        self.snapshots.mkdir(exist_ok=True)
        self.figures.mkdir(exist_ok=True)
        yield
        self.unfinished_start.unlink()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the lock on the folder for the length of the block.

        Raises:
            InputError: another process works in the folder.
        """
        with locked(self.lock, wait=False):
            yield

    def require_finished(self) -> None:
        """Refuse a run without half maps, or with those of a time before it went on.

        Raises:
            InputError: the run is not finished.
        """
        if not self.is_finished or not all(path.exists() for path in self.half_maps):
            raise InputError(f"{self.path} is not finished. Go on with: cryogan reconstruct --resume {self.path}")

    def _outcomes(self) -> dict[str, str] | None:
        """What `outcome_record` holds; None: there is none, as in runs of version 0.1."""
        try:
            outcomes: dict[str, str] = json.loads(self.outcome_record.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return outcomes

    def _planned_steps(self) -> int | None:
        """Volume updates of all stages, from `run.toml`."""
        try:
            return sum(int(stage["steps"]) for stage in tomllib.loads(self.record.read_text())["plan"]["stages"])
        except (OSError, KeyError, TypeError, ValueError):
            return None
