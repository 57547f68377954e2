"""The house rules of CONTRIBUTING, read off the sources with `ast`: who may import whom and what."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from tests.support.imports import Edges, circles, edges
from tests.support.paths import ROOT

PACKAGES = ["physics_ep", "hardware_models", "validation", "figures"]
COMMAND_FILES = {"cli.py", "commands.py", "command_options.py"}

UPWARD: dict[tuple[str, str], str] = {}
"""Imports in functions that lead to a folder above, and the promise in README or interface that each one keeps."""

LONG: dict[str, str] = {
    "hardware_models/devices/model.py": "a device is one table of fields, each with its meaning beside its rule",
    "physics_ep/physical_system.py": "a system hands out its phase, and a phase asks its system: one contract",
}
"""Files of over 700 lines, and why each holds one idea all the same."""


@cache
def imports(path: Path, *, module_level: bool = False) -> set[str]:
    """Top-level packages that a file imports; relative imports are its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if module_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@cache
def house() -> Edges:
    """Who imports whom in all packages, read once for all tests."""
    return edges(ROOT, PACKAGES)


def folder(module: str) -> str:
    """Folder of a file; a file in front of its package is a room of its own."""
    parts = module.split(".")
    return ".".join(parts[:2])


# -- directions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_down_the_house_only(package: str) -> None:
    """physics_ep <- hardware_models <- validation <- figures: theory must not know devices, devices not judges."""
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    for path in sources(package):
        assert not imports(path) & above, path


def test_no_files_import_each_other_in_a_circle() -> None:
    """In a circle no file can be understood, tested or moved without all others."""
    assert circles(house()) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    """Every folder imports folders below it only, but for the promises listed above."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module, targets in house().items():
        for target in targets:
            if folder(target) != folder(module) and (module, target) not in UPWARD:
                graph[folder(module)].add(folder(target))
    assert circles(graph) == []


def test_promises_upwards_are_still_needed() -> None:
    """A row of `UPWARD` that no file needs would hide a new circle."""
    real = house()
    for module, target in UPWARD:
        assert target in real.get(module, {}), (module, target)


@pytest.mark.parametrize(
    "planted",
    [
        "def late():\n    from .above import roof\n",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from .above import roof\n",
        "def late():\n    from . import roof\n",
        "import house.above\n",
    ],
    ids=["in a function", "for types", "through a face", "absolute"],
)
def test_planted_circles_are_found(tmp_path: Path, planted: str) -> None:
    """A circle hidden in a function, under TYPE_CHECKING or behind a face is a circle."""
    house = tmp_path / "house"
    house.mkdir()
    (house / "__init__.py").write_text("from .above import roof as roof\n", encoding="utf-8")
    (house / "above.py").write_text("from .below import floor\n\nroof = floor\n", encoding="utf-8")
    below = house / "below.py"
    below.write_text("floor = 1\n", encoding="utf-8")
    assert circles(edges(tmp_path, ["house"])) == []
    below.write_text("floor = 1\n" + planted, encoding="utf-8")
    assert circles(edges(tmp_path, ["house"])) == [["house.above", "house.below"]]


# -- rooms ---------------------------------------------------------------------------------------------------------


def test_every_folder_is_a_package_that_is_shipped() -> None:
    """Without an `__init__.py`, equal names of tests clash. What `.gitignore` names, git does not add, ruff does
    not read and a wheel does not hold: `runs/`, meant for what trainings leave, once took physics_ep/runs along."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = {line.rstrip("/") for line in lines if line.endswith("/")}
    for package in [*PACKAGES, "tests"]:
        for room in {path.parent for path in sources(package)}:
            assert (room / "__init__.py").is_file(), room
            assert not ignored & set(room.relative_to(ROOT).parts), room


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("numba", lambda path: path.parts[-2:] in (("laws", "compiled.py"), ("laws", "cache.py"))),
        ("matplotlib", lambda path: path.parts[0] == "figures"),
        ("typer", lambda path: path.name in COMMAND_FILES),
        ("rich", lambda path: path.name in COMMAND_FILES),
    ],
)
def test_libraries_stay_in_their_rooms(library: str, allowed) -> None:
    """Compilers, plots and terminals each have one place."""
    for package in PACKAGES:
        for path in sources(package):
            if library in imports(path):
                assert allowed(path.relative_to(ROOT)), path


def test_command_files_import_nothing_heavy() -> None:
    """`--help` in half a second: torch and its like are imported inside functions there."""
    heavy = {"torch", "numpy", "scipy", "numba", "h5py", "pydantic", "matplotlib", "pooch"}
    for package in PACKAGES:
        for path in sources(package):
            if path.name in COMMAND_FILES:
                assert not imports(path, module_level=True) & heavy, path


def test_long_files_have_a_reason() -> None:
    """A file holds one idea; over 700 lines it usually holds two."""
    long = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        if len(path.read_text(encoding="utf-8").splitlines()) > 700
    }
    assert long == set(LONG)


def test_one_class_name_is_one_class() -> None:
    """A search for a class finds one; two of a name are confused in tracebacks and in talk."""
    homes: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sources(package):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    homes[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
