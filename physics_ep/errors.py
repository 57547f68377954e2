"""One voice for bad input: what the argument is called, what it must be, what it was."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .moved import moved_names

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)


class InputError(ValueError):
    """Bad input from a user. The command prints it as one line and exits with status 2."""


def argument_error(name: str, must: str, was: Any) -> InputError:
    """Build 'Argument NAME must MUST, but was WAS.'; in one line; of long values the beginning."""
    try:
        told = str(was)
    except ValueError:  # an integer of more digits than Python prints
        told = "an integer of many digits"
    told = " ".join(told.split()) if "\n" in told else told
    return InputError(f"Argument {name} must {must}, but was {told if len(told) <= LONGEST else told[:LONGEST]}.")


LONGEST = 1000
"""Characters of a value that a message shows."""
MOST = 10**9
"""Count that no loop and no list of ours comes to its end with."""
REPEATS = 100_000
"""Repetitions of a measurement that nobody waits for."""
SEEDS = range(-(2**63), 2**63)
"""What torch's generators take."""


def is_real(value: Any) -> bool:
    """Whether a value is a finite real number, which a float can hold: an integer of 400 digits is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def require_count(name: str, value: Any, least: int = 1, most: int = MOST) -> None:
    """Raise InputError unless a value is an integer within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise argument_error(name, f"be an integer of at least {least}", repr(value))
    if value > most:
        raise argument_error(name, f"be at most {most:,}", _shortened(value))


def require_number(name: str, value: Any) -> None:
    """Raise InputError if a value is a number, and NaN, infinite, or an integer of more than 64 bits."""
    if isinstance(value, float) and not math.isfinite(value):
        raise argument_error(name, "be finite", value)
    if isinstance(value, int) and value not in SEEDS:
        raise argument_error(name, "be an integer of 64 bits", _shortened(value))


def require_seed(value: Any, name: str = "seed") -> None:
    """Raise InputError unless a value is an integer of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise argument_error(name, "be an integer", repr(value))
    if value not in SEEDS:
        raise argument_error(name, "be an integer of 64 bits", _shortened(value))


def _shortened(value: int) -> str:
    """An integer, or the number of its bits where it has too many digits to read."""
    return str(value) if value.bit_length() <= 128 else f"one of {value.bit_length()} bits"


def described(values: Any) -> Any:
    """The shape of a tensor whose numbers are all there, a tuple; of anything else what it is, in words."""
    if not hasattr(values, "is_meta"):  # no tensor; torch is not imported here
        return type(values).__name__
    if values.is_meta:
        return f"a tensor without data (meta), {tuple(values.shape)}"
    kind = "quantized" if values.is_quantized else str(values.layout).removeprefix("torch.")
    return tuple(values.shape) if kind == "strided" else f"a {kind} tensor"


LONG = 24
"""Names up to which a message lists them all; of more it tells the nearest."""


def counted(number: int, name: str) -> str:
    """Return a number with the name of what is counted, in the plural where there is not one: '1 epoch'."""
    return f"{number:,} {name}{'s' * (number != 1)}"


def unknown_name(name: str, given: str, known: Iterable[str], listed: str = "") -> InputError:
    """Build the error for a name that is not registered, with the nearest right name.

    Parameters
    ----------
    name : str
        The argument.
    given : str
    known : iterable of str
    listed : str
        Where all names stand, for lists that are too long to be told whole.
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if not names:
        return InputError(f"Argument {name} was {given!r}, but there is none.")
    told = ", ".join(names)
    if len(names) > LONG:
        near = ", ".join(difflib.get_close_matches(str(given), names, n=3, cutoff=0.0))
        told = f"{len(names)} names ({f'{listed} has all; ' if listed else ''}the nearest: {near})"
    return InputError(f"Argument {name} must be one of {told}, but was {given!r}.{hint}")
