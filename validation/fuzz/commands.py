"""The table of all options of all commands and their types, read from the commands themselves."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physics_ep import cli
from physics_ep.command_options import Writes, file_mark


@dataclass(frozen=True)
class Option:
    """An option or an argument of a command.

    Attributes
    ----------
    command : str
        Name of the command, its group's first: 'spice import'.
    name : str
        '--seed'; of an argument, its name in Python.
    type : type
        int, float, str, bool or Path.
    file : str
        'reads', 'writes', or empty where it names no file.
    """

    command: str
    name: str
    type: type
    file: str

    @property
    def is_argument(self) -> bool:
        """Whether it stands by its place, and not behind its name."""
        return not self.name.startswith("--")


def option_table() -> dict[str, list[Option]]:
    """Name of each command to all that it takes."""
    app = cli.application({})
    found = {name: list(_options(name, call)) for name, call in _commands(app)}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for name, call in _commands(group.typer_instance):
            found[f"{group.name} {name}"] = list(_options(f"{group.name} {name}", call))
    return found


def _commands(app: Any) -> Iterator[tuple[str, Callable[..., None]]]:
    for command in app.registered_commands:
        yield command.name, command.callback


def _options(command: str, call: Callable[..., None]) -> Iterator[Option]:
    for parameter in inspect.signature(call).parameters.values():
        annotation = parameter.annotation
        mark = file_mark(annotation) if typing.get_args(annotation) else None
        told = next((part for part in typing.get_args(annotation)[1:] if hasattr(part, "param_decls")), None)
        told = parameter.default if told is None and hasattr(parameter.default, "param_decls") else told
        named = [told.default, *(told.param_decls or ())] if told is not None else []
        names = [name for name in named if isinstance(name, str) and name.startswith("--")]
        is_argument = type(told).__name__ == "ArgumentInfo"
        name = names[0] if names else f"--{parameter.name.replace('_', '-')}"
        file = "" if mark is None else "writes" if isinstance(mark, Writes) else "reads"
        yield Option(command, parameter.name if is_argument else name, _plain(annotation), file)


def _plain(annotation: Any) -> type:
    """The type within Annotated, list and `| None`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    return _plain(parts[0]) if parts else str


def is_path(option: Option) -> bool:
    """Whether an option names a file or a folder."""
    return bool(option.file) or issubclass(option.type, Path)
