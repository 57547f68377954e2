"""Wires of a crossbar: the voltage that is lost on the way to a cell and from it (IR drop).

Rows of a tile are driven at their left ends, V_i, columns are sensed at virtual grounds at their lower ends, and a
resistance r lies before each cell of a row and behind each cell of a column. A tile is linear and reciprocal:
driven at the columns and sensed at the rows it is exactly the transpose, so that wires are a static error of a
shared array, the same in both directions. What a cell loses to first order in r (by the currents that would flow
without it) is

    G_eff = G (1 - r (R + C)),    R_ij = sum_{m <= j} sum_{n >= m} G_in,    C_ij = sum_{m >= i} sum_{l <= m} G_lj

and 1 / (1 + r (R + C)) in its place is nearer to the exact matrix where the loss is not small: cumulative sums, and
no more work than a pass over the cells. Relative error of the effective conductances as one vector; in brackets
what the wires take away (`wire_error`). What counts is the current in the wires, so that it depends on how many
cells are on. "pairs": random weights as G+ and G- in turn, one of each pair at 1 uS, the other up to 100 uS;
"uniform": every cell anywhere from 1 to 100 uS; "full": every cell at 100 uS.

    cells                r = 0.1 ohm        1 ohm              3 ohm             10 ohm
    32 x 32    pairs     1e-6  (0.2 %)      1e-4  (2 %)        8e-4  (6 %)       8e-3  (18 %)
               uniform   3e-6  (0.4 %)      3e-4  (4 %)        2e-3  (11 %)      2e-2  (29 %)
               full      4e-6  (0.7 %)      4e-4  (7 %)        3e-3  (18 %)      2e-2  (42 %)
    64 x 128   pairs     7e-5  (2 %)        6e-3  (16 %)       3e-2  (37 %)      0.14  (66 %)
               uniform   2e-4  (4 %)        1e-2  (27 %)       7e-2  (51 %)      0.21  (77 %)
               full      7e-4  (7 %)        3e-2  (41 %)       0.12  (66 %)      0.29  (85 %)
    128 x 256  pairs     1e-3  (7 %)        5e-2  (43 %)       0.17  (69 %)      0.36  (88 %)

An array is cut into tiles of the device's size, its rows the inputs of a unit, its columns G+ and G- of each output
in turn; each tile is driven and sensed by itself. The bias row lies next to the sensed ends and loses nothing.
"""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

from physics_ep.errors import argument_error

from ..netlists.parts import Part, Parts
from .crossbars import Cells
from .model import DeviceModel

LARGEST_RATIO = 1 / float(np.finfo(np.float64).eps)
"""A wire's resistance over a cell's, from which on one is nothing beside the other in float64."""


def wired(cells: Cells, device: DeviceModel) -> Cells:
    """An array as it acts through its wires, by the approximation above.

    Parameters
    ----------
    cells : Cells
        The cells of a weight (n_out, ...): its conductances.
    device : DeviceModel

    Returns
    -------
    Cells
        The same where wires have no resistance. Effective conductances, 0 or more.
    """
    r = device.wire_resistance
    if r == 0 or cells.plus.ndim < 2:
        return cells
    shape = cells.plus.shape
    plus, minus = (part.reshape(shape[0], -1).t() for part in (cells.plus, cells.minus))
    found = [torch.empty_like(plus), torch.empty_like(minus)]
    outputs = max(device.tile_columns // 2, 1)
    for top in range(0, plus.shape[0], device.tile_rows):
        rows = slice(top, top + device.tile_rows)
        for left in range(0, plus.shape[1], outputs):
            columns = slice(left, left + outputs)
            tile = torch.stack([plus[rows, columns], minus[rows, columns]], 2).double()
            kept = through_wires(tile.flatten(1), r).unflatten(1, (-1, 2)).to(plus.dtype)
            found[0][rows, columns], found[1][rows, columns] = kept[..., 0], kept[..., 1]
    acting = [part.t().reshape(shape) for part in found]
    return Cells(acting[0], acting[1], cells.scale)


def through_wires(tile: torch.Tensor, resistance: float) -> torch.Tensor:
    """Approximate effective conductances of a tile (rows, columns), S.

    Parameters
    ----------
    tile : Tensor (rows, columns)
        Conductances, S; 0 or more.
    resistance : float
        Resistance of the wire between neighbouring cells, ohm; 0 (the tile itself) or more.

    Raises
    ------
    InputError
        If the resistance is negative or not finite.
    """
    check_resistance(resistance)
    to_the_right = tile.flip(1).cumsum(1).flip(1)
    from_above = tile.cumsum(0)
    lost = to_the_right.cumsum(1) + from_above.flip(0).cumsum(0).flip(0)
    return tile / (1 + resistance * lost)


def exact_tile(tile: np.ndarray, resistance: float) -> np.ndarray:
    """Currents at the columns for 1 V at each row in turn, (rows, columns), S: Kirchhoff's laws at every cell.

    Parameters
    ----------
    tile : ndarray (rows, columns)
        Conductances, S.
    resistance : float
        Resistance of the wire between neighbouring cells, ohm; 0 (the tile itself) or more.

    Raises
    ------
    InputError
        If the tile is no matrix of conductances, or the resistance is negative, not finite, or so large that the
        equations have no solution in float64.
    """
    tile = checked(tile, resistance)
    rows, columns = tile.shape
    # Nothing is lost, to rounding, where all currents through the longest way of wires drop less than eps of 1 V.
    if resistance * float(tile.sum()) * (rows + columns) < np.finfo(np.float64).eps / 2:
        return tile.copy()
    wire = 1 / resistance
    place = np.arange(rows * columns).reshape(rows, columns)
    above, below = place, place + rows * columns  # of the row wires, of the column wires
    ends = [
        (above.ravel(), below.ravel(), tile.ravel()),
        (above[:, :-1].ravel(), above[:, 1:].ravel(), np.full(rows * (columns - 1), wire)),
        (below[:-1].ravel(), below[1:].ravel(), np.full((rows - 1) * columns, wire)),
    ]
    a, b, g = (np.concatenate(part) for part in zip(*ends, strict=True))
    size = 2 * rows * columns
    driven, sensed = above[:, 0], below[-1]
    held = np.concatenate([driven, sensed])  # behind a wire, to a driver or to a virtual ground
    matrix = coo_matrix(
        (
            np.concatenate([g, g, -g, -g, np.full(len(held), wire)]),
            (np.concatenate([a, b, a, b, held]), np.concatenate([a, b, b, a, held])),
        ),
        shape=(size, size),
    ).tocsc()
    right = np.zeros((size, rows))
    right[driven, np.arange(rows)] = wire
    try:
        currents = splu(matrix).solve(right)[sensed] * wire
    except RuntimeError:  # exactly singular: a wire is nothing beside a cell, in float64
        must = f"be no more than some {LARGEST_RATIO:.0g} times that of a cell, ohm"
        raise argument_error("resistance", must, resistance) from None
    return currents.T


def wire_error(tile: np.ndarray, resistance: float) -> float:
    """|approximate - exact| / |exact| of a tile's effective conductances, as one vector; 0 for wires of 0 ohm.

    Arguments and errors are those of `exact_tile`.
    """
    exact = exact_tile(tile, resistance)
    found = through_wires(torch.from_numpy(checked(tile, resistance)), resistance).numpy()
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(found - exact)) / size if size else 0.0


def tile_parts(tile: np.ndarray, resistance: float, volts: np.ndarray) -> Parts:
    """A tile as a list of parts, for `Circuit`: drivers V1 ..., cells, wires; columns are sensed by sources of 0 V,
    S1 ..., whose currents they are.

    Parameters
    ----------
    tile : ndarray (rows, columns)
        S.
    resistance : float
        ohm; wires of 0 ohm are no parts, but join their ends. So are cells of 0 S no parts.
    volts : ndarray (rows,)
        Voltages of the drivers of the rows.

    Raises
    ------
    InputError
        If the tile is no matrix of conductances, the resistance negative or not finite, or the shape of volts
        another.
    """
    tile = checked(tile, resistance)
    rows, columns = tile.shape
    volts = np.asarray(volts, np.float64)
    if volts.shape != (rows,) or not np.isfinite(volts).all():
        raise argument_error("volts", f"be {rows} finite numbers, one a row", f"of shape {volts.shape}: {volts}")
    parts = [Part(f"V{i + 1}", "voltage_source", (f"r{i + 1}_0", "0"), (float(volts[i]),)) for i in range(rows)]
    parts += [Part(f"S{j + 1}", "voltage_source", (f"c{rows + 1}_{j + 1}", "0"), (0.0,)) for j in range(columns)]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            row, column = (f"r{i}_{j}", f"c{i}_{j}") if resistance > 0 else (f"r{i}_0", f"c{rows + 1}_{j}")
            if resistance > 0:
                parts += [
                    Part(f"W{i}_{j}", "resistor", (f"r{i}_{j - 1}", row), (1 / resistance,)),
                    Part(f"U{i}_{j}", "resistor", (column, f"c{i + 1}_{j}"), (1 / resistance,)),
                ]
            if tile[i - 1, j - 1] > 0:
                parts.append(Part(f"G{i}_{j}", "resistor", (row, column), (float(tile[i - 1, j - 1]),)))
    return Parts.collect(parts)


def check_resistance(resistance: float) -> None:
    """Raise InputError unless a wire may have this resistance, ohm."""
    if isinstance(resistance, bool) or not (isinstance(resistance, Real) and 0 <= resistance < math.inf):
        raise argument_error("resistance", "be a finite number of 0 or more, ohm", resistance)


def checked(tile: np.ndarray, resistance: float) -> np.ndarray:
    """A tile's conductances (rows, columns), S, as float64; InputError if it is none, or no wire has that."""
    check_resistance(resistance)
    plain = tile.detach().cpu().numpy() if isinstance(tile, torch.Tensor) else np.asarray(tile)
    if plain.dtype.kind not in "fiu":
        raise argument_error("tile", "hold real numbers", f"of dtype {plain.dtype}")
    found = plain.astype(np.float64)
    if found.ndim != 2 or not found.size:
        raise argument_error("tile", "be a matrix (rows, columns) of at least one cell", f"of shape {found.shape}")
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise argument_error(
            "tile", "hold finite conductances of 0 or more, S", f"from {found.min()} to {found.max()}"
        )
    return found
