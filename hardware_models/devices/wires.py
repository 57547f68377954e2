"""Wires of a crossbar: the voltage that is lost on the way to a cell and from it (IR drop).

Rows of a tile are driven at their left ends, V_i, columns are sensed at virtual grounds at their lower ends,
and a resistance r lies before each cell of a row and behind each cell of a column. A tile is linear and
reciprocal: driven at the columns and sensed at the rows it is exactly the transpose, so that wires are a static
error of a shared array, the same in both directions. What a cell loses to first order in r (by the currents
that would flow without it) is

    G_eff = G (1 - r (R + C)),    R_ij = sum_{m <= j} sum_{n >= m} G_in,    C_ij = sum_{m >= i} sum_{l <= m} G_lj

and 1 / (1 + r (R + C)) in its place is nearer to the exact matrix where the loss is not small: cumulative sums,
and no more work than a pass over the cells. With other resistances (`wiring.Wiring`) it is r_row R + r_column C
+ R_driver sum_n G_in + R_sense sum_l G_lj, and G that of a cell in series with its selector. A second driven
end, by superposition, takes a_j sum_n a_n G_in / a of it away, with a_j the resistance from the first driver to
cell j and a that to the second (the current that the second sends, at the Green's function of a ladder); a
second sensed end likewise.

Relative error of the effective conductances as one vector; in brackets what the wires take away (`wire_error`).
What counts is the current in the wires, so that it depends on how many cells are on. "pairs": random weights as
G+ and G- in turn, one of each pair at 1 uS, the other up to 100 uS; "uniform": every cell anywhere from 1 to
100 uS; "full": every cell at 100 uS.

    cells                r = 0.1 ohm        1 ohm              3 ohm             10 ohm
    32 x 32    pairs     1e-6  (0.2 %)      1e-4  (2 %)        8e-4  (6 %)       8e-3  (18 %)
               uniform   3e-6  (0.4 %)      3e-4  (4 %)        2e-3  (11 %)      2e-2  (29 %)
               full      4e-6  (0.7 %)      4e-4  (7 %)        3e-3  (18 %)      2e-2  (42 %)
    64 x 128   pairs     7e-5  (2 %)        6e-3  (16 %)       3e-2  (37 %)      0.14  (66 %)
               uniform   2e-4  (4 %)        1e-2  (27 %)       7e-2  (51 %)      0.21  (77 %)
               full      7e-4  (7 %)        3e-2  (41 %)       0.12  (66 %)      0.29  (85 %)
    128 x 256  pairs     1e-3  (7 %)        5e-2  (43 %)       0.17  (69 %)      0.36  (88 %)

The same with other resistances, 1 ohm a wire where nothing else is said:

                        rows 1, columns    drivers     drivers, sense    selectors    rows driven    both lines at
    cells                         3 ohm    100 ohm       ends 100 ohm       10 kohm    at both ends      both ends
    32 x 32   pairs        4e-4  (4 %)   8e-4 (10 %)      5e-3 (17 %)    4e-5 (44 %)    4e-5  (1 %)    6e-6 (0.5 %)
              uniform      1e-3  (8 %)   2e-3 (17 %)      1e-2 (28 %)    8e-5 (44 %)    1e-4  (2 %)    2e-5   (1 %)
              full         2e-3 (13 %)   4e-3 (28 %)      3e-3 (42 %)    1e-4 (52 %)    3e-4  (4 %)    3e-5   (2 %)
    128 x 64  pairs        3e-2 (33 %)   2e-2 (27 %)      4e-2 (43 %)    2e-3 (48 %)    4e-3 (14 %)    5e-4   (5 %)
              uniform      7e-2 (48 %)   3e-2 (41 %)      7e-2 (58 %)    6e-3 (53 %)    1e-2 (24 %)    1e-3   (9 %)
              full         0.13 (62 %)   2e-2 (57 %)      6e-2 (72 %)    1e-2 (63 %)    4e-2 (37 %)    4e-3  (16 %)

An array is cut into tiles of the device's size, its rows the inputs of a unit, its columns G+ and G- of each
output in turn; each tile is driven and sensed by itself. The bias row lies next to the sensed ends and loses
nothing.
"""

from __future__ import annotations

import numpy as np
import torch

from physics_ep.errors import argument_error

from ..netlists.parts import Part, Parts
from .crossbars import Cells
from .exact_tiles import TileNetwork
from .model import DeviceModel
from .wiring import Wiring, as_wiring, wiring_of


def wired(cells: Cells, device: DeviceModel) -> Cells:
    """An array of cells as it acts through the resistance of its wires, by the approximation of this module.

    Parameters
    ----------
    cells : Cells
        The cells of a weight (n_out, ...): its conductances.
    device : DeviceModel

    Returns
    -------
    Cells
        The same where nothing is in series with the cells. Effective conductances, 0 or more. Of a bias selectors
        alone count: its row lies next to the sensed ends.
    """
    wiring = wiring_of(device)
    if wiring.perfect:
        return cells
    if cells.plus.ndim < 2:
        return Cells(_selected(cells.plus, wiring), _selected(cells.minus, wiring), cells.scale)
    shape = cells.plus.shape
    plus, minus = (part.reshape(shape[0], -1).t() for part in (cells.plus, cells.minus))
    found = [torch.empty_like(plus), torch.empty_like(minus)]
    outputs = max(device.tile_columns // 2, 1)
    for top in range(0, plus.shape[0], device.tile_rows):
        rows = slice(top, top + device.tile_rows)
        for left in range(0, plus.shape[1], outputs):
            columns = slice(left, left + outputs)
            tile = torch.stack([plus[rows, columns], minus[rows, columns]], 2).double()
            kept = through_wires(tile.flatten(1), wiring).unflatten(1, (-1, 2)).to(plus.dtype)
            found[0][rows, columns], found[1][rows, columns] = kept[..., 0], kept[..., 1]
    acting = [part.t().reshape(shape) for part in found]
    return Cells(acting[0], acting[1], cells.scale)


def through_wires(tile: torch.Tensor, resistance: float | Wiring) -> torch.Tensor:
    """Approximate effective conductances of a tile (rows, columns), S.

    Parameters
    ----------
    tile : Tensor (rows, columns)
        Conductances, S; 0 or more.
    resistance : float or Wiring
        Resistance of the wire between neighbouring cells, ohm; 0 (the tile itself) or more. Or all resistances.

    Raises
    ------
    InputError
        If the resistance is negative or not finite.
    """
    wiring = as_wiring(resistance)
    tile = _selected(tile, wiring)
    rows, columns = tile.shape
    largest = max(wiring.row, wiring.column)
    # Scaled by the larger one: the smallest resistance that a float holds counts as any does.
    row, column = (r / largest if largest else 0.0 for r in (wiring.row, wiring.column))
    to_the_right = tile.flip(1).cumsum(1).flip(1)
    from_above = tile.cumsum(0)
    lost = to_the_right.cumsum(1).mul_(row) + from_above.flip(0).cumsum(0).flip(0).mul_(column)
    lost.mul_(largest)
    lost += wiring.driver * to_the_right[:, :1] + wiring.sense * from_above[-1:]
    along = torch.arange(1, columns + 1, dtype=tile.dtype, device=tile.device) * wiring.row + wiring.driver
    if wiring.driven_ends == "both" and along[0] > 0:
        lost -= (tile @ along)[:, None] * (along / (along[-1] + along[0]))
    down = torch.arange(rows, 0, -1, dtype=tile.dtype, device=tile.device) * wiring.column + wiring.sense
    if wiring.sensed_ends == "both" and down[0] > 0:
        lost -= (down / (down[0] + down[-1]))[:, None] * (down @ tile)
    return tile / (1 + lost)


def _selected(tile: torch.Tensor, wiring: Wiring) -> torch.Tensor:
    """Conductances of cells in series with their selectors, S."""
    return tile / (1 + wiring.selector * tile) if wiring.selector else tile


def exact_tile(tile: np.ndarray, resistance: float | Wiring) -> np.ndarray:
    """Currents at the columns for 1 V at each row in turn, (rows, columns), S: Kirchhoff's laws at every cell.

    Parameters
    ----------
    tile : ndarray (rows, columns)
        Conductances, S.
    resistance : float or Wiring
        Resistance of the wire between neighbouring cells, ohm; 0 (the tile itself) or more. Or all resistances.

    Raises
    ------
    InputError
        If the tile is no matrix of conductances, or the resistance is negative, not finite, or so large that few
        digits would be left in float64.

    Notes
    -----
    512 x 512 cells take some 5 s of one core and 0.2 GB, n x n cells n^3 times that (`exact_tiles`).
    """
    wiring = as_wiring(resistance)
    tile = checked(tile)
    rows = len(tile)
    return -TileNetwork(tile, wiring).between_terminals()[:rows, rows:]


def wire_error(tile: np.ndarray, resistance: float | Wiring) -> float:
    """|approximate - exact| / |exact| of a tile's effective conductances, as one vector; 0 for wires of 0 ohm.

    Arguments and errors are those of `exact_tile`.
    """
    exact = exact_tile(tile, resistance)
    found = through_wires(torch.from_numpy(checked(tile)), resistance).numpy()
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(found - exact)) / size if size else 0.0


def tile_parts(tile: np.ndarray, resistance: float | Wiring, volts: np.ndarray) -> Parts:
    """A tile as a list of parts, for `Circuit`: drivers V1 ..., cells, wires; columns are sensed by sources of 0 V,
    S1 ..., whose currents they are.

    Parameters
    ----------
    tile : ndarray (rows, columns)
        S.
    resistance : float or Wiring
        ohm; wires of 0 ohm are no parts, but join their ends. So are cells of 0 S no parts. A cell and
        its selector are one part.
    volts : ndarray (rows,)
        Voltages of the drivers of the rows.

    Raises
    ------
    InputError
        If the tile is no matrix of conductances, the resistance negative or not finite, or the shape of volts
        another.
    """
    wiring = as_wiring(resistance)
    tile = checked(tile)
    rows, columns = tile.shape
    volts = np.asarray(volts, np.float64)
    if volts.shape != (rows,) or not np.isfinite(volts).all():
        raise argument_error("volts", f"be {rows} finite numbers, one a row", f"of shape {volts.shape}: {volts}")
    parts = [Part(f"V{i + 1}", "voltage_source", (f"r{i + 1}_0", "0"), (float(volts[i]),)) for i in range(rows)]
    parts += [Part(f"S{j + 1}", "voltage_source", (f"c{rows + 1}_{j + 1}", "0"), (0.0,)) for j in range(columns)]
    first, last = wiring.row + wiring.driver, wiring.column + wiring.sense

    def row(i: int, j: int) -> str:
        return f"r{i}_{min(j, 1) if first and not wiring.row else j if wiring.row else 0}"

    def column(i: int, j: int) -> str:
        return f"c{max(i, rows) if last and not wiring.column else i if wiring.column else rows + 1}_{j}"

    def join(name: str, ends: tuple[str, str], ohm: float) -> None:
        if ohm > 0:
            parts.append(Part(name, "resistor", ends, (1 / ohm,)))

    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            join(f"W{i}_{j}", (row(i, j - 1), row(i, j)), wiring.row if j > 1 else first)
            join(f"U{i}_{j}", (column(i, j), column(i + 1, j)), wiring.column if i < rows else last)
            if (g := float(tile[i - 1, j - 1])) > 0:
                held = g / (1 + wiring.selector * g)
                parts.append(Part(f"G{i}_{j}", "resistor", (row(i, j), column(i, j)), (held,)))
    for i in range(1, rows + 1):
        if wiring.driven_ends == "both":
            join(f"W{i}_{columns + 1}", (row(i, columns), row(i, 0)), first)
    for j in range(1, columns + 1):
        if wiring.sensed_ends == "both":
            join(f"U0_{j}", (column(rows + 1, j), column(1, j)), last)
    return Parts.collect(parts)


def checked(tile: np.ndarray) -> np.ndarray:
    """A tile's conductances (rows, columns), S, as float64; InputError if it is none."""
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
