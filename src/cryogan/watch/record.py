"""What `run.toml` says of a run, read without PyTorch or anything of the training."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from cryogan.config import Settings, validate
from cryogan.errors import InputError
from cryogan.run.folder import RunFolder


@dataclass(frozen=True)
class RunRecord:
    """Settings and resolved numbers of a run.

    Attributes:
        settings: settings of the run.
        particles: the particle file.
        particle_count: number of particles of both halves.
        box: working box, pixels.
        pixel_size: pixel size at the working box, A.
        total_steps: volume updates of all stages.
    """

    settings: Settings
    particles: Path
    particle_count: int
    box: int
    pixel_size: float
    total_steps: int

    @classmethod
    def read(cls, run: Path) -> "RunRecord":
        """Read the record of the run in a folder.

        Raises:
            InputError: the folder has no readable `run.toml`.
        """
        file = RunFolder(run).record
        try:
            record = tomllib.loads(file.read_text())
            plan = record["plan"]
            return cls(
                validate(record["settings"], f"{file}: "),
                Path(plan["particles"]),
                int(plan["particle_count"]),
                int(plan["box"]),
                float(plan["pixel_size"]),
                sum(int(stage["steps"]) for stage in plan["stages"]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{run} is not the folder of a run: cannot read {file} ({error}).") from error
