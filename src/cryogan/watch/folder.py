"""What the folder of a run says at this moment, read once for all who watch it."""

import csv
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cryogan.errors import InputError
from cryogan.particles import read_volume
from cryogan.run.folder import HALVES
from cryogan.run.folder import RunFolder as Files
from cryogan.run.plan import Plan
from cryogan.validation import align, fsc, resample, resolution_at

LOG_LINES = 200  # shown
LARGEST_BOX = 128  # of a map in the browser; larger ones are Fourier-cropped
FSC_CURVES = ("corrected", "unmasked", "masked", "phase_randomised")


class RunFolder:
    """A run as its files tell it. `records` are the lines of progress.jsonl, `status` is all else, ready for JSON.

    Args:
        run: folder of `cryogan reconstruct`, running or not.

    Raises:
        InputError: it is not one.
    """

    def __init__(self, run: Path) -> None:
        self.plan = Plan.read(run)
        self.given = run
        self.run = run.resolve()
        self.files = Files(self.run)
        self.records: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {}
        self._read = 0  # bytes of progress.jsonl
        self._last: dict[int, dict[str, Any]] = {}  # record of each half
        self._agreement: tuple[str, dict[str, Any]] | None = None  # of which maps, and their FSC

    def inside(self, path: Path) -> bool:
        """Whether this is a file that lies in the run's folder; a link may lead elsewhere."""
        return path.is_file() and path.resolve().is_relative_to(self.run)

    def maps(self) -> dict[str, tuple[Path, Path]]:
        """Files of the two half maps by a name for their time, in its order."""
        pairs = {}
        for step in self.files.snapshot_steps(1):
            pairs[f"{step:06d}"] = (self.files.snapshot(1, step), self.files.snapshot(2, step))
        # A kept map is the later one once its stage is over.
        latest = (self.files.latest(1), self.files.latest(2))
        kept = [pair for pair in pairs.values() if all(map(self.inside, pair))]
        if all(map(self.inside, latest)) and (not kept or _written(latest) > _written(kept[-1])):
            pairs["latest"] = latest
        pairs |= {"final": self.files.half_maps, "refined": self.files.refined.half_maps}
        return {name: pair for name, pair in pairs.items() if all(map(self.inside, pair))}

    def figures(self) -> dict[str, Path]:
        """Pictures of the run by name."""
        views = [folder.figure("view_distribution") for folder in (self.files.refined, self.files.poses)]
        views.append(self.files.figure("views"))
        paths = {name: self.files.figure(name) for name in ("gallery", "power_spectra")}
        paths["views"] = next((path for path in views if path.exists()), views[0])
        return {name: path for name, path in paths.items() if self.inside(path)}

    def state(self) -> str:
        """running, stopping, comparing, stopped or finished."""
        return self.files.state()

    def request_stop(self) -> bool:
        """Ask the run to stop with a checkpoint; whether there is one to ask."""
        running = self.state() == "running"
        if running:
            self.files.request_stop()
        return running

    def poll(self) -> bool:
        """Read what is new; whether anything is."""
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
        """The FSC of the last maps of a run that is not finished, half 2 aligned to half 1; takes seconds."""
        steps = [name for name in self.maps() if name.isdigit()]
        if self.status.get("state") == "finished" or not steps:
            return
        if self._agreement is not None and self._agreement[0] == steps[-1]:
            return
        (half1, pixel_size), (half2, _) = (read_volume(path) for path in self.maps()[steps[-1]])
        alignment = align(half2, half1, pixel_size, seed=self.plan.settings.seed)
        curve = fsc(half1, alignment.apply(half2, pixel_size))
        frequency = np.arange(len(curve)) / (len(half1) * pixel_size)
        resolution = resolution_at(curve, pixel_size, 0.143, len(half1))
        text = (
            f"The maps of step {int(steps[-1])}, half 2 aligned to half 1, without a mask: {resolution:.1f} Å at "
            "0.143. Two halves without a structure agree in their outline."
        )
        shown = {"text": text, "frequency": frequency.tolist(), "curves": {"unmasked": _plain(curve)}}
        self._agreement = steps[-1], shown

    def _read_records(self) -> None:
        path = self.files.progress
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
        plan, log = self.plan, self.files.log
        figures = {name: _written([path]) for name, path in self.figures().items()}
        minutes = {f"{record['step']:06.0f}": record["minutes"] for record in self.records if record["half"] == 1}
        maps = []
        for name, pair in self.maps().items():
            label = f"{name} half maps"
            if name.isdigit():
                label = f"step {int(name)}" + (f", {minutes[name]:.1f} min" if name in minutes else "")
            maps.append({"name": name, "label": label, "version": _written(pair)})
        return {
            "title": plan.particles.name,
            "folder": str(self.given),
            "facts": f"{plan.particle_count} {plan.settings.kind}, box {plan.box} px of {plan.pixel_size:.3f} Å, "
            f"{plan.settings.symmetry}",
            "learns_scales": plan.settings.learn_scales,
            "state": self.state(),
            "halves": {half: self._progress(self._last[half]) for half in HALVES if half in self._last},
            "total_steps": plan.total_steps,
            "max_minutes": plan.settings.max_minutes,
            "maps": maps,
            "figures": figures,
            "fsc": self._fsc(),
            "log": "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if self.inside(log) else "",
        }

    def _progress(self, record: dict[str, Any]) -> dict[str, float]:
        step, minutes = min(int(record["step"]), self.plan.total_steps), record["minutes"]
        left = self.plan.cost.minutes_left(step, minutes)
        return {"step": step, "done": self.plan.cost.work(step), "minutes": minutes, "left": left}

    def _fsc(self) -> dict[str, Any] | None:
        """The FSC of the finished half maps, or else of the last ones that were compared."""
        path = self.files.fsc_csv
        if not self.inside(path):
            return None if self._agreement is None else self._agreement[1]
        with path.open() as file:
            rows = list(csv.DictReader(file))
        curves = {name: np.array([float(row[name]) for row in rows]) for name in FSC_CURVES}
        resolution = resolution_at(curves["corrected"], self.plan.pixel_size, 0.143, self.plan.box)
        return {
            "text": f"The finished half maps: {resolution:.1f} Å at 0.143, mask-corrected.",
            "frequency": [float(row["frequency_1_per_A"]) for row in rows],
            "curves": {name.replace("_", "-"): _plain(curve) for name, curve in curves.items()},
        }


@lru_cache(maxsize=32)
def read_bytes(path: Path, written: int) -> tuple[bytes, int, float, float]:
    """A map in 8 bits, x fastest: its voxels, its box, and the densities of 0 and 255.

    Args:
        path: MRC.
        written: the file's time; a file that was written again is read again.
    """
    volume, pixel_size = read_volume(path)
    box = min(len(volume), LARGEST_BOX)
    shown = volume if box == len(volume) else resample(volume, pixel_size, box, pixel_size * len(volume) / box)
    low, high = float(shown.min()), float(shown.max())
    scaled = (shown - low) * (255 / max(high - low, 1e-30))
    return np.rint(scaled).astype(np.uint8).tobytes(), box, low, high


def _written(paths: Sequence[Path]) -> int:
    """When the last of these files was written, in microseconds: JavaScript's numbers hold no nanoseconds."""
    return max(path.stat().st_mtime_ns for path in paths) // 1000


def _plain(curve: np.ndarray) -> list[float | None]:
    """For JSON, which has no NaN."""
    return [float(value) if math.isfinite(value) else None for value in curve]
