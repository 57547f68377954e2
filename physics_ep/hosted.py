"""Systems that compute on the CPU only: a command refuses another device by name, before it waits for torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import InputError, argument_error
from .registry import bundled, hosted, load, systems
from .storage.texts import parse_toml, read_text, set_entry


def require_host(
    subject: str | None, device: str | None, overrides: Iterable[str] = (), *, training: bool = False
) -> None:
    """Refuse a device for a registered system that computes on the CPU only (`registry.hosted`).

    Imports no torch. What it cannot tell without, such as the system of a run file, is left to the system itself,
    which refuses when it is moved (`placement.OnHost`).

    Parameters
    ----------
    subject : str or None
        What CONFIG or SYSTEM says on the command line.
    device : str or None
        What --device says.
    overrides : iterable of str
        What --set says.
    training : bool
        Whether the command computes where [training] says, unless --device says otherwise.

    Raises
    ------
    InputError
        If the system computes on the CPU only, and the device is another.
    """
    if subject is None or (device is None and not training):
        return
    settings = _settings(subject, overrides)
    named = "device" if device is not None else "training.device"
    where = device if device is not None else _entry(settings, "training", "device")
    name = _entry(settings, "system", "name")
    if where is None or where.partition(":")[0] == "cpu" or name not in hosted():
        return
    raise argument_error(named, f"be 'cpu' for {name!r}, which {load(hosted()[name])}", repr(where))


def _settings(subject: str, overrides: Iterable[str]) -> dict[str, Any]:
    """What a name, a bundled config or a TOML file tells, with overrides; nothing of those that are wrong.

    The command says what is wrong with them.
    """
    if subject in systems():
        table: dict[str, Any] = {"system": {"name": subject}}
    else:
        path = bundled().get(subject, Path(subject))
        if path.suffix != ".toml":
            return {}
        try:
            table = parse_toml(read_text(path, "config"))
        except (InputError, ValueError):
            return {}
    try:
        for override in overrides:
            set_entry(table, override)
    except InputError:
        return {}
    return table


def _entry(settings: dict[str, Any], section: str, key: str) -> str | None:
    """A text in a section; None where there is none."""
    table = settings.get(section)
    value = table.get(key) if isinstance(table, dict) else None
    return value if isinstance(value, str) else None
