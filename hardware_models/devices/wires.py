"""Wires of a crossbar: the voltage that is lost on the way to a cell and from it (IR drop).

Rows of a tile are driven at their left ends, V_i, columns are sensed at virtual grounds at their lower ends, and a
resistance r lies before each cell of a row and behind each cell of a column. A tile is linear and reciprocal:
driven at the columns and sensed at the rows it is exactly the transpose, so that wires are a static error of a
shared array, the same in both directions. What a cell loses to first order in r (by the currents that would flow
without it) is

    G_eff = G (1 - r (R + C)),    R_ij = sum_{m <= j} sum_{n >= m} G_in,    C_ij = sum_{m >= i} sum_{l <= m} G_lj

and 1 / (1 + r (R + C)) in its place is nearer to the exact matrix where the loss is not small: cumulative sums, and
no more work than a pass over the cells. Relative error of the effective conductances, of G between 1 and 100 uS,
as one vector; in brackets what the wires take away (`wire_error`):

    cells        r = 0.1 ohm        1 ohm              3 ohm             10 ohm
    32 x 32      1e-6  (0.2 %)      1e-4  (2 %)        7e-4  (6 %)       7e-3  (18 %)
    64 x 128     7e-5  (2 %)        6e-3  (16 %)       3e-2  (37 %)      0.14  (65 %)
    128 x 256    1e-3  (7 %)        5e-2  (43 %)       0.17  (69 %)      0.36  (88 %)

An array is cut into tiles of the device's size, its rows the inputs of a unit, its columns G+ and G- of each output
in turn; each tile is driven and sensed by itself. The bias row lies next to the sensed ends and loses nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

from ..netlists.parts import Part, Parts
from .crossbars import Cells
from .model import DeviceModel


def wired(cells: Cells, device: DeviceModel) -> Cells:
    """An array as it acts through its wires, by the approximation above.

    Parameters
    ----------
    cells : Cells
        Of a weight (n_out, ...): its conductances.
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
    """Approximate effective conductances of a tile (rows, columns), S; resistance from cell to cell, ohm."""
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
        Of the wire between neighbouring cells, ohm; positive.
    """
    rows, columns = tile.shape
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
    return (splu(matrix).solve(right)[sensed] * wire).T


def wire_error(tile: np.ndarray, resistance: float) -> float:
    """|approximate - exact| / |exact| of a tile's effective conductances, as one vector."""
    exact = exact_tile(tile, resistance)
    found = through_wires(torch.from_numpy(np.asarray(tile, np.float64)), resistance).numpy()
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def tile_parts(tile: np.ndarray, resistance: float, volts: np.ndarray) -> Parts:
    """A tile as a list of parts, for `Circuit`: drivers V1 ..., cells, wires; columns are sensed by sources of 0 V,
    S1 ..., whose currents they are.

    Parameters
    ----------
    tile : ndarray (rows, columns)
        S.
    resistance : float
        ohm.
    volts : ndarray (rows,)
        Of the drivers.
    """
    rows, columns = tile.shape
    wire = 1 / resistance
    parts = [Part(f"V{i + 1}", "voltage_source", (f"r{i + 1}_0", "0"), (float(volts[i]),)) for i in range(rows)]
    parts += [Part(f"S{j + 1}", "voltage_source", (f"c{rows + 1}_{j + 1}", "0"), (0.0,)) for j in range(columns)]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            parts += [
                Part(f"W{i}_{j}", "resistor", (f"r{i}_{j - 1}", f"r{i}_{j}"), (wire,)),
                Part(f"G{i}_{j}", "resistor", (f"r{i}_{j}", f"c{i}_{j}"), (float(tile[i - 1, j - 1]),)),
                Part(f"U{i}_{j}", "resistor", (f"c{i}_{j}", f"c{i + 1}_{j}"), (wire,)),
            ]
    return Parts.collect(parts)
