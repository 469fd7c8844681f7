"""The recipes for package managers: they ask for what pyproject.toml asks for, and their formats are right."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGING = ROOT / "packaging"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "lazy_loader": "lazy-loader"}
# What the modules of an EasyBuild toolchain hold.
BUNDLES = {
    "SciPy-bundle": {"numpy", "scipy"},
    "PyTorch": {"torch"},
    "Python-bundle-PyPI": {"rich", "jinja2", "tomli-w"},
}


def minima() -> dict[str, str]:
    """The least version of each package that the core and the page need."""
    needed = [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["watch"]]]
    return {one.name: next(iter(one.specifier)).version for one in needed}


def test_the_conda_recipe_needs_the_same() -> None:
    recipe = yaml.safe_load((PACKAGING / "conda" / "recipe.yaml").read_text())
    found = dict(line.split(" >=") for line in recipe["requirements"]["run"])
    assert found.pop("python") == "${{ python_min }}"
    assert recipe["context"]["python_min"] == PROJECT["requires-python"].removeprefix(">=")
    assert {CONDA_NAMES.get(name, name): version for name, version in found.items()} == minima()
    assert recipe["build"]["python"]["entry_points"] == [f"cryogan = {PROJECT['scripts']['cryogan']}"]


def test_the_conda_recipe_renders() -> None:
    rattler_build = pytest.importorskip("rattler_build")
    recipe = rattler_build.Stage0Recipe.from_yaml((PACKAGING / "conda" / "recipe.yaml").read_text())
    (rendered,) = recipe.render(rattler_build.VariantConfig())
    assert rendered.recipe.to_dict()["build"]["noarch"] == "python"


def test_the_spack_package_needs_the_same() -> None:
    tree = ast.parse((PACKAGING / "spack" / "packages" / "py_cryogan" / "package.py").read_text())
    specs = [ast.literal_eval(node.args[0]) for node in ast.walk(tree) if is_call(node, "depends_on")]
    found = dict(re.fullmatch(r"(?:py-)?([\w-]+)@([\d.]+):", spec).groups() for spec in specs)  # type: ignore[union-attr]
    assert f">={found.pop('python')}" == PROJECT["requires-python"]
    assert {found.pop("hatchling"), found.pop("hatch-vcs")} == {"1.26", "0.4"}
    assert found == minima()


def is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def test_the_easyconfig_has_all_that_is_needed() -> None:
    (file,) = (PACKAGING / "easybuild").glob("*.eb")
    config: dict[str, Any] = {}
    exec(compile(file.read_text(), file, "exec"), config)
    assert file.name == f"{config['name']}-{config['version']}-foss-{config['toolchain']['version']}.eb"
    modules = {name for name, _ in config["dependencies"]}
    bundled = set().union(*(names for module, names in BUNDLES.items() if module in modules))
    extensions = {name.replace("_", "-") for name, *_ in config["exts_list"]}
    assert minima().keys() <= bundled | extensions | modules
    assert [name for name, *_ in config["exts_list"]][-1] == "cryogan"


def test_the_versions_of_the_release_agree() -> None:
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert f'default="{version}"' in (PACKAGING / "conda" / "recipe.yaml").read_text()
    assert f'version("{version}"' in (PACKAGING / "spack" / "packages" / "py_cryogan" / "package.py").read_text()
    assert (PACKAGING / "easybuild" / f"CryoGAN-{version}-foss-2025b.eb").is_file()


@pytest.mark.parametrize(
    ("schema", "file"),
    [("citation-file-format", "CITATION.cff"), ("github-workflows", ".github/workflows/release.yml")],
)
def test_files_are_valid_by_their_schemas(schema: str, file: str) -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", ROOT / file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_zenodo_has_what_it_asks_of_software() -> None:
    """By Zenodo's schema of deposits (legacyrecord.json)."""
    record = json.loads((ROOT / ".zenodo.json").read_text())
    assert record["upload_type"] == "software"
    assert record["license"] == PROJECT["license"]
    texts = {"title", "upload_type", "description", "access_right", "license"}
    assert record.keys() == texts | {"creators", "keywords", "related_identifiers"}
    assert all(isinstance(record[name], str) for name in texts)
    assert all(one.keys() <= {"name", "affiliation", "orcid", "gnd"} for one in record["creators"])
    assert {(one["relation"], one["scheme"]) for one in record["related_identifiers"]} == {("cites", "doi")}
