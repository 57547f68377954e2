"""Analyses that a netlist asks for: .tran and .ac lines, evaluated when they are needed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .lines import Line
from .values import Scope

AC_FORM = ".ac DEC|OCT|LIN POINTS FIRST LAST"
MOST_POINTS = 100_000
"""Frequencies of one sweep."""

Lines = tuple[tuple[tuple[str, ...], Line], ...]
"""Words behind the command, and the line, of each."""


@dataclass(frozen=True)
class TransientRequest:
    """What a .tran line asks for: STEP STOP [START [LONGEST]] [UIC], seconds; a step of 0 is none."""

    step: float
    stop: float
    start: float
    longest: float | None
    uic: bool


@dataclass(frozen=True)
class Analyses:
    """The lines .tran and .ac of a netlist, those of .control blocks included, and the parameters they may name."""

    transients: Lines = ()
    sweeps: Lines = ()
    scope: Scope = field(default_factory=Scope)

    def transient(self) -> TransientRequest | None:
        """Read the first .tran line of the netlist; None where the netlist has none.

        Raises
        ------
        InputError
            If the line is not .tran STEP STOP [START [LONGEST]] [UIC], or LTspice's .tran STOP, in seconds with
            STEP >= 0 (0: none, as LTspice writes) and STOP > START >= 0.
        """
        if not self.transients:
            return None
        words, line = self.transients[0]
        numbers = [w for w in words if w.lower() != "uic"]
        if not 1 <= len(numbers) <= 4:
            raise line.error("a transient is .tran STEP STOP [START [LONGEST]] [UIC]")
        values = [line.check(self.scope.value, w) for w in numbers]
        if len(values) == 1:
            values = [0.0, *values]
        start = values[2] if len(values) > 2 else 0.0
        if not (values[0] >= 0 and values[1] > start >= 0):
            raise line.error("STEP must not be negative and STOP exceed START")
        longest = values[3] if len(values) > 3 and values[3] > 0 else None
        return TransientRequest(values[0], values[1], start, longest, len(numbers) < len(words))

    def frequencies(self) -> np.ndarray | None:
        """Hertz that the first .ac line asks for, (F,); None where there is none.

        Raises
        ------
        InputError
            If the line is not of the form `AC_FORM`.
        """
        if not self.sweeps:
            return None
        words, line = self.sweeps[0]
        kind = words[0].lower() if words else ""
        if kind not in ("dec", "oct", "lin") or len(words) != 4:
            raise line.error(f"{AC_FORM} would be read")
        count, first, last = (line.check(self.scope.value, w) for w in words[1:])
        if not (count >= 1 and 0 < first <= last) or (kind == "lin" and count != int(count)):
            raise line.error("POINTS must be a number of points, and 0 < FIRST <= LAST hertz")
        if kind == "lin":
            points = count
        else:
            # As ngspice steps: by a constant factor from the first, as long as it is below the last.
            points = math.floor(math.log(last / first, 10 if kind == "dec" else 2) * count + 1 + 1e-9)
        if points > MOST_POINTS:
            raise line.error(f"at most {MOST_POINTS:,} frequencies would be read, but these are {points:,.0f}")
        if kind == "lin":
            return np.linspace(first, last, int(count))
        return np.asarray(first * (10.0 if kind == "dec" else 2.0) ** (np.arange(points) / count))
