"""Resistances in series with the cells of a tile: wires, drivers, sense ends, selectors; and from which ends lines
run.

Row wires run from a driver at their left end past all cells, column wires to a virtual ground at their lower
end. With `driven_ends="both"` a second driver of the same voltage holds the right ends of the rows, with
`sensed_ends="both"` a second virtual ground the upper ends of the columns, each through a segment of wire and a
resistance like the first.

The resistance of a driver and that of a sense end are those of the switch at the end of a line: they are the
line's, whichever way the tile is read, so that a transposed read remains the exact transpose.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from numbers import Real
from typing import Any

from physics_ep.errors import argument_error

from .fields import ENDS
from .model import DeviceModel


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """Resistances of the wires, drivers, sense inputs and selectors of a tile of cells.

    Attributes
    ----------
    row, column : float
        Resistance of the wire between neighbouring cells of a row, and of a column, ohm.
    driver, sense : float
        Resistance between a driven end of a row and its source, and between a sensed end of a column and its
        virtual ground, ohm, in addition to one segment of wire.
    selector : float
        Resistance in series with each cell, ohm.
    driven_ends, sensed_ends : {'one', 'both'}
        Whether rows are driven at the left end or at both, and columns sensed at the lower end or at both.

    Raises
    ------
    InputError
        If a resistance is no finite number of 0 or more, or ends are neither of the two.
    """

    row: float = 0.0
    column: float = 0.0
    driver: float = 0.0
    sense: float = 0.0
    selector: float = 0.0
    driven_ends: str = "one"
    sensed_ends: str = "one"

    def __post_init__(self) -> None:
        for name in ("row", "column", "driver", "sense", "selector"):
            check_resistance(getattr(self, name), name)
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("driven_ends", "sensed_ends"):
            ENDS.checked(name, getattr(self, name))

    @property
    def perfect(self) -> bool:
        """Whether no resistance is in series with the cells."""
        return not (self.row or self.column or self.driver or self.sense or self.selector)


def wiring_of(device: DeviceModel) -> Wiring:
    """The wiring of a device's tiles."""
    column = device.column_wire_resistance
    return Wiring(
        row=device.wire_resistance,
        column=device.wire_resistance if column is None else column,
        driver=device.driver_resistance,
        sense=device.sense_resistance,
        selector=device.selector_resistance,
        driven_ends=device.driven_ends,
        sensed_ends=device.sensed_ends,
    )


def as_wiring(resistance: float | Wiring) -> Wiring:
    """The wiring that an argument stands for: itself, or wires of one resistance in rows and columns.

    Raises
    ------
    InputError
        If it is neither a wiring nor a finite number of 0 or more.
    """
    if isinstance(resistance, Wiring):
        return resistance
    check_resistance(resistance)
    return Wiring(row=resistance, column=resistance)


def check_resistance(resistance: Any, name: str = "resistance") -> None:
    """Raise InputError, with the name of the argument, unless a wire may have this resistance, ohm."""
    if not isinstance(resistance, Real) or isinstance(resistance, bool) or not _finite(resistance):
        raise argument_error(name, "be a finite number of 0 or more, ohm", resistance)


def _finite(resistance: Any) -> bool:
    return bool(0 <= resistance <= sys.float_info.max)
