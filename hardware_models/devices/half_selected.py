"""Half-selected cells: what a tile without transistors does to the other cells when one is written or read.

The selected row is held at V and the selected column at 0. Other lines are held where other cells see little: all
of them at V/2 ("V/2": half-selected cells, those that share a line with the selected one, see V/2, others nothing),
or rows at V/3 and columns at 2 V/3 ("V/3": all other cells see V/3 in size) (Chen 2013, IEEE Transactions on
Electron Devices 60, 1318). Through wires, drivers and sense ends (`wiring.Wiring`) the selected cell sees less than
V, and others what these leave them: Kirchhoff's laws at every cell, without approximation. Cells are linear here.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from physics_ep.errors import argument_error, unknown_name

from .exact_tiles import TileNetwork
from .wires import checked
from .wiring import Wiring, as_wiring

SCHEMES = {"V/2": (1 / 2, 1 / 2), "V/3": (1 / 3, 2 / 3)}
"""Voltages of the other rows and of the other columns, in those of the selected row over the selected column."""


@dataclass(frozen=True)
class BiasedTile:
    """A tile with a voltage at each row and each column.

    Attributes
    ----------
    volts : float64 array (rows, columns)
        Voltage across each cell from its row to its column, without its selector's part, V.
    currents : float64 array (rows, columns)
        Current through each cell from its row to its column, A.
    row_currents, column_currents : float64 array (rows,), (columns,)
        Current that each row's source gives, and that each column's source takes, A.
    power : float
        Power of all sources, W.
    """

    volts: np.ndarray
    currents: np.ndarray
    row_currents: np.ndarray
    column_currents: np.ndarray
    power: float


@dataclass(frozen=True)
class SelectedCell:
    """A tile with one cell selected for writing or reading, and the voltages and currents of the other cells.

    Attributes
    ----------
    scheme : str
        'V/2' or 'V/3'.
    row, column : int
        The selected cell, from 0.
    biased : BiasedTile
        All voltages and currents.
    """

    scheme: str
    row: int
    column: int
    biased: BiasedTile

    @property
    def selected_volts(self) -> float:
        """Voltage across the selected cell, V."""
        return float(self.biased.volts[self.row, self.column])

    @property
    def row_disturb(self) -> float:
        """Largest |voltage| across the other cells of the selected row, V; 0 where there are none."""
        return _largest(np.delete(self.biased.volts[self.row], self.column))

    @property
    def column_disturb(self) -> float:
        """Largest |voltage| across the other cells of the selected column, V; 0 where there are none."""
        return _largest(np.delete(self.biased.volts[:, self.column], self.row))

    @property
    def unselected_disturb(self) -> float:
        """Largest |voltage| across cells that share no line with the selected one, V; 0 where there are none."""
        return _largest(np.delete(np.delete(self.biased.volts, self.row, 0), self.column, 1))

    @property
    def selected_current(self) -> float:
        """Current through the selected cell, A."""
        return float(self.biased.currents[self.row, self.column])

    @property
    def row_sneak(self) -> float:
        """Sum of the currents of the other cells of the selected row, A: what its driver gives beside."""
        return float(np.delete(self.biased.currents[self.row], self.column).sum())

    @property
    def column_sneak(self) -> float:
        """Sum of the currents of the other cells of the selected column, A, sensed beside its own."""
        return float(np.delete(self.biased.currents[:, self.column], self.row).sum())


def biased_tile(
    tile: np.ndarray, resistance: float | Wiring, row_volts: np.ndarray, column_volts: np.ndarray
) -> BiasedTile:
    """Solve a tile with given voltages at all rows and columns.

    Parameters
    ----------
    tile : ndarray (rows, columns)
        Conductances, S.
    resistance : float or Wiring
        Resistance of the wire between neighbouring cells, ohm; or all resistances.
    row_volts, column_volts : ndarray (rows,), (columns,)
        Voltages of the sources behind the drivers of the rows and the sense ends of the columns, V.

    Raises
    ------
    InputError
        If the tile is no matrix of conductances, a resistance is none, or voltages are not one a line and finite.
    """
    wiring, tile = as_wiring(resistance), checked(tile)
    lines = []
    for name, given, count in zip(
        ("row_volts", "column_volts"), (row_volts, column_volts), tile.shape, strict=True
    ):
        try:
            volts = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            volts = np.empty(0)
        if volts.shape != (count,) or not np.isfinite(volts).all():
            raise argument_error(name, f"be {count} finite numbers, one a line", f"{given!r:.100}")
        lines.append(volts)
    network, volts = TileNetwork(tile, wiring), np.concatenate(lines)
    given_currents = network.between_terminals(keep=True) @ volts
    found = network.voltages(volts)
    across = found[network.above] - found[network.below]
    rows = len(tile)
    return BiasedTile(
        across / (1 + wiring.selector * tile),
        across * network.cells,
        given_currents[:rows],
        -given_currents[rows:],
        float(given_currents @ volts),
    )


def select_cell(
    tile: np.ndarray,
    resistance: float | Wiring,
    row: int,
    column: int,
    volts: float,
    scheme: str = "V/2",
) -> SelectedCell:
    """Write or read one cell of a tile, and say what the others see.

    Parameters
    ----------
    tile : ndarray (rows, columns)
        Conductances, S.
    resistance : float or Wiring
        Resistance of the wire between neighbouring cells, ohm; or all resistances.
    row, column : int
        The cell, from 0.
    volts : float
        Voltage V of the selected row over the selected column: that of a writing, or that of a reading. Below 0:
        the cell is written the other way.
    scheme : {'V/2', 'V/3'}
        Where all other lines are held.

    Raises
    ------
    InputError
        If the tile is no matrix of conductances, a resistance is none, there is no such cell or scheme, or volts is
        no finite number.
    """
    if scheme not in SCHEMES:
        raise unknown_name("scheme", scheme, SCHEMES)
    if isinstance(volts, bool) or not isinstance(volts, Real) or not np.isfinite(float(volts)):
        raise argument_error("volts", "be a finite number", repr(volts))
    tile = checked(tile)
    lines = []
    for name, index, count, share in zip(
        ("row", "column"), (row, column), tile.shape, SCHEMES[scheme], strict=True
    ):
        if isinstance(index, bool) or not isinstance(index, Integral) or not 0 <= index < count:
            raise argument_error(name, f"be an integer from 0 to {count - 1}", repr(index))
        lines.append(np.full(count, float(volts) * share))
    lines[0][row], lines[1][column] = float(volts), 0.0
    return SelectedCell(scheme, int(row), int(column), biased_tile(tile, resistance, *lines))


def _largest(volts: np.ndarray) -> float:
    return float(np.abs(volts).max(initial=0.0))
