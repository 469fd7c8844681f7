"""The state of a run, read from its folder once for all who watch it.

Nothing is written into the folder but a request to stop: it may be somebody else's, and read-only.
"""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import InputError
from cryogan.particles import read_volume
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.fsc_files import read_fsc
from cryogan.run.verdict import read_verdict, record_path
from cryogan.validation import fsc, resample, resolution_at
from cryogan.watch.record import RunRecord

if TYPE_CHECKING:
    from cryogan.validation import Alignment

LOG_LINES = 200  # shown
LARGEST_BOX = 128  # of a map in the browser; larger ones are Fourier-cropped


class WatchedRun:
    """A run as its files show it.

    Args:
        run: folder of `cryogan reconstruct`, running or not.

    Attributes:
        records: the lines of progress.jsonl.
        status: all else that the page shows, ready for JSON.

    Raises:
        InputError: the folder is not that of a run.
    """

    page = "page.html"
    end_of_page = "Ctrl-C ends the page, not the run"

    def __init__(self, run: Path) -> None:
        """Read the record of the run; `poll` reads the rest."""
        self._record = RunRecord.read(run)
        self._given = run
        self.folder = RunFolder(run.resolve())
        self.records: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {}
        self._read = 0  # bytes of progress.jsonl
        self._last: dict[int, dict[str, Any]] = {}  # record of each half
        self._compared: tuple[str, dict[str, Any]] | None = None  # the maps that were compared, and their FSC

    def inside(self, path: Path) -> bool:
        """Whether this is a file that lies in the run's folder; a link may lead elsewhere."""
        return path.is_file() and path.resolve().is_relative_to(self.folder.path)

    def maps(self) -> dict[str, tuple[Path, Path]]:
        """Files of the two half maps by a name for their time, in its order."""
        folder = self.folder
        pairs = {
            f"{step:06d}": (folder.snapshot(1, step), folder.snapshot(2, step)) for step in folder.snapshot_steps(1)
        }
        # A kept map is the later one once its stage is over.
        latest = (folder.latest(1), folder.latest(2))
        kept = [pair for pair in pairs.values() if all(map(self.inside, pair))]
        if all(map(self.inside, latest)) and (not kept or written(latest) > written(kept[-1])):
            pairs["latest"] = latest
        pairs |= {"final": folder.half_maps, "refined": folder.refined.half_maps}
        return {name: pair for name, pair in pairs.items() if all(map(self.inside, pair))}

    def figures(self) -> dict[str, Path]:
        """Pictures of the run by name."""
        folder = self.folder
        views = [found.figure("view_distribution") for found in (folder.refined, folder.poses)]
        views.append(folder.figure("views"))
        paths = {name: folder.figure(name) for name in ("gallery", "power_spectra")}
        paths["views"] = next((path for path in views if path.exists()), views[0])
        return {name: path for name, path in paths.items() if self.inside(path)}

    def request_stop(self) -> bool:
        """Ask the run to stop with a checkpoint; return whether there is one to ask."""
        running = self.folder.state() == "running"
        if running:
            self.folder.request_stop()
        return running

    def poll(self) -> bool:
        """Read what is new; return whether anything is."""
        known = len(self.records)
        try:
            self._read_records()
            status = self._read_status()
        except (OSError, InputError) as error:  # a file system that is away may come back
            status = self.status | {"state": "unreadable", "log": str(error)}
        changed = status != self.status or len(self.records) != known
        self.status = status
        return changed

    def compare(self) -> None:
        """Compute the FSC of the last maps of an unfinished run, half 2 aligned to half 1; takes seconds."""
        steps = [name for name in self.maps() if name.isdigit()]
        if self.status.get("state") == "finished" or not steps:
            return
        if self._compared is not None and self._compared[0] == steps[-1]:
            return
        (half1, pixel_size), (half2, _) = (read_volume(path) for path in self.maps()[steps[-1]])
        alignment = _align(half2, half1, pixel_size, self._record.settings.seed)
        curve = fsc(half1, alignment.apply(half2, pixel_size))
        frequency = np.arange(len(curve)) / (len(half1) * pixel_size)
        resolution = resolution_at(curve, pixel_size, 0.143, len(half1))
        text = (
            f"The maps of step {int(steps[-1])}, half 2 aligned to half 1, without a mask: {resolution:.1f} Å at "
            "0.143. Two halves without a structure agree in their outline."
        )
        shown = {"text": text, "frequency": frequency.tolist(), "curves": {"unmasked": _plain(curve)}}
        self._compared = steps[-1], shown

    def _read_records(self) -> None:
        path = self.folder.progress
        if not self.inside(path):
            return
        if path.stat().st_size < self._read:  # another run has taken its place
            self._read, self.records, self._last = 0, [], {}
        with path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                record = json.loads(line, parse_constant=lambda _: None)
                self._last[int(record["half"])] = record
            except (ValueError, KeyError, TypeError):  # cut off when the run was killed
                continue
            self.records.append(record)

    def _read_status(self) -> dict[str, Any]:
        record, log = self._record, self.folder.log
        settings = record.settings
        return {
            "title": record.particles.name,
            "folder": str(self._given),
            "facts": f"{record.particle_count} {settings.kind}, box {record.box} px of {record.pixel_size:.3f} Å, "
            f"{settings.symmetry}",
            "learns_scales": settings.learn_scales,
            "state": self.folder.state(),
            "halves": {half: self._progress(self._last[half]) for half in HALVES if half in self._last},
            "total_steps": record.total_steps,
            "max_minutes": settings.max_minutes,
            "maps": self._list_maps(),
            "figures": {name: written([path]) for name, path in self.figures().items()},
            "fsc": self._fsc(),
            "log": "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if self.inside(log) else "",
        }

    def _list_maps(self) -> list[dict[str, Any]]:
        """Name, label and time of each pair of half maps, for the slider."""
        minutes = {f"{record['step']:06.0f}": record["minutes"] for record in self.records if record["half"] == 1}
        maps = []
        for name, pair in self.maps().items():
            label = f"{name} half maps"
            if name.isdigit():
                label = f"step {int(name)}" + (f", {minutes[name]:.1f} min" if name in minutes else "")
            maps.append({"name": name, "label": label, "version": written(pair)})
        return maps

    def _progress(self, last: dict[str, Any]) -> dict[str, float]:
        """Step, share of the work, minutes spent and minutes left of a half, from its last record."""
        step, minutes = min(int(last["step"]), self._record.total_steps), last["minutes"]
        done = last.get("done", step / self._record.total_steps)  # runs of version 0.1 do not record it
        return {"step": step, "done": done, "minutes": minutes, "left": minutes * (1 - done) / max(done, 1e-6)}

    def _fsc(self) -> dict[str, Any] | None:
        """FSC of the finished half maps, or else of the last ones that were compared."""
        if not self.folder.is_finished or not self.inside(self.folder.fsc_csv):
            return None if self._compared is None else self._compared[1]
        frequency, curves = read_fsc(self.folder)
        resolution = resolution_at(curves["corrected"], self._record.pixel_size, 0.143, self._record.box)
        verdict = read_verdict(self.folder) if self.inside(record_path(self.folder)) else None
        said = f"{verdict.sentence} " if verdict else ""
        return {
            "text": f"{said}The finished half maps: {resolution:.1f} Å at 0.143, mask-corrected.",
            "frequency": frequency.tolist(),
            "curves": {name.replace("_", "-"): _plain(curve) for name, curve in curves.items()},
        }


@lru_cache(maxsize=32)
def read_bytes(path: Path, written: int) -> tuple[bytes, int, float, float]:
    """Read a map in 8 bits.

    Args:
        path: MRC.
        written: the file's time; a file that was written again is read again.

    Returns:
        The voxels, x fastest; the box; the densities of 0 and 255.
    """
    volume, pixel_size = read_volume(path)
    box = min(len(volume), LARGEST_BOX)
    shown = volume if box == len(volume) else resample(volume, pixel_size, box, pixel_size * len(volume) / box)
    low, high = float(shown.min()), float(shown.max())
    scaled = (shown - low) * (255 / max(high - low, 1e-30))
    return np.rint(scaled).astype(np.uint8).tobytes(), box, low, high


def _align(moving: NDArray[np.floating], reference: NDArray[np.floating], pixel_size: float, seed: int) -> "Alignment":
    """Align two maps with one thread, because the cores are the run's; PyTorch is loaded only now."""
    import torch

    from cryogan.validation import align

    torch.set_num_threads(1)
    return align(moving, reference, pixel_size, seed=seed)


def written(paths: Sequence[Path]) -> int:
    """Time of the last file written, in microseconds: JavaScript's numbers hold no nanoseconds."""
    return max(path.stat().st_mtime_ns for path in paths) // 1000


def _plain(curve: NDArray[np.floating]) -> list[float | None]:
    """Convert to JSON's types, which have no NaN."""
    return [float(value) if math.isfinite(value) else None for value in curve]
