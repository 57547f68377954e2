"""Vortices of phases on a square lattice, the defects of the XY model: where phases go round by a whole turn.

The *winding* of a plaquette is the sum of the four differences of phase round it, each taken in [-pi, pi], over
2 pi (Kosterlitz and Thouless, J. Phys. C 6, 1181, 1973). It is +1 for a vortex, -1 for an antivortex, else 0. Two
plaquettes share each difference, with opposite signs, so that on a torus windings sum to zero exactly, whatever the
phases. `OscillatorGraph.lattice` builds the lattices, numbered in the same row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from physics_ep.blocks import all_finite
from physics_ep.errors import argument_error


def windings(phases: torch.Tensor, shape: Sequence[int], *, periodic: bool = True) -> torch.Tensor:
    """Count the turns that phases make round each plaquette of a square lattice.

    Parameters
    ----------
    phases : Tensor (..., rows columns)
        Radians, in row-major order (`OscillatorGraph.phases` of a state).
    shape : (rows, columns)
        Sides of the lattice: at least 2, at least 3 on a torus.
    periodic : bool
        Whether the lattice is a torus, as `OscillatorGraph.lattice` takes it.

    Returns
    -------
    int64 Tensor (..., rows, columns), or (..., rows - 1, columns - 1)
        Of plaquette (i, j) the corners are (i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j), and turns along these
        count as positive.

    Raises
    ------
    InputError
        If an argument is not as above, or a phase is not finite.

    Examples
    --------
    >>> square = torch.tensor([0.0, 1.6, -1.6, 3.1])  # a quarter of a turn from corner to corner
    >>> windings(square, (2, 2), periodic=False).tolist()
    [[1]]
    """
    rows, columns = _sides(shape, 3 if periodic else 2)
    if not isinstance(phases, torch.Tensor) or not phases.is_floating_point():
        was = phases.dtype if isinstance(phases, torch.Tensor) else type(phases).__name__
        raise argument_error("phases", "be a tensor of floating point", was)
    if phases.ndim < 1 or phases.shape[-1] != rows * columns:
        raise argument_error("phases", f"be of shape (..., {rows * columns})", tuple(phases.shape))
    if not all_finite(phases):
        raise argument_error("phases", "be finite", "NaN or infinite entries")
    phi = phases.detach().unflatten(-1, (rows, columns))
    if periodic:
        phi = torch.cat([phi, phi[..., :1, :]], -2)
        phi = torch.cat([phi, phi[..., :1]], -1)
    # Each difference is taken once, and enters both its plaquettes as the same number.
    along, down = _nearest(phi.diff(dim=-1)), _nearest(phi.diff(dim=-2))
    around = along[..., :-1, :] + down[..., 1:] - along[..., 1:, :] - down[..., :-1]
    return (around / (2 * math.pi)).round().to(torch.int64)


def vortex_count(phases: torch.Tensor, shape: Sequence[int], *, periodic: bool = True) -> torch.Tensor:
    """Number of vortices and antivortices together, int64 (...): of arguments as `windings` takes them."""
    return windings(phases, shape, periodic=periodic).abs().sum((-2, -1))


def vortex_pair(
    shape: Sequence[int],
    vortex: tuple[float, float],
    antivortex: tuple[float, float],
) -> torch.Tensor:
    """Phases round a vortex and an antivortex on a lattice without periodic sides, as in a continuum.

    phi = arg(z - z_1) - arg(z - z_2): each bond of a lattice then has 1 - cos(phi_i - phi_j), and a pair r apart an
    energy of 2 pi W ln r and a constant, where 1 << r << sides (Kosterlitz and Thouless 1973).

    Parameters
    ----------
    shape : (rows, columns)
    vortex, antivortex : (float, float)
        Row and column of each; halves lie in the middle of a plaquette.

    Returns
    -------
    Tensor (rows columns,)
        Radians, in torch's default dtype.

    Raises
    ------
    InputError
        If the shape is not two sides of at least 2.
    """
    rows, columns = _sides(shape, 2)
    i, j = torch.meshgrid(
        *(torch.arange(n, dtype=torch.get_default_dtype()) for n in (rows, columns)), indexing="ij"
    )
    turns = [torch.atan2(i - centre[0], j - centre[1]) for centre in (vortex, antivortex)]
    return (turns[0] - turns[1]).flatten()


def _sides(shape: Sequence[int], least: int) -> tuple[int, int]:
    sides = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sides) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or s < least for s in sides):
        raise argument_error("shape", f"be two integers of at least {least}, rows and columns", shape)
    return sides[0], sides[1]


def _nearest(difference: torch.Tensor) -> torch.Tensor:
    """Differences of phase less whole turns, in [-pi, pi]."""
    return difference - 2 * math.pi * (difference / (2 * math.pi)).round()
