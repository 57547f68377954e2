"""The Jacobian of a force at a state: products with it and with its transpose, its asymmetry, its eigenvalues.

Equilibrium propagation without an energy rests on three questions about J = dF/ds at a free state: what J and J^T
make of a displacement, how far J is from symmetric, and whether the free state is stable.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from .blocks import State, flat, largest, unflat

DENSE = 256
"""Variables up to which J is kept as a matrix for each example. Beyond it, products cost less than what is kept."""
ENTRIES = 1 << 22
"""Entries that such matrices have in all, at most: 32 MB in float64."""
TOGETHER = 64
"""Rows of J that one pass back through the record finds: more would take memory, fewer time (a quarter of the
time of rows one by one at 100 variables)."""
PAIRS = 4
"""Pairs of random directions along which an asymmetry is measured; each example has its own."""
ZERO = 1e-9
"""Part of the largest eigenvalue below which one is zero; smaller, and symmetries would count as instabilities."""
ROUNDING = 1e3
"""Times eps, and the mean size of two variables' rows of J, by which J_ij and J_ji may differ by rounding."""
KRYLOV = 40
"""Products by which the rightmost eigenvalue of a large Jacobian is sought."""


class Jacobian:
    """J = dF/ds of a force at one state, for each example.

    Parameters
    ----------
    slope : callable
        State to -F, as autograd can follow it.
    state : tuple of Tensor (B, ...)
    scale : Tensor (B, n), optional
        dv/ds of coordinates v, unit by unit: J is then dF/dv. Units that do not move their coordinate have zeros.
    keep : Tensor (B, n), optional
        1 for variables that are free, 0 for those that bounds hold, which are left out.

    Notes
    -----
    The force is recorded once. A product with J^T goes back through that record, one with J through the record of
    the way back. The matrix of few variables is kept from when it, its skew part or its
    eigenvalues are first asked for.
    """

    def __init__(
        self,
        slope: Callable[[State], tuple[torch.Tensor | None, ...]],
        state: State,
        scale: torch.Tensor | None = None,
        keep: torch.Tensor | None = None,
    ) -> None:
        self.shapes = [s.shape for s in state]
        self.keep = keep
        self.inverse = None if scale is None else torch.where(scale == 0, torch.zeros_like(scale), 1 / scale)
        with torch.enable_grad():
            self._at = tuple(s.detach().requires_grad_() for s in state)
            found = slope(self._at)
            parts = [torch.zeros_like(s) if g is None else -g for s, g in zip(self._at, found, strict=True)]
            self._force = torch.cat([p.flatten(1) for p in parts], 1)
        self.rows, self.size = self._force.shape
        self._matrix: torch.Tensor | None = None
        self._way_back: tuple[torch.Tensor, torch.Tensor] | None = None
        self._small = self.size <= DENSE and self.rows * self.size**2 <= ENTRIES

    def _back(self, v: torch.Tensor, graph: bool = False) -> torch.Tensor:
        """The transposed product of dF/ds alone."""
        if not self._force.requires_grad:
            return torch.zeros_like(v)
        found = torch.autograd.grad(
            self._force, self._at, v, retain_graph=True, create_graph=graph, allow_unused=True
        )
        return torch.cat(
            [(torch.zeros_like(s) if g is None else g).flatten(1) for s, g in zip(self._at, found, strict=True)],
            1,
        )

    def _back_together(self, v: torch.Tensor) -> torch.Tensor:
        """Transposed products of dF/ds with many vectors (k, B, n), in one pass where the force can be batched."""
        if self._force.requires_grad:
            try:
                found = torch.autograd.grad(
                    self._force, self._at, v, retain_graph=True, allow_unused=True, is_grads_batched=True
                )
            except RuntimeError:  # an operation of the user's own that knows no batches of gradients
                return torch.stack([self._back(one) for one in v])
            whole = [
                v.new_zeros(len(v), *s.shape) if g is None else g for s, g in zip(self._at, found, strict=True)
            ]
            return torch.cat([w.flatten(2) for w in whole], 2)
        return torch.zeros_like(v)

    def _kept_matrix(self) -> torch.Tensor | None:
        """J of each example, found once; None where variables are many."""
        if self._small and self._matrix is None:
            self._matrix = self._found_matrix()
        return self._matrix

    def _found_matrix(self) -> torch.Tensor:
        """J of each example, (B, n, n): a row for each component of the force."""
        matrix = self._force.new_zeros(self.rows, self.size, self.size)
        unit = torch.eye(self.size, dtype=matrix.dtype, device=matrix.device)
        for first in range(0, self.size, TOGETHER):
            v = unit[first : first + TOGETHER, None].expand(-1, self.rows, -1)
            matrix[:, first : first + TOGETHER] = self._back_together(v).transpose(0, 1)
        if self.inverse is not None:
            matrix *= self.inverse[:, None]
        if self.keep is not None:
            matrix *= self.keep[:, None] * self.keep[:, :, None]
        return matrix.detach().nan_to_num_(0.0, 0.0, 0.0)  # what has diverged has no Jacobian

    @property
    def kept(self) -> torch.Tensor | None:
        """J of each example (B, n, n) where it has been found and kept, else None."""
        return self._matrix

    @property
    def matrix(self) -> torch.Tensor:
        """J of each example, (B, n, n)."""
        kept = self._kept_matrix()
        return self._found_matrix() if kept is None else kept

    def along(self, v: torch.Tensor) -> torch.Tensor:
        """J v of vectors (B, n)."""
        if self._matrix is not None:
            return (self._matrix @ v[:, :, None])[:, :, 0]
        if self._way_back is None:
            with torch.enable_grad():
                dummy = torch.zeros_like(self._force).requires_grad_()
                self._way_back = dummy, self._back(dummy, graph=True)
        dummy, back = self._way_back
        at = self._kept(v if self.inverse is None else self.inverse * v)
        if not back.requires_grad:
            return torch.zeros_like(v)
        found = torch.autograd.grad(back, dummy, at, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(v) if found is None else self._kept(found)

    def back(self, v: torch.Tensor) -> torch.Tensor:
        """J^T v of vectors (B, n)."""
        if self._matrix is not None:
            return (v[:, None] @ self._matrix)[:, 0]
        found = self._back(self._kept(v))
        return self._kept(found if self.inverse is None else self.inverse * found)

    def _kept(self, v: torch.Tensor) -> torch.Tensor:
        return v if self.keep is None else self.keep * v

    def skew(self) -> Callable[[State], State]:
        """v -> (J - J^T) v on blocks: one product with a matrix that is kept, or one with J and one with J^T."""
        kept = self._kept_matrix()
        if kept is not None:
            turned = (
                kept.mT - kept
            ).contiguous()  # rows from the left take half the time of columns from the right
            return lambda v: unflat((flat(v)[:, None] @ turned)[:, 0], self.shapes)

        def product(v: State) -> State:
            whole = flat(v)
            return unflat(self.along(whole) - self.back(whole), self.shapes)

        return product

    def asymmetry(self, even: bool = False) -> float:
        """|A| / |J| over the batch, A = (J - J^T) / 2, in Frobenius norms.

        Where the matrix is not kept, or not yet, random products tell it. Examples that have diverged are left out.

        Parameters
        ----------
        even : bool
            Take differences of scale out: stiff or saturated variables, whose rows are 1e10 of the others', or a
            milliohm at each node, would make any asymmetry look like rounding. Where the matrix is kept the answer
            is that of the pair of variables that differs most (`pairwise_asymmetry`); else J is taken for D J D,
            with D diagonal and D_i^-2 the largest entry of row i, which is symmetric if J is.
        """
        if self._matrix is not None:
            if even:
                return pairwise_asymmetry(self._matrix, None if self.inverse is None else self.inverse != 0)
            return _ratio(float((self._matrix - self._matrix.mT).norm()), float(self._matrix.norm()))
        pairs = random_pairs(self._force)
        ease = torch.ones_like(pairs[0][0])
        if even:
            ease = _ease(torch.maximum(*(self.along(v).detach().abs() for v in pairs[0])))
        sums = torch.zeros(2, dtype=torch.float64, device=self._force.device)
        for v, w in pairs:
            one, other = (ease * self.along(ease * u) for u in (v, w))
            uneven = ((w * one).sum(1) - (v * other).sum(1)) ** 2
            parts = [p.detach().nan_to_num(0.0, 0.0, 0.0).sum() for p in (uneven, one.square())]
            sums += torch.stack(parts)
        apart, size = sums.sqrt().tolist()
        return _ratio(apart, size)

    def rightmost(self, rates: torch.Tensor) -> torch.Tensor:
        """Eigenvalue of largest real part, complex (B,), of diag(rates) J; rates (n,) or (B, n).

        Large Jacobians are asked by Arnoldi's method (Saad, Numerical Methods for Large Eigenvalue Problems, 2011,
        algorithm 6.2); a Ritz value that its residual does not bear out is NaN.
        """
        kept = self._kept_matrix()
        if kept is not None:
            matrix, miss = rates[..., :, None] * kept, None
            if self.keep is not None:  # a variable that is held does not move: give it a rate that nobody notices
                least = -matrix.abs().amax((1, 2))[:, None] * (1 - self.keep)
                matrix = matrix + torch.diag_embed(least)
        else:
            matrix, miss = self._projected(rates)
        values, vectors = torch.linalg.eig(matrix)
        first = values.real.argmax(1, keepdim=True)
        found = values.gather(1, first)[:, 0]
        # A common rotation, say: what rounding may have made of zero is zero.
        found = torch.where(found.abs() <= ZERO * values.abs().amax(1), torch.zeros_like(found), found)
        if miss is None:
            return found
        last = vectors[:, -1].abs().gather(1, first)[:, 0]
        sound = miss * last <= 1e-3 * values.abs().amax(1)
        return torch.where(sound, found, torch.full_like(found, math.nan))

    def _projected(self, rates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hessenberg matrices (B, k, k) of Arnoldi's method, and the size (B,) of what they leave out."""
        generator = torch.Generator().manual_seed(3)
        v = torch.randn(self.size, generator=generator, dtype=torch.float64).to(self._force)
        basis = [self._kept(v.expand(self.rows, -1))]
        basis[0] = basis[0] / basis[0].norm(dim=1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
        depth = min(KRYLOV, self.size)
        table = self._force.new_zeros(self.rows, depth + 1, depth).detach()
        for k in range(depth):
            w = rates * self.along(basis[k])
            stacked = torch.stack(basis, 1)
            for _ in range(2):  # twice, for orthogonality to rounding
                onto = (stacked @ w[:, :, None])[:, :, 0]
                w = w - (onto[:, None] @ stacked)[:, 0]
                table[:, : k + 1, k] += onto
            grown = w.norm(dim=1)
            table[:, k + 1, k] = grown
            basis.append(w / grown.clamp_min(torch.finfo(v.dtype).tiny)[:, None])
        return table[:, :depth], table[:, depth, depth - 1]


def pairwise_asymmetry(matrix: torch.Tensor, moves: torch.Tensor | None = None) -> float:
    """Largest |J_ij - J_ji| / (|J_ij| + |J_ji|) of matrices (B, n, n): 0 if symmetric, 1 of what is one-way.

    Pairs whose difference is within `ROUNDING` eps of the geometric mean of the sizes of both rows count as equal:
    a sum of large entries that cancel leaves as much. Variables that do not move, where `moves` (B, n) is False,
    are left out: nothing is known of what they would do.
    """
    if moves is not None:
        matrix = torch.where(moves[:, :, None] & moves[:, None], matrix, torch.zeros_like(matrix))
    size = matrix.abs()
    root = size.amax(2).sqrt()
    apart = (matrix - matrix.mT).abs()
    beyond = apart > ROUNDING * torch.finfo(matrix.dtype).eps * root[:, :, None] * root[:, None]
    ratios = torch.where(beyond, apart / (size + size.mT), torch.zeros_like(apart))
    return float(ratios.max()) if ratios.numel() else 0.0


def difference_asymmetry(force: Callable[[State], State], state: State, free: State | None) -> float:
    """|A| / |J| of a force at a state, by central differences along random directions, in Frobenius norms.

    With normal v and w the mean of (w^T J v - v^T J w)^2 is |J - J^T|^2, and that of |J v|^2 is |J|^2. Examples
    that have diverged are left out.

    Parameters
    ----------
    force : callable
        State to force, in float64.
    state : tuple of Tensor (B, ...)
    free : tuple of Tensor, optional
        Masks of the variables that bounds do not hold; None: all.
    """
    shapes, at = [s.shape for s in state], flat(state)
    keep = torch.ones_like(at) if free is None else flat(tuple(m.to(at) for m in free))
    size = largest(state)
    step = torch.finfo(at.dtype).eps ** (1 / 3) * torch.where(size > 0, size, torch.ones_like(size))[:, None]

    def along(v: torch.Tensor) -> torch.Tensor:
        up, down = (flat(force(unflat(at + sign * step * v, shapes))) for sign in (1, -1))
        return keep * (up - down) / (2 * step)

    apart = whole = 0.0
    with torch.no_grad():
        for pair in random_pairs(at):
            v, w = (keep * one for one in pair)
            one, other = along(v), along(w)
            uneven = ((w * one).sum(1) - (v * other).sum(1)) ** 2
            sizes = one.square().sum(1)
            sound = uneven.isfinite() & sizes.isfinite()
            apart += float(uneven[sound].sum())
            whole += float(sizes[sound].sum())
    return _ratio(math.sqrt(apart), math.sqrt(whole))


def random_pairs(like: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of normal vectors (B, n) along which an asymmetry is measured, the same ones each time."""
    generator = torch.Generator().manual_seed(4)
    drawn = torch.randn((2 * PAIRS, *like.shape), generator=generator, dtype=torch.float64).to(like)
    return list(zip(drawn[::2], drawn[1::2], strict=True))


def _ease(size: torch.Tensor) -> torch.Tensor:
    """size^-1/2 of rows (B, n); 1 for rows that are zero or have diverged."""
    return torch.where(size.isfinite() & (size > 0), size, torch.ones_like(size)).rsqrt()


def _ratio(apart: float, size: float) -> float:
    return 0.5 * apart / size if size > 0 else 0.0
