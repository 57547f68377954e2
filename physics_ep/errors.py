"""One voice for bad input: what the argument is called, what it must be, what it was."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .moved import moved_names

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)


class InputError(ValueError):
    """Bad input from a user. The command prints it as one line and exits with status 2."""


def argument_error(name: str, must: str, was: Any) -> InputError:
    """Build 'Argument NAME must MUST, but was WAS.'"""
    return InputError(f"Argument {name} must {must}, but was {was}.")


def described(values: Any) -> Any:
    """The shape of a tensor whose numbers are all there, a tuple; of anything else what it is, in words."""
    if not hasattr(values, "is_meta"):  # no tensor; torch is not imported here
        return type(values).__name__
    if values.is_meta:
        return f"a tensor without data (meta), {tuple(values.shape)}"
    kind = "quantized" if values.is_quantized else str(values.layout).removeprefix("torch.")
    return tuple(values.shape) if kind == "strided" else f"a {kind} tensor"


def unknown_name(name: str, given: str, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not registered, with the nearest right name."""
    names = sorted(known)
    close = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if not names:
        return InputError(f"Argument {name} was {given!r}, but there is none.")
    return InputError(f"Argument {name} must be one of {', '.join(names)}, but was {given!r}.{hint}")
