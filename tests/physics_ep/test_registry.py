"""Commands and systems are found, built from checked options, and named when they fail."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import physics_ep
from physics_ep import entries as tables
from physics_ep import registry
from physics_ep.errors import InputError
from physics_ep.system import EnergySystem


class Spring(EnergySystem):
    """Smallest system: one block that follows its input."""

    def __init__(self, stiffness: float, ends: Sequence[int] = (1, 2), label: str | None = None) -> None:
        super().__init__()
        if stiffness < 0:
            raise ValueError("stiffness below 0\nis no spring")
        self.stiffness = torch.nn.Parameter(torch.tensor(float(stiffness)))


@pytest.fixture
def spring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register `Spring`, as another package's plug-in would."""
    entry = EntryPoint("spring", f"{__name__}:Spring", "physics_ep.systems")
    known = {**registry.systems(), "spring": entry}
    monkeypatch.setattr(registry, "systems", lambda: known)


def test_tables_of_the_source_tree_are_found() -> None:
    """If this fails, a source tree that is not installed has no commands, or an old set of them."""
    assert registry.commands()["core"].value == "physics_ep.commands:register"
    assert "hopfield" in registry.systems()


def test_plugins_of_installed_metadata_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a user's own package cannot plug in; and none may take the place of our own entries."""
    theirs = [
        EntryPoint("theirs", "their.package:System", "physics_ep.systems"),
        EntryPoint("hopfield", "their.package:Impostor", "physics_ep.systems"),
    ]
    monkeypatch.setattr(tables, "entry_points", lambda group: theirs)
    tables.entries.cache_clear()
    try:
        found = registry.systems()
        assert found["theirs"].value == "their.package:System"
        assert found["hopfield"].value == "hardware_models.hopfield:HopfieldNetwork"
    finally:
        tables.entries.cache_clear()


def test_options_reach_the_constructor(spring: None) -> None:
    """If this fails, a config's [system] section is read but has no effect."""
    system = registry.build_system("spring", stiffness=2.5, ends=[3, 4])
    assert system.stiffness.item() == 2.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stifness": 1.0}, "Did you mean 'stiffness'?"),
        ({}, "Argument stiffness of system 'spring' must be given"),
        ({"stiffness": "stiff"}, "Argument stiffness of system 'spring' must be a valid number, but was 'stiff'"),
        ({"stiffness": True}, "Argument stiffness of system 'spring'"),
        ({"stiffness": float("nan")}, "Argument stiffness of system 'spring' must be finite"),
        ({"stiffness": 1.0, "ends": [1, "2"]}, "Argument ends of system 'spring'"),
        ({"stiffness": 1.0, "ends": [1.0, float("inf")]}, "Argument ends of system 'spring' must be finite"),
        ({"stiffness": -1.0}, "stiffness below 0 is no spring"),
    ],
)
def test_bad_options_are_named(spring: None, options: dict[str, object], words: str) -> None:
    """If this fails, a wrong option ends in a traceback from deep inside a constructor, or goes unnoticed."""
    with pytest.raises(InputError) as caught:
        registry.build_system("spring", **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_system_names_the_nearest() -> None:
    """If this fails, a typing error leaves the user guessing."""
    with pytest.raises(InputError, match="Did you mean 'hopfield'"):
        registry.build_system("hopfeld")


def test_entry_that_cannot_be_imported_is_named() -> None:
    """If this fails, a broken plug-in cannot be told from a broken program."""
    with pytest.raises(InputError, match=r"Entry 'gone' .* cannot be loaded: No module named 'nowhere'"):
        registry.load(EntryPoint("gone", "nowhere.at_all:thing", "physics_ep.systems"))


def test_all_public_names_are_lazy_and_there() -> None:
    """If this fails, `from physics_ep import NAME` of the contract fails, or importing the package waits for
    torch."""
    for name in physics_ep.__all__:
        assert getattr(physics_ep, name) is not None
    assert set(physics_ep.__all__) <= set(dir(physics_ep))
    with pytest.raises(AttributeError, match="no attribute 'relaxx'"):
        _ = physics_ep.relaxx


def test_typer_and_rich_stay_in_command_files() -> None:
    """If this fails, core functions depend on a terminal and the help on everything."""
    command_files = {"cli.py", "commands.py", "command_options.py"}
    for path in Path(physics_ep.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
        roots = {name.partition(".")[0] for name in imported}
        assert path.name in command_files or not roots & {"typer", "rich"}, path
