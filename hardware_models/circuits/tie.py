"""Outputs that ideal sources hold in a clamped phase: a plane in the space of the unknowns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from physics_ep.errors import InputError


class Tie(NamedTuple):
    """Outputs that sources hold at target voltages: E z = target.

    Attributes
    ----------
    rows : array (n_out, n)
        E.
    inverse : array (n, n_out)
        E^T (E E^T)^-1.
    target : array (B, n_out)
        Volts.
    """

    rows: np.ndarray
    inverse: np.ndarray
    target: np.ndarray

    def onto(self, z: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Nearest z at which the outputs of the examples `rows` are held."""
        return z - (z @ self.rows.T - self.target[rows]) @ self.inverse.T

    def along(self, force: np.ndarray) -> np.ndarray:
        """The part of a force that the sources leave free."""
        return force - (force @ self.rows.T) @ self.inverse.T


def tied(rows: np.ndarray, target: np.ndarray, names: Sequence[str]) -> Tie:
    """The tie of outputs, `rows` (n_out, n) of the unknowns, at `target` (B, n_out) volts.

    Raises
    ------
    InputError
        If an output follows from others, so that it cannot be held by itself.
    """
    for count in range(1, len(rows) + 1):
        if np.linalg.matrix_rank(rows[:count]) < count:
            raise InputError(
                "Argument system must have output nodes that can be held one by one to clamp them, but "
                f"{names[count - 1]!r} follows from the outputs before it."
            )
    return Tie(rows, np.linalg.pinv(rows), target)
