"""Tables of entry points, by which any installed package adds to this one: read, and loaded.

A source tree that is not installed has no metadata, so the same tables are read from the pyproject.toml beside the
package; they come first, since an editable install may hold an older copy of them.
"""

from __future__ import annotations

import functools
import importlib.util
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from .errors import InputError

ROOT = Path(__file__).resolve().parent.parent
"""Folder that holds this package and its siblings."""

SIBLINGS = ("hardware_models", "validation", "figures")


@functools.cache
def entries(group: str) -> dict[str, EntryPoint]:
    """Entries of a group, such as 'physics_ep.systems', by name."""
    found: dict[str, EntryPoint] = {}
    for name, value in _source_tables().get(group, {}).items():
        found[name] = EntryPoint(name, value, group)
    for entry in entry_points(group=group):
        found.setdefault(entry.name, entry)
    return found


def load(entry: EntryPoint) -> Any:
    """Import what an entry names.

    Raises
    ------
    InputError
        If it cannot be imported; the message tells whether a file of the user's hides the package.
    """
    package = entry.module.partition(".")[0]
    hidden = hiding_file(package) if package in SIBLINGS else None
    if hidden is not None:
        raise InputError(
            f"{hidden} hides the package {package!r} of physics-ep: rename it, or run from another folder."
        )
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        what = f"Entry {entry.name!r} of {entry.group} ({entry.value})"
        raise InputError(f"{what} cannot be loaded: {error}") from error


def hiding_file(package: str) -> Path | None:
    """File or folder that Python would import instead of our own `package`, if there is one."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    own = (ROOT / package).resolve()
    for place in places:
        found = Path(place).resolve()
        if found != own and own not in found.parents:
            return found
    return None


def _source_tables() -> dict[str, dict[str, str]]:
    path = ROOT / "pyproject.toml"
    if not path.is_file():
        return {}
    project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    # A wheel installed beside some other project's pyproject.toml must not read that one.
    return project.get("entry-points", {}) if project.get("name") == "physics-ep" else {}
