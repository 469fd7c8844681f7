"""Repeats of a run from different seeds: their folder, and the record from which they go on."""

import tomllib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from cryogan.config import Settings, validate
from cryogan.errors import InputError
from cryogan.files import replacing, require_new
from cryogan.run.comparison import RunComparison, figure_path, record_path
from cryogan.run.folder import RunFolder

_PATHS = ("particles", "noise", "data_dir", "cache")


@dataclass(frozen=True)
class Repeats:
    """What is repeated, and how often.

    Attributes:
        count: number of runs, two or more.
        settings: of the first run; the seeds of the others are one, two, ... higher.
        particles: the user's particle file.
        noise: the user's file of background patches.
        data_dir: where else image stacks are looked for.
        cache: folder of the particles at the working box.
    """

    count: int
    settings: Settings
    particles: Path
    noise: Path | None = None
    data_dir: Path | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.count < 2:
            raise InputError(f"--repeats {self.count} leaves nothing to compare. Give 2 or more, such as 3.")

    def settings_of(self, number: int) -> Settings:
        """Return the settings of a run, counted from 1."""
        return self.settings.model_copy(update={"seed": self.settings.seed + number - 1})

    def absolute(self) -> "Repeats":
        """Return the same with paths that hold in any folder."""
        noise, data_dir, cache = (path and path.absolute() for path in (self.noise, self.data_dir, self.cache))
        return replace(self, particles=self.particles.absolute(), noise=noise, data_dir=data_dir, cache=cache)


class RepeatsFolder:
    """The folder of `cryogan reconstruct --repeats`; it need not exist.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def record(self) -> Path:
        """What is repeated, with the names of `Settings` under [settings]; a folder with this file can be resumed."""
        return self.path / "repeats.toml"

    def run(self, number: int) -> RunFolder:
        """Return the folder of a run, counted from 1."""
        return RunFolder(self.path / f"repeat{number}")

    @property
    def best(self) -> Path:
        """A link to the best run's folder."""
        return self.path / "best"

    @property
    def readme(self) -> Path:
        """The answer, and where what is, for people."""
        return self.path / "README.txt"

    @property
    def is_repeats(self) -> bool:
        """Whether repeats were begun here."""
        return self.record.is_file()

    def begin(self, repeats: Repeats) -> None:
        """Record what is repeated; the same again, or with more or fewer runs, goes on with what is there.

        Raises:
            InputError: the folder holds something else, or repeats of something else.
        """
        if not self.is_repeats:
            require_new(self.path, "Give another --out.")
        elif replace(self.read(), count=repeats.count) != repeats.absolute():
            raise InputError(
                f"{self.path} has repeats with other particles or settings. Give another --out, or --resume "
                f"{self.path} to go on with these."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        fixed = repeats.absolute()
        inputs = {name: str(path) for name in _PATHS if (path := getattr(fixed, name)) is not None}
        record = {
            "repeats": {"count": repeats.count, **inputs},
            "settings": repeats.settings.model_dump(exclude_none=True),
        }
        with replacing(self.record) as temporary:
            temporary.write_text(tomli_w.dumps(record))

    def forget_if_empty(self) -> None:
        """Leave nothing behind of repeats of which the first run could not begin."""
        if not self.run(1).is_run:
            self.record.unlink(missing_ok=True)
            with suppress(OSError):
                self.path.rmdir()

    def read(self) -> Repeats:
        """Return what is repeated here.

        Raises:
            InputError: the record cannot be read.
        """
        try:
            record: dict[str, Any] = tomllib.loads(self.record.read_text())
            repeats: dict[str, Any] = record["repeats"]
            paths = {name: Path(repeats[name]) for name in _PATHS if name in repeats}
            return Repeats(repeats["count"], validate(record["settings"], f"{self.record}: "), **paths)
        except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{self.path} has no readable record of repeats, {self.record} ({error}).") from error

    def offer(self, comparison: RunComparison) -> None:
        """Offer the best run as `best`, where there is one, and write the README."""
        best, readme = comparison.best, [*comparison.table(), ""]
        self.best.unlink(missing_ok=True)
        if best is None:
            readme.append("No run is offered as the best: look at the picture and at each run.")
        else:
            with suppress(OSError):  # a file system without links; the README names the folder
                self.best.symlink_to(best.folder.name, target_is_directory=True)
            readme.append(f"The best run is {best.folder.name}/; the link {self.best.name}/ leads there.")
        readme += ["", *(finding.sentence for finding in comparison.findings)]
        readme += [
            f"{record_path(self.path).name}: this comparison for a program",
            f"{figure_path(self.path).name}: correlations, and slices of the aligned maps",
            f"{self.record.name}: what was repeated",
            f"{self.run(1).path.name}/, ...: a run each, with its own README.txt and report.html",
        ]
        self.readme.write_text("\n".join(readme) + "\n")
