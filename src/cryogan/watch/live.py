"""The state of a data collection that is followed, read from its folder for all who watch it."""

import json
from pathlib import Path
from typing import Any

from cryogan.errors import InputError
from cryogan.live.folder import LiveFolder
from cryogan.watch.run import written


class WatchedLive:
    """A collection as the files of `cryogan live` show it, with the interface of `WatchedRun`.

    Args:
        path: folder of `cryogan live`.

    Attributes:
        records: empty: everything is in `status`.
        status: what the page shows, ready for JSON.

    Raises:
        InputError: the folder is another.
    """

    page = "live.html"
    end_of_page = "Ctrl-C ends it"

    def __init__(self, path: Path) -> None:
        """Look for the folder's record; `poll` reads the rest."""
        self._given, self._folder = path, LiveFolder(path.resolve())
        if not self._folder.is_live:
            raise InputError(f"{path} is not the folder of cryogan live. Give another folder.")
        self.records: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {}

    def maps(self) -> dict[str, tuple[Path, Path]]:
        """Files of the two half maps by a name for their time, in its order; of thinned maps there are none."""
        pairs = {f"{number:04d}": self._folder.map_run(number).half_maps for number in self._folder.map_numbers()}
        pairs["final"] = self._folder.final.half_maps
        return {name: pair for name, pair in pairs.items() if all(path.is_file() for path in pair)}

    def figures(self) -> dict[str, Path]:
        """Pictures of the collection: none, the page draws all."""
        return {}

    def request_stop(self) -> bool:
        """Ask to stop; return whether there is a process to ask."""
        busy = self._folder.is_busy
        if busy:
            self._folder.stop_request.touch()
        return busy

    def poll(self) -> bool:
        """Read what is new; return whether anything is."""
        lists = ("alerts", "course", "portions", "squares", "micrographs")
        status: dict[str, Any] = {"state": "starting", **{name: [] for name in lists}}
        try:
            status = json.loads(self._folder.status.read_text())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # a file system that is away may come back
            status |= self.status | {"state": "unreadable", "task": str(error)}
        counts = {
            f"{one['number']:04d}": f"map {one['number']}, {one['particles']} particles" for one in status["course"]
        }
        status |= {
            "folder": str(self._given),
            "busy": self._folder.is_busy,
            "maps": [
                {"name": name, "label": counts.get(name, "final run"), "version": written(pair)}
                for name, pair in self.maps().items()
            ],
        }
        changed = bool(status != self.status)
        self.status = status
        return changed

    def compare(self) -> None:
        """Compute nothing: the maps are compared when they are made."""
