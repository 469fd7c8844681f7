"""The command line beside people and in pipelines: examples, completion, JSON, silence, colours, a folder that explains
itself."""

import fnmatch
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryogan.cli import app, main
from cryogan.models.phantom import phantom
from cryogan.particles import write_volume
from cryogan.simulation import simulate

QUICK = "--max-shift 4 --starts 1 --orientations 200 --search-steps 3 --search-batch 30 --marching-steps 1 "
QUICK += "--marching-images 60"
# In an order in which each has what those before it made; extract-noise and extract-patches have their micrographs
# in test_extraction.py and test_patches.py.
VERBS = [
    "doctor",
    "check",
    "simulate",
    "reconstruct",
    "compare",
    "verdict",
    "reslog",
    "figures",
    "refine",
    "deposit",
    "poses",
    "align",
    "flip-hand",
    "symmetrise",
    "symmetry",
    "fsc",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples name."""
    folder = tmp_path_factory.mktemp("examples") / "data"
    volume = phantom(32, 4.0, 1)
    simulate(volume, 4.0, folder, count=120, snr=10.0, max_shift=4.0, micrographs=10)
    generator = np.random.default_rng(0)
    for name in ("map", "reference", "half1", "half2", "a", "b"):
        noise = 0.05 * generator.standard_normal(volume.shape)
        write_volume(folder / f"{name}.mrc", volume + noise, 4.0)
    write_volume(folder / "mask.mrc", (volume > 0.01).astype(np.float32), 4.0)
    return folder


def test_every_verb_has_examples(examples: Callable[[str], list[list[str]]]) -> None:
    verbs = {name for name in app if not name.startswith("-")}
    assert verbs == {*VERBS, "extract-noise", "extract-patches", "watch", "live", "submit", "cryosparc"}
    for verb in verbs:
        assert examples(verb)
        assert {example[0] for example in examples(verb)} == {verb}


@pytest.fixture
def answers(
    examples: Callable[[str], list[list[str]]],
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], list[dict[str, Any]]]:
    """Run the examples of a verb for a pipeline; the JSON objects that they wrote."""
    monkeypatch.chdir(place)

    def of(verb: str) -> list[dict[str, Any]]:
        objects = []
        for example in examples(verb):
            quick = QUICK.split() if verb == "reconstruct" and "--resume" not in example else []
            main([*example, *quick, "--quiet", *([] if "--json" in example else ["--json"])])
            output = capsys.readouterr()
            assert output.err == ""
            assert len(output.out.splitlines()) == 1
            objects.append(json.loads(output.out))
        return objects

    return of


def test_examples_run_and_answer_in_json(answers: Callable[[str], list[dict[str, Any]]], place: Path) -> None:
    told = {verb: answers(verb) for verb in VERBS}
    for objects in told.values():
        for record in objects:
            for name in ("map", "particles", "report", "noise", "folder", "truth"):
                assert name not in record or (place / record[name]).exists()
    assert "torch" in told["doctor"][0]["facts"]["packages"]
    assert "120 particles" in told["check"][0]["facts"]["particles"]
    assert all(isinstance(doubt, str) for doubt in told["check"][0]["doubts"])
    assert (place / "particles.png").exists()
    run, resumed, repeats = told["reconstruct"]
    others = [resumed, *told["figures"]]
    assert len(others) == 2
    for other in others:  # which say nothing of the input
        assert [finding for finding in run["findings"] if finding in other["findings"]] == other["findings"]
        assert other | {"findings": run["findings"]} == run
    assert run["folder"] == "run"
    assert 0 < run["resolution_A"] <= run["resolution_unmasked_A"] * 1.5
    assert isinstance(run["converged"], bool)
    assert told["verdict"][0]["held_out_A"] == run["held_out_A"]
    assert [len(answer["runs"]) for answer in (repeats, *told["compare"])] == [3, 2]
    assert all((place / one["folder"] / "verdict" / "verdict.json").exists() for one in repeats["runs"])
    assert repeats["correlation"][0][1] == told["compare"][0]["correlation"][0][1]
    assert len(told["reslog"][0]["particle_counts"]) == 4
    assert told["refine"][0]["map"] == "run/refined/map.mrc"
    assert told["poses"][0]["particles"] == "run/poses/particles.star"
    assert told["align"][0]["correlation"] > 0.8
    assert len(told["align"][0]["rotation"]) == 3
    assert told["symmetrise"][0]["correlation"] > 0.8
    assert all("suggested" in answer for answer in told["symmetry"])
    assert told["fsc"][0]["resolution_A"]["unmasked"]["0.143"] > 0
    _explains_itself(place / "run")


OTHERS = ("refined/*", "poses/*", "reslog/*", "deposit/*")  # in the run's folder, made by other commands


def _explains_itself(run: Path) -> None:
    text = (run / "README.txt").read_text()
    named = [name for line in text.splitlines() if line.startswith("  ") for name in re.split(r",\s*", line.strip())]
    patterns = [name + "*" if name.endswith("/") else name for name in named]
    made = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    for file in made - {"README.txt"}:
        hidden = Path(file).name.startswith(".")
        assert hidden or any(fnmatch.fnmatch(file, pattern) for pattern in [*patterns, *OTHERS]), file
    files = text[: text.index("Commands")]
    for name in re.findall(r"^  (\S.*)$", files, re.MULTILINE):
        for file in name.split(", "):
            assert (run / file).exists() or file == "local_resolution.mrc", file  # the halves may hardly agree
    verbs = re.findall(r"^  cryogan (\S+) ", text, re.MULTILINE)
    assert verbs == ["reconstruct", "watch", "figures", "deposit", "refine", "verdict", "symmetry", "reslog", "poses"]
    assert set(verbs) <= set(app)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fsc", "no.mrc", "no.mrc", "--out", "out"], "no.mrc: cannot be read"),
        (["reconstruct", "--simmetry", "D2"], "--symmetry"),
        (["reconstruct", "no.star", "--out", "out", "--batch-size", "0"], "batch_size"),
    ],
)
def test_errors_in_json(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert output.err == ""
    (line,) = output.out.splitlines()
    assert list(json.loads(line)) == ["error"]
    assert word in json.loads(line)["error"]


def test_what_is_not_finite_is_null(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        noise = np.random.default_rng(ord(name)).standard_normal((16, 16, 16))
        write_volume(tmp_path / f"{name}.mrc", noise - noise.mean(), 4.0)
    main(["--json", "fsc", str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), "--out", str(tmp_path / "fsc")])
    told = json.loads(capsys.readouterr().out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert set(told["resolution_A"]["unmasked"]) == {"0.5", "0.143"}


def on_a_terminal(environment: dict[str, str]) -> str:
    """What a refused command writes to a terminal."""
    ours, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "cryogan.cli", "fsc", "no.mrc", "no.mrc", "--out", "out"]
    done = subprocess.run(command, stderr=theirs, env=clean | {"TERM": "xterm"} | environment)
    os.close(theirs)
    output = os.read(ours, 10000).decode()
    os.close(ours)
    assert done.returncode == 2
    assert "no.mrc: cannot be read" in output
    return output


def test_no_color_is_honoured() -> None:
    assert "\x1b[31m" in on_a_terminal({})
    assert "\x1b" not in on_a_terminal({"NO_COLOR": "1"})


@pytest.mark.parametrize(
    "arguments", [["--help"], ["reconstruct", "--help"], ["doctor"], ["fsc", "a", "a", "--out", "o"]]
)
def test_no_escape_codes_in_a_pipe(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "cryogan.cli", *arguments]
    unforced = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    done = subprocess.run(command, capture_output=True, text=True, env=unforced | {"TERM": "xterm-256color"})
    assert done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_reader_that_has_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "cryogan.cli", "doctor"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("cryogan rec", "reconstruct"),
        ("cryogan reconstruct --sym", "--symmetry"),
        ("cryogan simulate --noise ", "coloured"),
        ("cryogan --q", "--quiet"),
    ],
)
def test_bash_completes(typed: str, offered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where .bashrc gets a line
    main(["--install-completion", "--shell", "bash", "--output", str(tmp_path / "cryogan.bash")])
    words = typed.split(" ")
    script = (
        f"source {tmp_path / 'cryogan.bash'}; COMP_WORDS=({' '.join(words) if words[-1] else typed + repr('')}); "
        f'COMP_CWORD={len(words) - 1}; COMP_LINE={typed!r}; _cryogan; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert offered in done.stdout.split()
