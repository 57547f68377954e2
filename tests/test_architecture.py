"""The house rules of CONTRIBUTING, read off the sources with `ast`: who may import whom and what."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ["physics_ep", "hardware_models", "validation", "figures"]
COMMAND_FILES = {"cli.py", "commands.py", "command_options.py"}


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


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_down_the_house_only(package: str) -> None:
    """physics_ep <- hardware_models <- validation <- figures: theory must not know devices, devices not judges."""
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    for path in sources(package):
        assert not imports(path) & above, path


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("numba", lambda path: path.parts[-2:] == ("hardware_models", "kernels.py")),
        ("matplotlib", lambda path: "figures" in path.parts),
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


def test_no_file_is_too_long() -> None:
    """A file over some 450 lines usually holds two things."""
    for package in PACKAGES:
        for path in sources(package):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path
