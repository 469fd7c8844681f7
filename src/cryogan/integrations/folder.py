"""The folder of a job of another program: the name of every file that CryoGAN reads or writes in it.

Nothing here loads PyTorch or NumPy, so that another program can ask at once.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cryogan.run.folder import MapFolder, RunFolder


class End(Enum):
    """How a job ended; the value is the name of the file by which RELION knows."""

    SUCCESS = "RELION_JOB_EXIT_SUCCESS"
    FAILURE = "RELION_JOB_EXIT_FAILURE"
    ABORTED = "RELION_JOB_EXIT_ABORTED"


@dataclass(frozen=True)
class JobFolder(MapFolder):
    """The folder of a job: its maps are in the box and the pixel size of the particles, which others expect."""

    @property
    def run(self) -> RunFolder:
        """The run that makes the maps, at its working box."""
        return RunFolder(self.path / "run")

    @property
    def noise(self) -> Path:
        """Folder of the background patches that the job cuts itself."""
        return self.path / "noise"

    @property
    def output_nodes(self) -> Path:
        """What RELION's other jobs can take."""
        return self.path / "RELION_OUTPUT_NODES.star"

    @property
    def abort_request(self) -> Path:
        """A file that RELION makes to stop the job."""
        return self.path / "RELION_JOB_ABORT_NOW"

    def end(self, how: End) -> Path:
        """The file that says how the job ended."""
        return self.path / how.value

    def source(self, *, refined: bool) -> MapFolder:
        """Where the particles, the FSC and the maps at the working box are: in the run, or in its refinement."""
        return self.run.refined if refined else self.run
