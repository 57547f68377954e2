"""Linear equations of a medium on a device: v is eliminated, and what is left of u is a dense matrix an example.

The inverse G of g + L_v is the same for all examples, and positive. With it the equations of `saddle` become

    (L_u + diag(c) + G) a = r + G s,        b = G (a - s),

whose matrix, the reduced Hessian of u, is the Schur complement of the block of v (Boyd and Vandenberghe, Convex
Optimization (2004), appendix A.5.5). A device factorises the matrices of a batch together; nothing is copied to the
host, which waits for nothing. n sites cost n^2 numbers and 2/3 n^3 operations an example: more than the band of
`saddle` on a chain, and about as much on a square sheet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .fields import stiffness

CHUNK = 2**30
"""Bytes of matrices that are factorised together: more would leave no room for what else a device holds."""


class Schur:
    """The reduced Hessian of u but for the diagonal c, and solutions of the medium's equations with it.

    Parameters
    ----------
    grid : sequence of int
    rates_u, rates_v : sequence of Tensor
        Diffusion coefficients over the spacing squared, a tensor an axis.
    leak : float
        g.
    periodic : bool
    """

    def __init__(
        self,
        grid: Sequence[int],
        rates_u: Sequence[torch.Tensor],
        rates_v: Sequence[torch.Tensor],
        leak: float,
        periodic: bool,
    ) -> None:
        eye = torch.eye(math.prod(grid), dtype=torch.float64, device=rates_u[0].device)
        along_u, along_v = (
            stiffness(eye.unflatten(1, tuple(grid)), [r.double() for r in rates], periodic).flatten(1)
            for rates in (rates_u, rates_v)
        )
        self.eye = eye
        self.below = torch.cholesky_inverse(torch.linalg.cholesky_ex(along_v + leak * eye).L)
        self.matrix = along_u + self.below

    def solve(self, diagonal: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Solve (L_u + diag(c) + G) a = r + G s, b = G (a - s) for k right-hand sides an example.

        Parameters
        ----------
        diagonal : Tensor (B, sites)
            c, float64 or complex128.
        right : Tensor (B, k, 2, sites)
            r and s, float64 or complex128.

        Returns
        -------
        Tensor (B, k, 2, sites)
            a and b; NaN for an example whose matrix has no inverse or is not finite.
        """
        kind = torch.promote_types(diagonal.dtype, right.dtype)
        parts = (t.to(kind).split(self._rows(kind)) for t in (diagonal, right))
        return torch.cat([self._solved(c, r) for c, r in zip(*parts, strict=True)])

    def _solved(self, diagonal: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        below = self.below.to(right.dtype)
        r, s = right.unbind(2)
        lu, pivots, info = torch.linalg.lu_factor_ex(self.matrix.to(right.dtype) + torch.diag_embed(diagonal))
        a = torch.linalg.lu_solve(lu, pivots, (r + s @ below).mT).mT
        found = torch.stack([a, (a - s) @ below], 2)
        known = torch.isfinite(found).flatten(1).all(1) & (info == 0)
        return found.masked_fill(~known[:, None, None, None], math.nan)

    def ascends(self, diagonal: torch.Tensor) -> torch.Tensor:
        """Whether the reduced Hessian of u has an eigenvalue that is not positive, for real c (B, sites): (B,).

        Where it has none, Cholesky's factorisation runs through.
        """
        parts = diagonal.double().split(self._rows(torch.float64))
        infos = [torch.linalg.cholesky_ex(self.matrix + torch.diag_embed(c)).info for c in parts]
        return torch.cat(infos) != 0

    def _rows(self, kind: torch.dtype) -> int:
        return max(1, CHUNK // (kind.itemsize * self.matrix.numel()))
