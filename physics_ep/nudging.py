"""Nudging schemes as data: finite-difference stencils in the nudging strength beta.

A stencil has nodes n_i and weights w_i; with states s_i at the equilibria of E + (beta n_i) C, the estimate is

    dL/dtheta  ~  (1 / beta) * sum_i w_i dE/dtheta(s_i),      sum w = 0,   sum w n = 1,

exact up to O(beta^order) when the moments sum w n^m vanish for m = 2 ... order (Scellier and Bengio 2017;
Laborieux 2021 for the centered one; Laborieux and Zenke 2022 for the complex circle).

A scheme of your own is a `Stencil`. `register_scheme` gives it a name for configs and the command; an installed
package names its own as entry points `physics_ep.schemes`.
"""

from __future__ import annotations

import cmath
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import EntryPoint
from itertools import combinations
from numbers import Complex, Integral, Real

import torch

from .blocks import is_dense, tiled
from .cost import Cost, as_cost, as_targets, costs
from .entries import entries, load
from .errors import InputError, argument_error, described, is_real, unknown_name
from .reads import read


@dataclass(frozen=True)
class Stencil:
    """A nudging scheme: strengths of the nudges, as multiples of beta, and weights of their contrasts.

    Attributes
    ----------
    name : str
    nodes, weights : tuple of complex or float
        Strengths over beta at which to nudge, and their weights in the gradient. A node 0 is the free state, and
        its weight one of those that sum to 0.
    order : int
        The estimate's error is O(beta^order).
    random : bool
        Draw a sign an example, which multiplies nodes and weights.

    Raises
    ------
    InputError
        If the weights are no derivative of the declared order (sum w = 0, sum w n = 1, sum w n^m = 0 for m = 2 ...
        order, to rounding), or nodes and weights are not equally many finite numbers, or a node stands there twice.

    Examples
    --------
    >>> Stencil("five_point", (2.0, 1.0, -1.0, -2.0), (-1 / 12, 8 / 12, -8 / 12, 1 / 12), order=4).analytic
    False
    """

    name: str
    nodes: tuple[complex, ...]
    weights: tuple[complex, ...]
    order: int
    random: bool = False

    def __post_init__(self) -> None:
        of = f"of the scheme {self.name!r}"
        if not isinstance(self.name, str) or not self.name:
            raise argument_error("name of a scheme", "be a text", repr(self.name))
        if not isinstance(self.order, Integral) or isinstance(self.order, bool) or self.order < 1:
            raise argument_error(f"order {of}", "be an integer of 1 or more", repr(self.order))
        for name in ("nodes", "weights"):
            object.__setattr__(self, name, _numbers(f"{name} {of}", getattr(self, name)))
        if len(self.nodes) != len(self.weights):
            must = f"be as many as its nodes, {len(self.nodes)}"
            raise argument_error(f"weights {of}", must, f"{len(self.weights)}")
        for a, b in combinations(self.nodes, 2):
            if _same(a, b):
                raise argument_error(f"nodes {of}", "all differ", f"{_shown(a)} twice")
        terms = [complex(w) for w in self.weights]
        for m in range(self.order + 1):
            total, size = sum(terms), sum(map(abs, terms))
            if not abs(total - (m == 1)) <= (ROUNDING + 8 * m * sys.float_info.epsilon) * size:
                power = "" if m == 0 else " n" if m == 1 else f" n^{m}"
                why = f", as its order is {self.order}" if m > 1 else ""
                must = f"have sum w{power} = {int(m == 1)} over all nodes n{why}"
                raise argument_error(f"weights {of}", must, _shown(total))
            terms = [t * n for t, n in zip(terms, self.nodes, strict=True)]

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


ROUNDING = 1e-12
"""How far a moment of a stencil may be from what it must be, over the sum of the sizes of its terms. Weights that
are rounded to twelve digits pass; with fewer, the estimate's error would stop falling with beta."""


def _same(a: complex, b: complex) -> bool:
    return abs(a - b) < 1e-12


def _numbers(name: str, values: Sequence[complex]) -> tuple[complex, ...]:
    """Finite numbers as floats, or complex ones as they are."""
    must = "be a row of finite numbers"
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise argument_error(name, must, repr(values))
    found: list[complex] = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, Complex):
            raise argument_error(name, must, repr(value))
        found.append(float(value) if isinstance(value, Real) else complex(value))
        if not cmath.isfinite(found[-1]):
            raise argument_error(name, must, found[-1])
    return tuple(found)


def _shown(value: complex) -> str:
    return f"{value.real:.10g}" if abs(value.imag) < ROUNDING else f"{value:.10g}"


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


MOST_POINTS = 1000
"""Most points of a holomorphic scheme. Each is a phase; with far fewer, rounding limits the estimate already."""


def holomorphic(n: int) -> Stencil:
    """n points on a circle in the complex plane: error O(beta^n); the energy must be analytic.

    Parameters
    ----------
    n : int
        Number of points, at least 2.

    Raises
    ------
    InputError
        If n is none of 2 to 1000.
    """
    if not isinstance(n, int) or isinstance(n, bool) or not 2 <= n <= MOST_POINTS:
        was = n if not isinstance(n, int) or n.bit_length() < 64 else f"one of {n.bit_length()} bits"
        raise argument_error("n of holomorphic(n)", f"be an integer of at least 2 and at most {MOST_POINTS}", was)
    roots = [cmath.exp(2j * math.pi * k / n) for k in range(n)]
    return Stencil(f"holomorphic:{n}", tuple(roots), tuple(r.conjugate() / n for r in roots), order=n)


BUILT_IN: dict[str, Callable[[], Stencil]] = {
    "positive": positive,
    "negative": negative,
    "random": random_sign,
    "centered": centered,
}
"""Schemes of this package, beside holomorphic:N."""
SCHEMES: dict[str, Callable[[], Stencil] | Stencil] = {**BUILT_IN}
"""Schemes by name, those that `register_scheme` has added among them."""


def register_scheme(name: str, scheme: Stencil | Callable[[], Stencil]) -> None:
    """Give a scheme a name, by which configs, the command and `EquilibriumPropagation` know it in this process.

    Parameters
    ----------
    name : str
        Without a colon. Another scheme of this name is replaced, unless it is one of this package's own.
    scheme : Stencil or callable
        The scheme, or a function without arguments that makes it.

    Raises
    ------
    InputError

    Examples
    --------
    >>> five_point = Stencil("five_point", (2.0, 1.0, -1.0, -2.0), (-1 / 12, 8 / 12, -8 / 12, 1 / 12), order=4)
    >>> register_scheme("five_point", five_point)
    >>> scheme_from_name("five_point").order
    4
    """
    if not isinstance(name, str) or not name or ":" in name or name == "holomorphic" or name in BUILT_IN:
        raise argument_error("name of a scheme", "be a text without a colon that is not taken", repr(name))
    SCHEMES[name] = _made(name, scheme)


def scheme_from_name(name: str | Stencil) -> Stencil:
    """Stencil for 'centered', 'positive', 'negative', 'random', 'holomorphic:N', or a name that is registered.

    Raises
    ------
    InputError
        If no scheme has the name, with the nearest right one.
    """
    if isinstance(name, Stencil):
        return name
    kind, _, count = str(name).partition(":")
    if kind == "holomorphic":
        if not (count.isascii() and count.isdigit() and len(count) < 10):
            raise InputError(
                f"Argument scheme must be holomorphic:N with an integer N, but was {str(name)[:60]!r}."
            )
        return holomorphic(int(count))
    known = {**entries("physics_ep.schemes"), **SCHEMES}
    if name not in known:
        raise unknown_name("scheme", name, [*known, "holomorphic:N"])
    found = known[name]
    return _made(name, load(found) if isinstance(found, EntryPoint) else found)


def _made(name: str, scheme: Stencil | Callable[[], Stencil]) -> Stencil:
    """A registered scheme, called by its registered name: run files and tables know it by that alone."""
    stencil = scheme() if callable(scheme) else scheme
    if not isinstance(stencil, Stencil):
        raise argument_error(f"scheme {name!r}", "be a Stencil, or a function that makes one", repr(stencil))
    return stencil if stencil.name == name else replace(stencil, name=name)


METHODS = ("energy", "vector-field", "asymmetric", "dyadic", "auto")
"""What nudged phases may follow: `physics_ep.estimators.methods` has the equations."""


def require_method(method: str | None, scheme: Stencil) -> None:
    """Refuse a method that is none of `METHODS`, or that a scheme cannot have.

    Raises
    ------
    InputError
        If the method is unknown, or does not fit the scheme.
    """
    if method is None:
        return
    if method not in METHODS:
        raise unknown_name("method", str(method), METHODS)
    if method == "dyadic" and (scheme.nodes != (1.0, -1.0) or scheme.random):
        must = "be 'centered' with method='dyadic', whose two states settle together"
        raise argument_error("scheme", must, repr(scheme.name))
    if method in ("asymmetric", "vector-field") and scheme.analytic:
        must = f"be one of real nudges with method={method!r}, since complex ones need an energy"
        raise argument_error("scheme", must, repr(scheme.name))


@dataclass(frozen=True)
class Nudge:
    """A cost added to the energy: F = E + beta C(outputs, y).

    Attributes
    ----------
    cost : Cost
        A function of (outputs, y) is taken as a `FunctionCost`.
    y : Tensor
        Targets, as `cost` takes them.
    beta : float, complex or Tensor (B,)
        Nudging strength, in units of energy over cost; negative pushes away from the target. Complex for
        holomorphic schemes.
    """

    cost: Cost
    y: torch.Tensor
    beta: float | complex | torch.Tensor

    _sound: bool = field(default=False, repr=False, compare=False)
    """Whether beta has been looked at before, as part of another nudge."""

    def __post_init__(self) -> None:
        beta = self.beta
        object.__setattr__(self, "y", as_targets(self.y))
        if self._sound:
            return
        object.__setattr__(self, "cost", as_cost(self.cost))
        if not isinstance(beta, int | float | complex | torch.Tensor):
            raise argument_error("beta", "be a number or a tensor of them", repr(beta))
        if isinstance(beta, torch.Tensor) and not is_dense(beta):
            raise argument_error("beta", "be a number or a tensor of them", described(beta))
        if isinstance(beta, int) and not is_real(beta):
            raise argument_error("beta", "be finite", "an integer of many digits")
        finite = math.isfinite(self.most) if isinstance(beta, torch.Tensor) else cmath.isfinite(beta)
        if not finite:
            was = "NaN or infinite entries" if isinstance(beta, torch.Tensor) else beta
            raise argument_error("beta", "be finite", was)
        reason = self.cost.positive_only
        if reason is None:
            return
        least = float(torch.as_tensor(beta).real.min())
        if least < 0:
            raise argument_error(
                "beta", f"not be negative under the cost {self.cost.name!r}: {reason}", f"{least:g}"
            )

    @classmethod
    def stacked(cls, nudges: Sequence[Nudge], rows: int, dtype: torch.dtype, device: torch.device) -> Nudge:
        """Several nudges of one cost and one y on a batch of `rows` examples each, as one of all their rows."""
        first = nudges[0]
        beta = torch.cat([n.each(rows, dtype, device) for n in nudges])
        twin = cls(first.cost, tiled(first.y, len(nudges)), beta, _sound=True)
        known = [n.numbers for n in nudges]
        if all(known):
            numbers = torch.tensor([number for one in known for number in one or ()], dtype=dtype)
            vars(twin)["numbers"] = tuple(numbers.tolist())
            vars(twin)["most"] = float(numbers.abs().max())
        return twin

    def to(self, dtype: torch.dtype) -> Nudge:
        """The same nudge with real targets in a dtype."""
        if not self.y.dtype.is_floating_point or self.y.dtype == dtype:
            return self
        twin = replace(self, y=self.y.to(dtype), _sound=True)
        vars(twin).update({name: vars(self)[name] for name in ("most", "numbers") if name in vars(self)})
        return twin

    def at(self, beta: torch.Tensor) -> Nudge:
        """The same nudge at strengths (B,) that are its own times finite numbers that are not negative."""
        return replace(self, beta=beta, _sound=True)

    def first(self, rows: int) -> Nudge:
        """Take the first of several nudges that are stacked along the batch; each of them has `rows` examples."""
        beta = self.beta[:rows] if isinstance(self.beta, torch.Tensor) and self.beta.ndim else self.beta
        twin = replace(self, y=self.y[:rows], beta=beta, _sound=True)
        if self.numbers is not None:
            vars(twin)["numbers"], vars(twin)["most"] = self.numbers[:1], abs(self.numbers[0])
        return twin

    @cached_property
    def numbers(self) -> tuple[float | complex, ...] | None:
        """Strengths that the host knows, each of as many rows; None where a tensor alone holds them."""
        return None if isinstance(self.beta, torch.Tensor) else (self.beta,)

    @cached_property
    def most(self) -> float:
        """Largest |beta|; NaN or infinite where an entry is."""
        return read(self.beta.abs().max())[0] if isinstance(self.beta, torch.Tensor) else abs(self.beta)

    def each(self, rows: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """The strength beta of each of so many rows, (rows,)."""
        if isinstance(self.beta, torch.Tensor):
            return self.beta.to(device, dtype).expand(rows)
        return torch.full((rows,), self.beta, dtype=dtype, device=device)

    @property
    def is_complex(self) -> bool:
        """Whether states under this nudge are complex."""
        return self.beta.is_complex() if isinstance(self.beta, torch.Tensor) else isinstance(self.beta, complex)

    def dtype(self, real: torch.dtype) -> torch.dtype:
        """dtype of states under this nudge, for a system of dtype `real`."""
        return real.to_complex() if self.is_complex else real

    def column(self, like: torch.Tensor) -> torch.Tensor | float | complex:
        """The strengths beta shaped to multiply a (B, n) tensor."""
        if isinstance(self.beta, torch.Tensor) and self.beta.ndim:
            return self.beta.to(like.device, self.dtype(like.dtype))[:, None]
        value = self.beta.item() if isinstance(self.beta, torch.Tensor) else self.beta
        return value if isinstance(value, complex) else float(value)

    def linear(self, real: torch.dtype) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(stiffness, force) of `Cost.linear`, both (B, n_out), for a system of dtype `real`; else None."""
        dtype = self.dtype(real)
        y = self.y.to(real)
        parts = self.cost.linear(y, self.each(len(y), dtype, y.device)[:, None])
        if parts is None:
            return None
        stiffness, force = (
            part.to(y.device, dtype).expand_as(y)
            if isinstance(part, torch.Tensor)
            else torch.full_like(y, part, dtype=dtype)
            for part in parts
        )
        return stiffness, force

    def energy(self, outputs: torch.Tensor) -> torch.Tensor:
        """The nudge's part beta C of the energy, (B,)."""
        beta = self.beta
        if isinstance(beta, torch.Tensor):
            beta = beta.to(outputs.device, outputs.dtype if outputs.is_complex() else self.dtype(outputs.dtype))
        return beta * costs(self.cost, outputs, self.y)


def require_nudge(nudge: object) -> None:
    """Refuse what is neither a `Nudge` nor None, such as a tuple of its parts.

    Raises
    ------
    InputError
    """
    if nudge is not None and not isinstance(nudge, Nudge):
        raise argument_error("nudge", "be a Nudge(cost, y, beta) or None", type(nudge).__name__)
