"""One thread for every test, and small particle sets on disk."""

import contextlib
import os
import shlex

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cryogan.cli import main
from cryogan.models.phantom import phantom
from cryogan.simulation import simulate

with contextlib.suppress(ImportError):  # of Playwright: a machine with a GPU may have no browser
    from pages import browser, opened  # noqa: F401  fixtures

torch.set_num_threads(1)

PHANTOM_BOX, PHANTOM_PIXEL = 32, 4.0


@pytest.fixture(scope="session")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 400 particles of the D2 phantom at a high SNR, with noise patches, as `cryogan simulate` writes it.

    Tests read it and do not change it; `copied` gives one that may be spoilt.
    """
    folder = tmp_path_factory.mktemp("simulated") / "set"
    simulate(
        phantom(PHANTOM_BOX, PHANTOM_PIXEL, 1),
        PHANTOM_PIXEL,
        folder,
        count=400,
        snr=10.0,
        max_shift=4.0,
        micrographs=20,
        seed=1,
    )
    return folder


@pytest.fixture
def copied(particles: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the particles' STAR, its text changed by the given replacements, beside the same stacks."""

    def copy(*replacements: tuple[str, str]) -> Path:
        folder = tmp_path / "input"
        folder.mkdir(exist_ok=True)
        text = (particles / "particles.star").read_text()
        for old, new in replacements:
            assert old in text, f"{old!r} is not in the STAR that simulate writes"
            text = text.replace(old, new, 1)
        (folder / "particles.star").write_text(text)
        for name in ("particles.mrcs", "noise.mrcs", "noise.star"):
            if not (folder / name).exists():
                (folder / name).write_bytes((particles / name).read_bytes())
        return folder / "particles.star"

    return copy


@pytest.fixture
def examples(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[list[str]]]:
    """The examples at the end of a command's help, as arguments of `main`."""
    monkeypatch.setenv("COLUMNS", "80")  # a usual terminal: no example is wrapped there

    def of(verb: str) -> list[list[str]]:
        with contextlib.suppress(SystemExit):
            main([verb, "--help"])
        out, err = capsys.readouterr()
        _, found, end = out.partition("Examples:")
        assert found, f"no examples in the help of {verb}: {out[-500:]} {err}"
        return [shlex.split(line)[1:] for line in end.splitlines() if line.strip().startswith("cryogan ")]

    return of
