"""Nudging schemes as data: finite-difference stencils in the nudging strength beta.

A stencil has nodes n_i and weights w_i; with states s_i at the equilibria of E + (beta n_i) C, the estimate is

    dL/dtheta  ~  (1 / beta) * sum_i w_i dE/dtheta(s_i),      sum w = 0,   sum w n = 1,

exact up to O(beta^order) when the moments sum w n^m vanish for m = 2 ... order (Scellier and Bengio 2017;
Laborieux 2021 for the centered one; Laborieux and Zenke 2022 for the complex circle).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .cost import Cost
from .errors import InputError, argument_error, unknown_name


@dataclass(frozen=True)
class Stencil:
    """A nudging scheme.

    Attributes
    ----------
    name : str
    nodes, weights : tuple of complex or float
        As above. A node 0 is the free state.
    order : int
        The estimate's error is O(beta^order).
    random : bool
        Draw a sign an example, which multiplies nodes and weights.
    """

    name: str
    nodes: tuple[complex, ...]
    weights: tuple[complex, ...]
    order: int
    random: bool = False

    @property
    def analytic(self) -> bool:
        """Whether nodes leave the real line, so that the energy must be analytic."""
        return any(complex(n).imag != 0 for n in self.nodes)

    @property
    def has_negative(self) -> bool:
        """Whether a phase is pushed away from the target (Re node < 0, or a random sign)."""
        return self.random or any(complex(n).real < -1e-12 for n in self.nodes)

    def moment(self, m: int) -> complex:
        """Sum of w n^m: 0 for m = 0, 1 for m = 1, 0 for m = 2 ... order."""
        return sum((complex(w) * complex(n) ** m for n, w in zip(self.nodes, self.weights, strict=True)), 0j)

    def pairs(self) -> tuple[tuple[int, int | None, complex], ...]:
        """Contrasts (i, j, weight): weight * [dE(s_i) - dE(s_j)], j None for the free state.

        Opposite nodes with opposite weights go together, since their even orders cancel before rounding does
        harm; the rest are taken against the free state (allowed because sum w = 0).
        """
        found: list[tuple[int, int | None, complex]] = []
        done: set[int] = set()
        for i, (node, weight) in enumerate(zip(self.nodes, self.weights, strict=True)):
            if i in done or abs(node) < 1e-12:
                continue
            done.add(i)
            partner = next(
                (
                    j
                    for j in range(len(self.nodes))
                    if j not in done and abs(self.nodes[j] + node) < 1e-12 and abs(self.weights[j] + weight) < 1e-12
                ),
                None,
            )
            if partner is not None:
                done.add(partner)
            found.append((i, partner, weight))
        return tuple(found)

    def mirrored(self) -> tuple[tuple[int, int], ...]:
        """Nodes (i, j) in the lower half plane with their conjugates j: s_i is the conjugate of s_j, not relaxed.

        An even number N of points on a circle needs N/2 + 1 phases.
        """
        return tuple(
            (i, j)
            for i, node in enumerate(self.nodes)
            for j, other in enumerate(self.nodes)
            if complex(node).imag < -1e-12 and _same(other, complex(node).conjugate())
        )

    def relaxed(self) -> tuple[int, ...]:
        """Nodes that need a nudged phase of their own."""
        skip = {i for i, _ in self.mirrored()}
        return tuple(i for i, node in enumerate(self.nodes) if abs(node) > 1e-12 and i not in skip)

    def halved_pairs(self) -> tuple[tuple[int, int | None, complex], ...]:
        """`pairs`, conjugate ones taken once with twice the weight: their sum is twice the real part."""
        kept: list[tuple[int, int | None, complex]] = []
        done: set[int] = set()
        conjugate = dict(self.mirrored())
        conjugate |= {j: i for i, j in conjugate.items()}
        pairs = self.pairs()
        for a, (i, j, w) in enumerate(pairs):
            if a in done:
                continue
            mine = {conjugate.get(i, i), None if j is None else conjugate.get(j, j)}
            twin = next(
                (b for b, (k, m, _) in enumerate(pairs) if b > a and b not in done and {k, m} == mine), None
            )
            if twin is not None:
                done.add(twin)
            kept.append((i, j, w if twin is None else 2 * w))
        return tuple(kept)


def _same(a: complex, b: complex) -> bool:
    return abs(a - b) < 1e-12


def positive() -> Stencil:
    """Free state and +beta: [dF(+b) - dF(0)] / b, first order."""
    return Stencil("positive", (0.0, 1.0), (-1.0, 1.0), order=1)


def negative() -> Stencil:
    """-beta and free state: [dF(0) - dF(-b)] / b, first order; descends an upper bound (Scellier 2023)."""
    return Stencil("negative", (-1.0, 0.0), (-1.0, 1.0), order=1)


def random_sign() -> Stencil:
    """One-sided with a sign drawn for each example: first order, unbiased to second on average."""
    return Stencil("random", (0.0, 1.0), (-1.0, 1.0), order=1, random=True)


def centered() -> Stencil:
    """+beta and -beta: [dF(+b) - dF(-b)] / 2b, second order (Laborieux 2021)."""
    return Stencil("centered", (1.0, -1.0), (0.5, -0.5), order=2)


def holomorphic(n: int) -> Stencil:
    """n points on a circle in the complex plane: error O(beta^n); the energy must be analytic.

    Parameters
    ----------
    n : int
        Number of points, at least 2.

    Raises
    ------
    InputError
        If n < 2.
    """
    if n < 2:
        raise argument_error("n of holomorphic(n)", "be an integer of at least 2", n)
    roots = [cmath.exp(2j * math.pi * k / n) for k in range(n)]
    return Stencil(f"holomorphic:{n}", tuple(roots), tuple(r.conjugate() / n for r in roots), order=n)


SCHEMES: dict[str, Callable[[], Stencil]] = {
    "positive": positive,
    "negative": negative,
    "random": random_sign,
    "centered": centered,
}


def scheme_from_name(name: str | Stencil) -> Stencil:
    """Stencil for 'centered', 'positive', 'negative', 'random' or 'holomorphic:N'."""
    if isinstance(name, Stencil):
        return name
    kind, _, count = str(name).partition(":")
    if kind == "holomorphic":
        if not count.isdigit():
            raise InputError(f"Argument scheme must be holomorphic:N with an integer N, but was {name!r}.")
        return holomorphic(int(count))
    if name not in SCHEMES:
        raise unknown_name("scheme", name, [*SCHEMES, "holomorphic:N"])
    return SCHEMES[name]()


@dataclass(frozen=True)
class Nudge:
    """A cost added to the energy: F = E + beta C(outputs, y).

    Attributes
    ----------
    cost : Cost
    y : Tensor
        Targets, as `cost` takes them.
    beta : float, complex or Tensor (B,)
        Nudging strength, in units of energy over cost; negative pushes away from the target. Complex for
        holomorphic schemes.
    """

    cost: Cost
    y: torch.Tensor
    beta: float | complex | torch.Tensor

    def __post_init__(self) -> None:
        beta = self.beta
        if not isinstance(beta, int | float | complex | torch.Tensor):
            raise argument_error("beta", "be a number or a tensor of them", repr(beta))
        if not (bool(torch.isfinite(beta).all()) if isinstance(beta, torch.Tensor) else cmath.isfinite(beta)):
            was = "NaN or infinite entries" if isinstance(beta, torch.Tensor) else beta
            raise argument_error("beta", "be finite", was)
        reason, least = self.cost.positive_only, float(torch.as_tensor(beta).real.min())
        if reason is not None and least < 0:
            raise argument_error(
                "beta", f"not be negative under the cost {self.cost.name!r}: {reason}", f"{least:g}"
            )

    @property
    def is_complex(self) -> bool:
        """Whether states under this nudge are complex."""
        return self.beta.is_complex() if isinstance(self.beta, torch.Tensor) else isinstance(self.beta, complex)

    def dtype(self, real: torch.dtype) -> torch.dtype:
        """dtype of states under this nudge, for a system of dtype `real`."""
        return real.to_complex() if self.is_complex else real

    def column(self, like: torch.Tensor) -> torch.Tensor | float | complex:
        """Beta shaped to multiply a (B, n) tensor."""
        if isinstance(self.beta, torch.Tensor) and self.beta.ndim:
            return self.beta.to(like.device, self.dtype(like.dtype))[:, None]
        value = self.beta.item() if isinstance(self.beta, torch.Tensor) else self.beta
        return value if isinstance(value, complex) else float(value)

    def linear(self, real: torch.dtype) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(stiffness, force) of `Cost.linear`, both (B, n_out), for a system of dtype `real`; else None."""
        dtype = self.dtype(real)
        y = self.y.to(real)
        beta = torch.as_tensor(self.beta, dtype=dtype, device=y.device).expand(len(y))[:, None]
        parts = self.cost.linear(y, beta)
        if parts is None:
            return None
        stiffness, force = (torch.as_tensor(part, dtype=dtype, device=y.device).expand_as(y) for part in parts)
        return stiffness, force

    def energy(self, outputs: torch.Tensor) -> torch.Tensor:
        """beta C, (B,)."""
        beta = self.beta
        if isinstance(beta, torch.Tensor):
            beta = beta.to(outputs.device, outputs.dtype if outputs.is_complex() else self.dtype(outputs.dtype))
        return beta * self.cost(outputs, self.y)
