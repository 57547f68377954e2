"""Systems that compute on the CPU only: a command refuses another device by name, before it waits for torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import InputError, argument_error
from .registry import bundled, hosted, load, systems
from .storage.texts import parse_toml, read_text


def require_host(subject: str | None, device: str | None, overrides: Iterable[str] = ()) -> None:
    """Refuse a device for a registered system that computes on the CPU only (`registry.hosted`).

    Imports no torch. What it cannot tell without, such as the system of a run file or an override of [system], is
    left to the system itself, which refuses when it is moved (`placement.OnHost`).

    Parameters
    ----------
    subject : str or None
        What CONFIG or SYSTEM says on the command line.
    device : str or None
        What --device says.
    overrides : iterable of str
        What --set says.

    Raises
    ------
    InputError
        If the system computes on the CPU only, and the device is another.
    """
    if subject is None or device is None or device.partition(":")[0] == "cpu":
        return
    if any(change.lstrip().startswith("system") for change in overrides):
        return
    name = _system(subject)
    if name in hosted():
        raise argument_error("device", f"be 'cpu' for {name!r}, which {load(hosted()[name])}", repr(device))


def _system(subject: str) -> str | None:
    """Name of the system that is meant, as far as a name, a bundled config or a TOML file tells it."""
    if subject in systems():
        return subject
    path = bundled().get(subject, Path(subject))
    if path.suffix != ".toml":
        return None
    try:
        name = parse_toml(read_text(path, "config"))["system"]["name"]
    except (InputError, ValueError, LookupError, TypeError):
        return None  # the command says what is wrong with it
    return name if isinstance(name, str) else None
