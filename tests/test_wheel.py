"""The package as it is released: built, checked, and run from an environment that holds nothing else."""

import email
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NOT_IN_THE_CORE = ("plotly", "starlette", "uvicorn", "cryosparc-tools", "pytest")
FEW = ("--orientations=100", "--search-steps=1", "--search-batch=20", "--starts=1", "--marching-steps=1")


def output(*command: object, cwd: Path, code: int = 0) -> str:
    """What a command writes; nothing of this environment reaches it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the source archive, and of the wheel that is built from it."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    output(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_is_whole(built: Path, wheel: Path) -> None:
    output(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    output(sys.executable, "-m", "check_wheel_contents", "--config", ROOT / "pyproject.toml", wheel, cwd=built)
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("cryogan/")}
    tracked = output("git", "ls-files", "src/cryogan", cwd=ROOT).split() if (ROOT / ".git").exists() else []
    assert packed >= {name.removeprefix("src/") for name in tracked} | {"cryogan/_version.py"}
    assert len(packed) < 300
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        assert any(name.endswith("/packaging/conda/recipe.yaml") for name in opened.getnames())


def torch_alone(folder: Path) -> Path:
    """A folder with this environment's PyTorch and what it needs, since it is large."""
    folder.mkdir()
    wanted = ["torch"]
    for name in wanted:  # grows
        distribution = metadata.distribution(name)
        parts = {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for part in parts:
            if not (folder / part).exists():
                (folder / part).symlink_to(Path(str(distribution.locate_file(part))).absolute())
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if (requirement.marker is None or requirement.marker.evaluate({"extra": ""})) and (
                requirement.name not in wanted
            ):
                wanted.append(requirement.name)
    return folder


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """All dependencies but PyTorch are installed from pip's sources."""
    venv.create(tmp_path / "env", with_pip=True)
    python, cryogan = (tmp_path / "env" / "bin" / name for name in ("python", "cryogan"))
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "torch.pth").write_text(f"{torch_alone(tmp_path / 'torch')}\n")
    output(python, "-m", "pip", "install", wheel, cwd=tmp_path)
    installed = {line.split()[0].lower() for line in output(python, "-m", "pip", "list", cwd=tmp_path).splitlines()}
    assert "cryogan" in installed
    assert installed.isdisjoint(NOT_IN_THE_CORE)
    version = email.message_from_bytes(
        next(zipfile.ZipFile(wheel).read(n) for n in zipfile.ZipFile(wheel).namelist() if n.endswith("/METADATA"))
    )["Version"]
    assert output(cryogan, "--version", cwd=tmp_path).strip() == version
    output(cryogan, "simulate", "--box", 16, "--pixel-size", 8, "--particles", 100, "--out", "set", cwd=tmp_path)
    assert "particles" in output(cryogan, "check", "set/particles.star", cwd=tmp_path)
    output(cryogan, "reconstruct", "set/particles.star", *FEW, "--marching-images=32", "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run" / "report.html").is_file()
    refused = output(cryogan, "watch", "run", cwd=tmp_path, code=2)
    assert "python -m pip install 'cryogan[watch]'" in refused.replace("\n", "")
    output(python, "-m", "pip", "install", "cryogan[watch]", cwd=tmp_path)  # the line that it says
    port = output(cryogan, "watch", "run", "--prefix", "node", cwd=tmp_path, code=2)
    assert "--prefix node is not a path" in port  # the web server is there, and refuses
