"""Tiles of cells, and Kirchhoff's laws for them assembled once more, element by element, for scipy's SuperLU."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

from hardware_models.devices.wiring import Wiring


def pairs(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Cells of random weights: G+ and G- in turn, 1 to 100 uS."""
    weights = np.random.default_rng(seed).uniform(-1, 1, (rows, columns // 2))
    tile = np.full((rows, columns), 1e-6)
    tile[:, ::2] += 9.9e-5 * np.maximum(weights, 0)
    tile[:, 1::2] += 9.9e-5 * np.maximum(-weights, 0)
    return tile


def uniform(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Cells anywhere from 1 to 100 uS."""
    return np.random.default_rng(seed).uniform(1e-6, 1e-4, (rows, columns))


def full(rows: int, columns: int) -> np.ndarray:
    """Cells all at 100 uS."""
    return np.full((rows, columns), 1e-4)


def node_voltages(
    tile: np.ndarray, wiring: Wiring, row_volts: np.ndarray, column_volts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voltages of the nodes of the rows and of the columns, (rows, columns, k), and the currents that columns take,
    (columns, k), for k sets of voltages of lines (lines, k). Row and column wires have some resistance."""
    rows, columns = tile.shape
    above = np.arange(tile.size).reshape(tile.shape)
    below, first = above + tile.size, 2 * tile.size
    drivers, senses = first + np.arange(rows), first + rows + np.arange(columns)
    edges = [(above[i, j], below[i, j], 1 / tile[i, j] + wiring.selector) for i, j in np.ndindex(*tile.shape)]
    edges += [(above[i, j - 1], above[i, j], wiring.row) for i in range(rows) for j in range(1, columns)]
    edges += [(below[i - 1, j], below[i, j], wiring.column) for i in range(1, rows) for j in range(columns)]
    edges += [(drivers[i], above[i, 0], wiring.row + wiring.driver) for i in range(rows)]
    edges += [(senses[j], below[-1, j], wiring.column + wiring.sense) for j in range(columns)]
    if wiring.driven_ends == "both":
        edges += [(drivers[i], above[i, -1], wiring.row + wiring.driver) for i in range(rows)]
    if wiring.sensed_ends == "both":
        edges += [(senses[j], below[0, j], wiring.column + wiring.sense) for j in range(columns)]
    a, b = np.array([edge[:2] for edge in edges]).T
    g = 1 / np.array([edge[2] for edge in edges])
    entries = (np.concatenate([g, g, -g, -g]), (np.concatenate([a, b, a, b]), np.concatenate([a, b, b, a])))
    size = first + rows + columns
    matrix = coo_matrix(entries, shape=(size, size)).tocsc()
    held = np.concatenate([row_volts, column_volts])
    inner = splu(matrix[:first, :first].tocsc(), permc_spec="MMD_AT_PLUS_A").solve(-matrix[:first, first:] @ held)
    sent = matrix[first:] @ np.concatenate([inner, held])
    up, down = inner[: tile.size], inner[tile.size :]
    return up.reshape(*tile.shape, -1), down.reshape(*tile.shape, -1), -sent[rows:]


def full_solution(tile: np.ndarray, wiring: Wiring) -> np.ndarray:
    """Currents at the columns for 1 V at each row in turn, (rows, columns), S."""
    rows, columns = tile.shape
    return node_voltages(tile, wiring, np.eye(rows), np.zeros((columns, rows)))[2].T
