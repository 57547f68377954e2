"""Faces of packages: the names that an `__init__.py` promises, each imported from its file on first use (PEP 562).

Thus `import physics_ep`, and with it the command's help, does not wait for torch, and what needs no pydantic,
pooch, typer or rich runs where they are missing. A face reads

    from typing import TYPE_CHECKING

    from physics_ep.faces import lazy

    if TYPE_CHECKING:
        from .relaxation.loop import relax as relax
    else:
        __getattr__, __dir__, __all__ = lazy(__name__, {"relax": "relaxation.loop"})

Type checkers see the imports and report a misspelt name; Python sees the table.
`tests/physics_ep/test_faces.py` holds the two equal.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .moved import moved_names


def lazy(module: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that imports its names on first use.

    A name that was used once is an ordinary global of the package afterwards. A name that the package does not
    promise, but that a module of the package's own name had before it became a folder, is served with a
    `DeprecationWarning` (`moved.NAMES`).

    Parameters
    ----------
    module : str
        The package's own `__name__`.
    homes : mapping of str to str
        Public name to the module that defines it, relative to the package: "cost", "relaxation.loop". No module
        of the package may have the name of something that the package promises: importing the module would put it
        in that name's place.

    Returns
    -------
    __getattr__ : callable
        Imports a name, or raises AttributeError.
    __dir__ : callable
        The promised names and whatever the package holds already.
    __all__ : list of str
        The promised names, sorted.
    """
    scope = vars(sys.modules[module])
    names = sorted(homes)
    old_name = moved_names(module)

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in homes:
            return old_name(name)
        value = getattr(importlib.import_module(f"{module}.{homes[name]}"), name)
        scope[name] = value
        return value

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*scope, *names})

    return __getattr__, __dir__, names
