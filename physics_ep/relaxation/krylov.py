"""Krylov methods, each example of a batch by itself: steps within a radius, lowest values, and GMRES.

An operator acts on vectors (B, n) and mixes no examples. It is symmetric but for `gmres`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

Operator = Callable[[torch.Tensor], torch.Tensor]
"""(B, n) -> (B, n), symmetric for each example."""


UNASKED = 4
"""Products of conjugate gradients before a device is asked whether they are enough: steps of the trust region
take 4 to 8 on networks of a few units already. From then on it is asked where the pace so far would have it end."""


NEAR = 0.999
"""Part of a squared radius from which on the boundary is looked for: rounding of squared lengths is far less."""


class QuadraticStep(NamedTuple):
    """The step that conjugate gradients found, and how they ended.

    Attributes
    ----------
    move : Tensor (B, n)
    gain : Tensor (B,)
        -(g . p + p . A p / 2): how far the quadratic model falls.
    bounded : Tensor (B,)
        Whether the move ends on the boundary of the region.
    indefinite : Tensor (B,)
        Whether a direction of curvature <= 0 was met.
    products : int
        Products with A.
    """

    move: torch.Tensor
    gain: torch.Tensor
    bounded: torch.Tensor
    indefinite: torch.Tensor
    products: int


def conjugate_gradients(
    product: Operator,
    slope: torch.Tensor,
    forcing: torch.Tensor,
    depth: int,
    *,
    radius: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> QuadraticStep:
    """Minimise slope . p + p . A p / 2 for each example within |p| <= radius (Steihaug 1983; Toint 1981).

    Where a direction of curvature <= 0 is met, it is followed to the boundary; without a radius, the example stops
    short of it. Consistent singular systems are solved too, since no direction leaves the range of A.

    Parameters
    ----------
    product : callable
        v -> A v.
    slope : Tensor (B, n)
    forcing : Tensor (B,)
        Stop where |slope + A p| is below this times |slope|.
    depth : int
        Products at most.
    radius : Tensor (B,), optional
        Largest length of the step, in the norm of `scale`.
    scale : Tensor (B, n), optional
        Positive estimate of A's diagonal, which preconditions and measures lengths. Default ones.

    Returns
    -------
    QuadraticStep
    """
    finfo = torch.finfo(slope.dtype)
    metric = torch.ones_like(slope) if scale is None else scale
    p = torch.zeros_like(slope)
    r = -slope
    y = r / metric
    d = y
    ry = dot(r, y)
    goal = forcing**2 * ry
    going = ry > goal
    bounded = torch.zeros_like(going)
    indefinite = torch.zeros_like(going)
    zero = ry.new_zeros(())
    edge = None if radius is None else radius**2
    products = 0
    host = slope.device.type == "cpu"
    ask = UNASKED
    while products < depth:
        # A device is asked where it may be done: one product too many changes nothing.
        if host:
            if not bool(going.any()):
                break
        elif products == ask:
            left = _left(going, ry, goal, forcing)
            if left is None:
                break
            ask += max(1, int(products * min(left / (1 - left), 1.0)) if left < 1 else 1)
        hd = product(d)
        products += 1
        curvature = dot(d, hd)
        # What rounding may have made of zero is zero.
        flat = going & (curvature <= 10 * finfo.eps * dot(d.abs(), hd.abs()))
        whole = going ^ flat
        alpha = torch.where(whole, ry / curvature, zero)
        following = p + alpha[:, None] * d
        indefinite = indefinite | flat
        # The host looks where the boundary is only once a whole step comes near it; a device would be asked.
        if edge is not None and not (host and _inside(following, metric, NEAR * edge, going, whole)):
            weighed = p * metric
            pp, pd, dd = dot(weighed, p), dot(weighed, d), dot(d * metric, d).clamp_min(finfo.tiny)
            room = (edge - pp).clamp_min(0)
            # The positive root of |p + tau d| = radius, without cancellation.
            root = (pd**2 + dd * room).sqrt()
            tau = torch.where(pd > 0, room / (pd + root).clamp_min(finfo.tiny), (root - pd) / dd)
            out = going & (flat | (alpha >= tau))
            alpha = torch.where(out, tau, alpha)
            following = p + alpha[:, None] * d
            bounded = bounded | out
            whole = going ^ out
        p = following
        r = r - alpha[:, None] * hd
        y = r / metric
        new = dot(r, y)
        ratio = torch.where(whole, new / ry.clamp_min(finfo.tiny), zero)
        going = whole & (new > goal) & (new < math.inf)
        d = y + ratio[:, None] * d
        ry = new
    # A p is -slope - r.
    gain = 0.5 * dot(r - slope, p)
    return QuadraticStep(p, gain, bounded, indefinite, products)


def _inside(
    p: torch.Tensor, metric: torch.Tensor, edge: torch.Tensor, going: torch.Tensor, whole: torch.Tensor
) -> bool:
    """Whether all examples that are going took a whole step, to a p of squared length <= edge (no NaN)."""
    return torch.equal(whole & (dot(p * metric, p) <= edge), going)


def _left(going: torch.Tensor, ry: torch.Tensor, goal: torch.Tensor, forcing: torch.Tensor) -> float | None:
    """Largest part of the decades to the goal that is left to an example still going; None where none is."""
    left = (ry / goal).log() / (-2 * forcing.log())
    largest = torch.where(going, left, -torch.ones_like(left)).amax().item()
    return None if largest < 0 else largest


def lowest_value(
    product: Operator,
    start: torch.Tensor,
    *,
    without: torch.Tensor | None = None,
    tolerance: float = 1e-8,
    share: float = 0.0,
    depth: int = 600,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Smallest eigenvalue of a symmetric operator for each example, by Lanczos' method, fully orthogonalised.

    Parameters
    ----------
    product : callable
    start : Tensor (B, n)
        First vectors; random ones miss no eigenvector.
    without : Tensor (B, k, n), optional
        Orthonormal directions that are left out.
    tolerance : float
        Error of the eigenvalue, over the spectrum's width as far as it is known.
    share : float
        An error below this part of the eigenvalue itself is enough too.
    depth : int
        Products at most.

    Returns
    -------
    value : Tensor (B,)
        Least eigenvalue, approached from above; NaN where products are not finite.
    width : Tensor (B,)
        Size of the largest eigenvalue met.
    products : int
    """
    finfo = torch.finfo(start.dtype)
    n = start.shape[1]
    depth = min(depth, n if without is None else n - without.shape[1])
    v = unit(deflated(start, without))
    basis = v[:, None]
    diagonal: list[torch.Tensor] = []
    off: list[torch.Tensor] = []
    size = torch.zeros_like(v[:, 0])
    spent = torch.zeros_like(size, dtype=torch.bool)
    look = 4
    while True:
        w = deflated(product(v), without)
        # An exhausted space goes on with values that it has already.
        diagonal.append(torch.where(spent, diagonal[0], dot(v, w)) if diagonal else dot(v, w))
        for _ in range(2):  # twice, for orthogonality to rounding
            w = w - ((basis @ w[:, :, None]).mT @ basis)[:, 0]
            w = deflated(w, without)
        grown = w.norm(dim=1)
        size = torch.maximum(size, diagonal[-1].abs() + grown)
        spent = spent | (grown <= 100 * finfo.eps * size)
        grown = torch.where(spent, torch.zeros_like(grown), grown)
        k = len(diagonal)
        if k >= min(look, depth):
            # Eigenvalues of the tridiagonal matrix cost k^3: they are looked at ever more rarely.
            look = k + max(4, k // 4)
            # On the host, for which they are small: a device waits for their error code, and then to be asked.
            packed = torch.stack([*diagonal, *off, grown], 1).cpu()
            sound = packed.isfinite().all(1)
            packed = packed.masked_fill(~sound[:, None], 0.0)
            small = torch.diag_embed(packed[:, :k])
            if off:
                beside = packed[:, k:-1]
                small = small + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
            values, frames = torch.linalg.eigh(small)
            values = values.masked_fill(~sound[:, None], math.nan)
            # The error of a Ritz value: squared, over the gap to the next (Parlett, The Symmetric Eigenvalue
            # Problem, theorem 11.7.1).
            miss = packed[:, -1] * frames[:, -1, 0].abs()
            gap = (values[:, min(1, k - 1)] - values[:, 0]).clamp_min(finfo.tiny)
            error = torch.minimum(miss, miss**2 / gap)
            width = values.abs().amax(1)
            known = error <= torch.maximum(tolerance * width, share * values[:, 0].abs())
            if k >= depth or bool((known | ~sound).all()):
                lowest, widest = torch.stack([values[:, 0], width]).to(start.device, non_blocking=True)
                return lowest, widest, k
        off.append(grown)
        v = torch.where(spent[:, None], torch.zeros_like(w), w / grown.clamp_min(finfo.tiny)[:, None])
        basis = torch.cat([basis, v[:, None]], 1)


def orthonormal(directions: torch.Tensor) -> torch.Tensor:
    """Orthonormal basis (B, k, n) of directions (B, k, n)."""
    return torch.linalg.qr(directions.mT)[0].mT


def deflated(v: torch.Tensor, without: torch.Tensor | None) -> torch.Tensor:
    """v less its components along orthonormal directions (B, k, n)."""
    return v if without is None else v - ((without @ v[:, :, None]).mT @ without)[:, 0]


def unit(v: torch.Tensor) -> torch.Tensor:
    """The vector v divided by its length."""
    return v / v.norm(dim=1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Product of the rows of two (B, n): (B,)."""
    return torch.linalg.vecdot(a, b)


def gmres(
    product: Callable[[torch.Tensor], torch.Tensor], right: torch.Tensor, depth: int, tolerance: float
) -> torch.Tensor:
    """Solve A x = right for each example, A x = product(x): Saad and Schultz 1986, without restarts.

    Parameters
    ----------
    product : callable (B, n) -> (B, n)
        Acts on each example alone.
    right : Tensor (B, n)
    depth : int
        Dimension of the Krylov space.
    tolerance : float
        Stop when every |right - A x| is below this times |right|.

    Returns
    -------
    Tensor (B, n)
    """
    tiny = torch.finfo(right.dtype).tiny
    size = right.norm(dim=1, keepdim=True)
    basis = [right / size.clamp_min(tiny)]
    batch, n = right.shape
    depth = min(depth, n)
    hessenberg = right.new_zeros(batch, depth + 1, depth)
    target = right.new_zeros(batch, depth + 1, 1)
    target[:, 0] = size
    y = right.new_zeros(batch, 0, 1)
    for j in range(depth):
        w = product(basis[j])
        for i, v in enumerate(basis):
            h = (v.conj() * w).sum(1)
            hessenberg[:, i, j] = h
            w = w - h[:, None] * v
        grown = w.norm(dim=1)
        hessenberg[:, j + 1, j] = grown
        # An exhausted space leaves a zero vector, which changes nothing.
        basis.append(torch.where((grown > tiny)[:, None], w / grown.clamp_min(tiny)[:, None], torch.zeros_like(w)))
        h = hessenberg[:, : j + 2, : j + 1]
        normal = h.mH @ h
        # Nothing on the right is answered by nothing: with a smaller ridge the solve would divide 0 by 0.
        ridge = (torch.finfo(right.dtype).eps * normal.diagonal(dim1=1, dim2=2).real.amax(1)).clamp_min(tiny)
        eye = torch.eye(j + 1, dtype=right.dtype, device=right.device)
        y = torch.linalg.solve(normal + ridge[:, None, None] * eye, h.mH @ target[:, : j + 2])
        left = (target[:, : j + 2] - h @ y).norm(dim=1)
        if bool((left <= tolerance * size).all()):
            break
    return (torch.stack(basis[: y.shape[1]], 2) @ y)[:, :, 0]
