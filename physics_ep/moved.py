"""Old module paths, which work for one release after a module has moved.

`import physics_ep.solvers` of a module that now lives elsewhere gives a thin module whose names are those of the
new one, and a `DeprecationWarning` that names both paths. Three things serve the old paths:

* a module that moved: a row of `MOVED`, read by a finder that Python asks last, after all others found nothing;
* a module whose name is now a folder: the folder's face (`faces.lazy`) looks into `NAMES` for what it does not
  promise;
* a module that stayed and gave names away: `moved_names(__name__)`, as the module's `__getattr__`.

The table is `moved.json`. Pickles that name an old path load, as unpickling imports modules by name. What is set on
the thin module (by a test's monkeypatch) stays on it and does not reach the new module.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_TABLE = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))

MOVED: dict[str, str] = _TABLE["modules"]
"""Old module path to the new one. A name that NAMES lacks is looked up in the new module."""

NAMES: dict[str, dict[str, str]] = {
    module: {name: home for home, names in homes.items() for name in names.split()}
    for module, homes in _TABLE["names"].items()
}
"""Old module path to {name: module that has it now}.

A module of MOVED has here the names that went to another file than the rest; a module that is now a folder, or that
stayed and lost names, has every such name. A name that changed has "module:new name".
"""


def install() -> None:
    """Have Python ask the table for modules that it finds nowhere else; a second call changes nothing."""
    if FINDER not in sys.meta_path:
        sys.meta_path.append(FINDER)


def moved_names(module: str) -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562) that serves the names that `NAMES` has for it, each with one warning.

    Write `if not TYPE_CHECKING: __getattr__ = moved_names(__name__)`, so that type checkers still report a misspelt
    name.

    Parameters
    ----------
    module : str
        The module's own `__name__`; it must be in `sys.modules`, as it is while its file runs.
    """
    owner = sys.modules[module]

    def __getattr__(name: str) -> Any:  # noqa: N807
        home = NAMES.get(module, {}).get(name)
        if home is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=owner)
        value = _named(home, name)
        _warn(f"{module}.{name} is now {_path(home, name)}")
        setattr(owner, name, value)
        return value

    return __getattr__


class OldPaths:
    """Finds modules under the old paths of `MOVED`.

    The base classes of `importlib.abc` would bring nothing but an import that takes as long as this package's own.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What to load under an old path; None for any other. Nothing is imported yet, and nothing warns."""
        if fullname not in MOVED:
            return None
        return ModuleSpec(fullname, _Signpost(), origin=f"moved to {MOVED[fullname]}")  # type: ignore[arg-type]


class _Signpost:
    """Makes the thin module of an old path, and warns."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python make an ordinary empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the old module with a way to the new ones, and warn where the user's line imports it."""
        old = module.__name__
        new, others = MOVED[old], NAMES.get(old, {})
        default = importlib.import_module(new)
        elsewhere = [f"{name} is now {_path(home, name)}" for name, home in sorted(others.items())]
        _warn("; ".join([f"{old} is now {new}", *elsewhere]))

        def __getattr__(name: str) -> Any:  # noqa: N807
            # Python's own marks of a module (__file__, __path__, __wrapped__) are not the new module's to give.
            if not (name.startswith("__") and name.endswith("__")):
                if name in others:
                    return _named(others[name], name)
                if hasattr(default, name):
                    return getattr(default, name)
            raise AttributeError(f"module {old!r} (now {new!r}) has no attribute {name!r}", name=name, obj=module)

        public = getattr(default, "__all__", None) or [name for name in vars(default) if not name.startswith("_")]
        names = sorted({*public, *others})
        vars(module).update(
            __doc__=f"Old path of `{new}`.", __all__=names, __getattr__=__getattr__, __dir__=lambda: list(names)
        )


FINDER = OldPaths()


def _named(home: str, name: str) -> Any:
    """What a row of `NAMES` leads to."""
    module, _, new = home.partition(":")
    return getattr(importlib.import_module(module), new or name)


def _path(home: str, name: str) -> str:
    """The dotted path of the same, for people."""
    module, _, new = home.partition(":")
    return f"{module}.{new or name}"


def _warn(message: str) -> None:
    """Warn at the line that asked for an old path, outside of importlib and of the files that serve faces.

    A fixed `stacklevel` would not do: between the user's line and this file stand no frames at all (unpickling), or
    some of importlib (`import_module`, `from package import name`).
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _serves_imports(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    warnings.warn_explicit(
        f"{message}; the old path goes with the next release",
        DeprecationWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _serves_imports(module: str) -> bool:
    """Whether a frame of this module is only on the way from the user's line to the warning."""
    return module in {__name__, f"{__package__}.faces"} or module.partition(".")[0] in {
        "importlib",
        "_frozen_importlib",
    }
