"""When a run makes its steps, and what it takes of a GPU meanwhile. A part of `gpu.py`."""

import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

INTERVAL = 0.5  # seconds between looks


class Watch:
    """Looks at the progress file of a run, and at the GPU, from another thread.

    Args:
        progress: file to which the run adds a line now and then.
        device: device of the run.
    """

    def __init__(self, progress: Path, device: torch.device) -> None:
        self._progress, self._device = progress, device
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_until_the_end)
        self._first = self._last = self._size = 0.0
        self._used: list[float] = []
        self._busy: list[float] = []

    def __enter__(self) -> "Watch":
        self._before, self._start = self._memory(), time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def found(self, seconds: float) -> dict[str, Any]:
        """What was seen of a run that took `seconds` from the beginning.

        Returns:
            Seconds before the first step, of the steps, and after the last, to half a second; of a GPU the largest
            memory, GiB, and the mean share of time in which it was busy, where `nvidia-smi` is there to ask.
        """
        times = {
            "before_s": self._first,
            "steps_s": self._last - self._first,
            "after_s": seconds - self._last,
        }
        if not self._used:
            return times
        looks = self._busy[: round(len(self._busy) * seconds / self._watched)]
        busy = sum(looks) / len(looks) / 100 if looks else None
        return times | {"gpu_gib": (max(self._used) - self._before) / 2**30, "gpu_busy": busy}

    def _look_until_the_end(self) -> None:
        while not self._end.wait(INTERVAL):
            self._look()
        self._watched = time.monotonic() - self._start

    def _look(self) -> None:
        size = self._progress.stat().st_size if self._progress.exists() else 0
        if size > self._size:
            self._size, self._last = size, time.monotonic() - self._start
            self._first = self._first or self._last
        if self._device.type == "cuda":
            self._used.append(self._memory())
            self._busy += self._share()

    def _memory(self) -> float:
        """Bytes of the GPU that all processes take."""
        if self._device.type != "cuda":
            return 0.0
        free, total = torch.cuda.mem_get_info(self._device)
        return float(total - free)

    def _share(self) -> list[float]:
        if shutil.which("nvidia-smi") is None:
            return []
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        asked = subprocess.run(command, capture_output=True, text=True)
        lines = asked.stdout.split()
        index = self._device.index or 0
        return [float(lines[index])] if index < len(lines) and lines[index].isdecimal() else []
