"""Answers to keywords that a constructor does not have: one line with the nearest right name.

Python answers `HopfieldNetwork(sizes, activaton="tanh")` with a TypeError that names no other keyword.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .errors import unknown_name

P = ParamSpec("P")
T = TypeVar("T")

POSITIONAL = inspect.Parameter.POSITIONAL_ONLY
ANY = inspect.Parameter.VAR_KEYWORD


def answering(call: Callable[P, T], owner: str = "") -> Callable[P, T]:
    """The call, which answers keywords that it does not have with an `InputError`.

    Parameters
    ----------
    call : callable
        A function, or a class's `__init__`. `inspect.signature`, documentation and editors see its own signature.
    owner : str
        What messages call it. Default: its name.

    Returns
    -------
    callable
        The same one where it takes any keyword.
    """
    parameters = inspect.signature(call).parameters.values()
    if any(each.kind is ANY for each in parameters):
        return call
    known = frozenset(each.name for each in parameters if each.kind is not POSITIONAL)

    @functools.wraps(call)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                raise unknown_name(f"keyword of {owner or call.__name__}", name, known - {"self"})
        return call(*args, **kwargs)

    return checked
