"""What a release consists of agrees with itself. If these fail, a package says another version, or other needs,
than the code has."""

from __future__ import annotations

import re
import tomllib

import yaml

from physics_ep import __version__
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Names that conda-forge has for packages of PyPI."""


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_versions_agree() -> None:
    """The version stands in one file, which pyproject reads; citation, page and recipe repeat it."""
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "physics_ep/version.py"
    assert f'__version__ = "{__version__}"' in text_of("physics_ep/version.py")
    assert f"version: {__version__}" in text_of("CITATION.cff")
    assert f"version = {{{__version__}}}" in text_of("docs/about/citing.md")


def test_the_conda_recipe_has_the_needs_of_the_project() -> None:
    recipe = yaml.safe_load(text_of("packaging/conda/recipe.yaml"))
    assert recipe["context"]["version"] == __version__
    needs = {name: bound for name, bound in (need.split(">=") for need in PROJECT["project"]["dependencies"])}
    wanted = {f"{CONDA.get(name, name)} >={bound}" for name, bound in needs.items()}
    wanted |= {f"python {PROJECT['project']['requires-python']}", "ngspice"}
    assert set(recipe["requirements"]["run"]) == wanted
    (backend,) = PROJECT["build-system"]["requires"]
    assert backend.replace("==", " ==") in recipe["requirements"]["host"]
    (command,) = PROJECT["project"]["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(command)]


def test_the_image_has_the_tested_torch_and_what_it_copies() -> None:
    """torch is the CPU's build, in the version that is pinned; a source that is not there would end the build."""
    docker = text_of("packaging/Dockerfile")
    (pinned,) = re.findall(r"^torch==\S+$", text_of("constraints.txt"), re.MULTILINE)
    assert f"pip install --no-cache-dir {pinned} --index-url https://download.pytorch.org/whl/cpu" in docker
    kept = set(re.findall(r"^!(\S+)$", text_of(".dockerignore"), re.MULTILINE))
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", docker, re.MULTILINE)
    assert {name for line in sources for name in line.split()} == kept
    assert all((ROOT / name).exists() for name in kept)
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= kept


def test_all_that_a_release_shows_is_in_the_source_archive() -> None:
    """Each folder and page that tests or pages of the archive read; and the logos that the README shows."""
    include = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for name in ("tests", "docs", "examples", "packaging", "constraints.txt", "CHANGELOG.md", "CITATION.cff"):
        assert f"/{name}" in include
    assert all((ROOT / name.lstrip("/")).exists() for name in include)
