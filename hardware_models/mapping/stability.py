"""Whether a state of a mapped network is stable in time: the verdict, by example, and how sure it is.

Algebra finds equilibria, stable or not. A small deviation from one follows the Jacobian J of the substrate's
own dynamics there, in time constants of h, and dies out where every eigenvalue has a negative real part
(Lyapunov's indirect method: Khalil, Nonlinear Systems, 2002, theorem 4.7). Each unit, h or u, has a value x (a
current, a voltage or a phase), puts out `steep` x, and is driven by what the others put out through C:

    dx/dt = own x + answer C (steep x)            amplifiers that lag follow `steep` x instead of putting it out

Arrays that are read both ways in slots of a length s make a map of one period, 2 s: drives flow in the first
slot while what is fed back is held at its last value, then the other way round. It is stable where its spectral
radius is below one.

Paired units are far from normal: with copies alike J is a nilpotent matrix beside its diagonal, and rounding
moves eigenvalues of a chain of m = 2 L layers by as much as |N| (e |J| / |N|)^(1/m), with N = J - own and e the
rounding of a number (or the residual of Arnoldi's method); Golub and Van Loan, Matrix Computations, 2013,
theorem 7.2.3. Where all eigenvectors V are known, eigenvalues move by no more than cond(V) |E| (Bauer and Fike,
Numer. Math. 2, 1960), with E the rounding of J and its change over what the residual of the state may be off. The
smaller of both is the radius, and nothing within it is decided. Where h and u are alike in the free state
the eigenvalues are those of the diagonal by construction, since layers can be put in an order in which J is
triangular.

A verdict is about deviations small enough. It says nothing of how far they may be, of how much they grow before
they die out, nor of how long that takes: an eigenvalue that is known to a radius is no settling time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from physics_ep.blocks import State, flat, unflat
from physics_ep.errors import argument_error
from physics_ep.nudging import Nudge, require_nudge
from physics_ep.predictive_coding.phase import peak

from ..devices.crossbars import stream
from .circuit import PairedCircuit
from .lags import LaggedMotion, lagged_begin, lagged_velocity, lags
from .phase import Blocks, PairedPhase
from .solvers import CircuitMotion, begun, course_at, exchange
from .value_flow import ValueCourse, ValueMotion

VERDICTS = ("stable", "unstable", "undecided")
DURATION = 1000.0
"""Time constants of h: what grows or dies out slower is not decided, since nobody follows it for as long."""
DENSE = 300
"""Variables up to which all eigenvalues are computed; above it the rightmost, by Arnoldi's method."""
KRYLOV = (30, 60, 120)
"""Vectors of Arnoldi's method after which its residual is looked at."""
SOLVED = 1e-12
"""Residual of Arnoldi's method, over |J|, that is small enough."""
AT_REST = 1e-6
"""Residual of a state that counts as one."""
KINK = 1e-8
"""How near a kink a unit counts as on it, in full scales or largest currents of its layer; ten residuals of the
state where these are more."""
ALONE = 1e-30
"""Change of a unit's speed with its current, times that of what it puts out, up to which it stands alone."""
BOTH_SIDES = 4
"""Units on kinks of which all choices of sides are tried."""

Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Certificate:
    """What is known of the stability of states, example by example.

    Attributes
    ----------
    verdict : tuple of str
        'stable', 'unstable' or 'undecided'.
    reason : tuple of str
        Why it is undecided, else empty: 'no state' (not an equilibrium), 'radius' (the eigenvalue is within it),
        'slow' (slower than the duration), 'kink' (a unit on a kink, and its sides disagree or are too many to try),
        'dynamics' (the substrate moves in a way of its own that is not known here).
    eigenvalue : Tensor (B,)
        Rightmost eigenvalue, complex, per time constant of h; with slots the largest multiplier of a period. Of
        units on kinks that of the least stable choice. NaN where there is none.
    radius : Tensor (B,)
        How far it may be off.
    method : str
        'construction', 'dense' or 'arnoldi'.
    slot : float or None
        Length of a slot in time constants of h; None: all arrays serve all the time.
    products : int
        Products with the Jacobian, of all examples at once: the cost.
    """

    verdict: tuple[str, ...]
    reason: tuple[str, ...]
    eigenvalue: torch.Tensor
    radius: torch.Tensor
    method: str
    slot: float | None
    products: int

    def share(self, verdict: str) -> float:
        """Share of the examples with a verdict."""
        return self.verdict.count(verdict) / len(self.verdict) if self.verdict else math.nan

    @property
    def stable(self) -> torch.Tensor:
        """Whether each example is certified stable, (B,) of bool."""
        return torch.tensor([v == "stable" for v in self.verdict], dtype=torch.bool)


def certify(
    system: PairedCircuit,
    state: State,
    x: torch.Tensor,
    nudge: Nudge | None = None,
    free: State | None = None,
    *,
    slot: float | None = None,
    duration: float = DURATION,
) -> Certificate:
    """Judge whether states of a mapped network are stable for the substrate's own dynamics, in float64.

    Parameters
    ----------
    system : PairedCircuit
        `Mapped.system`.
    state : tuple of Tensor (B, ...)
        Currents into h, then into u, as equilibria have them; found in float64, to a residual of 1e-6.
    x : Tensor (B, ...)
    nudge : Nudge, optional
        The nudge, if the state is a nudged one.
    free : tuple of Tensor (B, ...), optional
        The free state of a nudged one, whose gates latches hold. It must be given with a nudge.
    slot : float, optional
        Length of a slot of time in which an array is read one way, in time constants of h.
    duration : float
        Time constants of h; what grows or dies out slower is undecided.

    Raises
    ------
    InputError
        If an argument is not as above.
    """
    if (nudge is None) != (free is None):
        raise argument_error("free", "be given with a nudge, and only with one", "given" if free else "left out")
    require_nudge(nudge)
    if slot is not None and not (slot > 0 and math.isfinite(slot)):
        raise argument_error("slot", "be positive and finite", slot)
    if not duration > 0:
        raise argument_error("duration", "be positive", duration)
    if len(state) != 2 * system.depth:
        raise argument_error("state", f"have {2 * system.depth} blocks, currents into h and u", len(state))
    with torch.no_grad():
        if system.dtype != torch.float64:
            system = copy.deepcopy(system).double()
        x, state = x.to(system.device, torch.float64), tuple(s.to(system.device, torch.float64) for s in state)
        origin = state if free is None else tuple(s.to(system.device, torch.float64) for s in free)

        def build(rows: torch.Tensor) -> PairedPhase:
            phase = system.phase(system.prepare(x[rows]), tuple(s[rows] for s in origin))
            if nudge is None:
                return phase
            beta = nudge.beta
            if isinstance(beta, torch.Tensor) and beta.ndim > 0:
                beta = beta[rows]
            return phase.nudged(replace(nudge, y=nudge.y[rows], beta=beta))

        return _certify(build, state, slot, duration)


def _certify(
    build: Callable[[torch.Tensor], PairedPhase], state: State, slot: float | None, duration: float
) -> Certificate:
    """`build` makes the phase of some examples, by their numbers."""
    rows = len(state[0])
    everyone = torch.arange(rows, device=state[0].device)
    phase = build(everyone)
    system = phase.system
    moved = tuple(a - b for a, b in zip(state, (*phase.p, *phase.q), strict=True))
    motion = type(system.motion(phase))
    if motion not in (CircuitMotion, LaggedMotion, ValueMotion):
        nothing = torch.full((rows,), math.nan, dtype=torch.float64)
        return Certificate(
            ("undecided",) * rows, ("dynamics",) * rows, nothing.to(torch.complex128), nothing, "", slot, 0
        )
    residual = _residual(phase, moved, motion)
    kinks = _Kinks(phase, state, residual)
    lag_h, lag_u = lags(system.device_model)
    alike = phase.nudge is None and system.shared and system.equal_times and lag_h == lag_u
    alike = alike and all(bool((peak(a - b) <= KINK * peak(a)).all()) for a, b in _pairs(state))
    worst: Rightmost | None = None
    grows = torch.zeros(rows, dtype=torch.bool)
    shrinks = torch.zeros(rows, dtype=torch.bool)
    products = 0
    for n, shift in enumerate(kinks.choices()):
        # Of an example with few kinks the choices repeat; what is drawn with a phase is drawn once.
        of = everyone if system.noisy else everyone[kinks.differs(n)]
        if not len(of):
            continue
        some = phase if len(of) == rows else build(of)
        at, d = (tuple(b[of] for b in blocks) for blocks in (state, moved))
        shifted = None if shift is None else [b[of] for b in shift]
        line = _Line(some, at, d, shifted, motion is LaggedMotion, slot)
        line.residual = residual[of]
        found = line.by_construction() if alike else line.rightmost()
        products += line.products
        # How fast it grows, per time constant.
        pace = found.value.real if slot is None else found.value.abs().log() / (2 * slot)
        spare = found.value.real if slot is None else found.value.abs() - 1
        sure = (spare.abs() > found.radius) & (pace.abs() >= 1 / duration)
        here = of.cpu()
        grows[here] |= ~(sure & (spare < 0))
        shrinks[here] |= ~(sure & (spare > 0))
        if worst is None:
            worst, most = found, spare
        else:
            more = spare > most[here]
            worst.value[here] = torch.where(more, found.value, worst.value[here])
            worst.radius[here] = torch.where(more, found.radius, worst.radius[here])
            most[here] = torch.where(more, spare, most[here])
    assert worst is not None
    verdict, reason = [], []
    pace = worst.value.real if slot is None else worst.value.abs().log() / (2 * slot)
    for n in range(rows):
        why = ""
        if not float(residual[n]) <= AT_REST:
            why = "no state"
        elif int(kinks.count[n]) > BOTH_SIDES and not alike:
            why = "kink"
        elif bool(grows[n] & shrinks[n]):
            apart = abs(float(most[n])) > float(worst.radius[n])
            slow = abs(float(pace[n])) < 1 / duration
            why = "kink" if int(kinks.count[n]) and apart and not slow else "slow" if apart else "radius"
        reason.append(why)
        verdict.append("undecided" if why else "stable" if not grows[n] else "unstable")
    return Certificate(tuple(verdict), tuple(reason), worst.value, worst.radius, worst.method, slot, products)


class Rightmost(NamedTuple):
    """The rightmost eigenvalue (B,) of each example, complex, its radius (B,), and the method."""

    value: torch.Tensor
    radius: torch.Tensor
    method: str


def _pairs(state: State) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Currents into h and into u, layer by layer."""
    count = len(state) // 2
    return zip(state[:count], state[count:], strict=True)


def _residual(phase: PairedPhase, moved: State, motion: type) -> torch.Tensor:
    """How far a state is from rest, (B,)."""
    if motion is ValueMotion:
        course = ValueCourse(phase)
        speed, _, residual = course(course.begin(moved))
        # A pair of oscillators that has slipped to the other side of an end rests elsewhere than it is put here.
        return torch.maximum(residual, 1e-3 * torch.stack([peak(s) for s in speed]).amax(0))
    if motion is LaggedMotion:
        return lagged_velocity(phase, lagged_begin(phase, moved))[2]
    return course_at(phase, begun(phase, moved))[2]


class _Kinks:
    """Units on kinks of their response, and the choices of sides that are tried, as shifts of currents."""

    def __init__(self, phase: PairedPhase, state: State, residual: torch.Tensor) -> None:
        system = phase.system
        self.masks: Blocks = []
        self.reach: Blocks = []
        near = (10 * residual.nan_to_num(nan=1.0)).clamp(KINK, 1e-3)
        units, full = (*system.amplifiers_h, *system.amplifiers_u), system.full_scales[1:]
        for unit, p, scale in zip(units, state, (*full, *full), strict=True):
            reach = (near * peak(p).clamp(min=scale)).view(-1, *[1] * (p.ndim - 1))
            jump = (unit.slope(p + reach) - unit.slope(p - reach)).abs()
            kinked = (jump > 0.01) & (not unit.smooth) & (not (phase.held and unit.activation.gated))
            self.masks.append(kinked)
            self.reach.append(2 * reach)
        self.count = sum((m.flatten(1).sum(1) for m in self.masks), torch.zeros_like(residual, dtype=torch.long))

    def differs(self, n: int) -> torch.Tensor:
        """For which examples choice n is none of the choices before, (B,): those that have so many kinks."""
        return 2 ** self.count.clamp(max=BOTH_SIDES) > n

    def choices(self) -> Iterator[Blocks | None]:
        """Shifts of the currents: None where no unit is on a kink; every choice for few units, else all up and all
        down."""
        most = int(self.count.max()) if len(self.count) else 0
        if most == 0:
            yield None
            return
        mask = flat(tuple(self.masks))
        order = (mask.long().cumsum(1) - 1).clamp(min=0)
        shapes = [m.shape for m in self.masks]
        few = min(most, BOTH_SIDES)
        for n in range(2**few):
            # Beyond the few all units stand on the side of the last of them.
            up = (n >> order.clamp(max=few - 1)) & 1
            sign = torch.where(mask, 2.0 * up - 1, 0.0).double()
            yield [s * r for s, r in zip(unflat(sign, shapes), self.reach, strict=True)]


class _Line:
    """The dynamics of small deviations from a state: `own`, `steep`, `answer`, and what couples the units."""

    def __init__(
        self,
        phase: PairedPhase,
        state: State,
        moved: State,
        shift: Blocks | None,
        lagged: bool,
        slot: float | None,
    ) -> None:
        self.phase, self.slot, self.lagged = phase, slot, lagged
        self.state, self.moved, self.shift = state, moved, shift
        self.residual = torch.zeros(len(state[0]), dtype=torch.float64)
        """Residual of the state, (B,)."""
        self.count = phase.depth
        self.products = 0
        at = state if shift is None else tuple(p + s for p, s in zip(state, shift, strict=True))
        d = moved if shift is None else tuple(m + s for m, s in zip(moved, shift, strict=True))
        if isinstance(phase.system.motion(phase), ValueMotion):
            self._of_values(d)
        else:
            self._of_currents(at, d)
        self.bare = copy.copy(phase)
        self.bare.forcing = self.bare.fed = None
        dp, dq = moved[: self.count], moved[self.count :]
        upper = [phase.moved(k, b) for k, b in enumerate(dp)]
        errors = [phase.error(k, b, a - b) for k, (a, b) in enumerate(zip(dp, dq, strict=True))]
        self.outputs = upper[-1], exchange(phase, upper, errors)[1][-1][0]
        hidden = [*range(self.count - 1), *range(self.count, 2 * self.count - 1)]
        self.hidden = hidden if lagged else []
        lag_h, lag_u = lags(phase.system.device_model)
        self.lags = [lag_h if k < self.count else lag_u for k in self.hidden]
        self.shapes = [b.shape for b in (*self.own, *(self.own[k] for k in self.hidden))]
        self.size = sum(math.prod(s[1:]) for s in self.shapes)
        self.rows = len(self.own[0])
        # A unit that nothing reaches, or whose moves nobody feels, has its own eigenvalue, exactly. A lagging
        # amplifier hides neither.
        linked = [(s * a).abs() > ALONE for s, a in zip(self.steep, self.answer, strict=True)]
        self.linked = flat((*linked, *(linked[k] for k in self.hidden)))

    def _of_currents(self, at: State, d: State) -> None:
        """RC nodes, whose currents move."""
        phase = self.phase
        system = phase.system
        units = [*system.amplifiers_h, *system.amplifiers_u]
        slopes = [*phase.slopes_h, *(phase.slopes_h if system.shared else phase.slopes_u)]
        self.steep: Blocks = []
        for k, (unit, p, b) in enumerate(zip(units, at, d, strict=True)):
            if not (phase.held and unit.activation.piecewise_linear):
                self.steep.append(unit.slope(p))
                continue
            before = unit.unclipped(p - b)
            within = (before.abs() < unit.saturation) & ((before + b * slopes[k]).abs() < unit.saturation)
            self.steep.append(slopes[k].expand_as(p) * within)
        slow = [*[1.0] * self.count, *system.slowness]
        self.answer: Blocks = [torch.ones_like(p) / s for p, s in zip(at, slow, strict=True)]
        self.own: Blocks = [-a for a in self.answer]

    def _of_values(self, d: State) -> None:
        """Nodes and pairs, whose voltages and phases move."""
        course = ValueCourse(self.phase)
        line = course.tangent(course.begin(d))
        # A diode that blocks, or a latch, holds its unit: what pushes it off dies out, and nobody feels it.
        still = [(a == 0) & (o == 0) for a, o in zip(line.answer, line.own, strict=True)]
        self.own = [torch.where(s, -torch.ones_like(o), o) for s, o in zip(still, line.own, strict=True)]
        self.steep = [torch.where(s, torch.zeros_like(b), b) for s, b in zip(still, line.steep, strict=True)]
        self.answer = line.answer

    # -- products ----------------------------------------------------------------------------------------------

    def _put_out(self, v: State) -> Blocks:
        put = [s * b for s, b in zip(self.steep, v, strict=False)]
        for n, k in enumerate(self.hidden):
            put[k] = v[2 * self.count + n]
        return put

    def _by_itself(self, v: State) -> torch.Tensor:
        """Each unit for itself, what it leads its amplifier to included."""
        rates = [o * b for o, b in zip(self.own, v, strict=False)]
        for n, (k, lag) in enumerate(zip(self.hidden, self.lags, strict=True)):
            rates.append((self.steep[k] * v[k] - v[2 * self.count + n]) / lag)
        return flat(tuple(rates))

    def _into(self, currents: Blocks, v: State) -> torch.Tensor:
        rates = [a * c for a, c in zip(self.answer, currents, strict=True)]
        return flat((*rates, *(torch.zeros_like(v[2 * self.count + n]) for n in range(len(self.hidden)))))

    def _drives(self, v: State) -> torch.Tensor:
        """What arrays drive, and at the outputs the nudge, which no array holds."""
        upper = self._put_out(v)[: self.count]
        driven = [self.bare.changes(k, upper) for k in range(self.count)]
        to_h = [a for a, _ in driven]
        to_h[-1] = to_h[-1] + self.bare.wanted_change(*self.outputs, upper[-1], driven[-1][0])
        return self._into([*to_h, *(b for _, b in driven)], v)

    def _fed_back(self, v: State) -> torch.Tensor:
        put = self._put_out(v)
        upper, lower = put[: self.count], put[self.count :]
        back = self.bare.feedback([a - b for a, b in zip(upper, lower, strict=True)], upper)
        back[-1] = torch.zeros_like(put[self.count - 1])
        return self._into([*back, *(torch.zeros_like(b) for b in put[self.count :])], v)

    def coupling(self, v: torch.Tensor) -> torch.Tensor:
        """N v, (B, n)."""
        blocks = unflat(v, self.shapes)
        own = self._by_itself(blocks) - self._diagonal * v
        return own + self._drives(blocks) + self._fed_back(blocks)

    @property
    def _diagonal(self) -> torch.Tensor:
        lagging = [torch.full_like(self.own[k], -1 / lag) for k, lag in zip(self.hidden, self.lags, strict=True)]
        return flat((*self.own, *lagging))

    def product(self, v: torch.Tensor) -> torch.Tensor:
        """J v, or the map of a period, (B, n)."""
        if self.slot is None:
            self.products += 1
            blocks = unflat(v, self.shapes)
            return self._by_itself(blocks) + self._drives(blocks) + self._fed_back(blocks)
        first = self._for_a_slot(v, self._drives, self._fed_back(unflat(v, self.shapes)))
        return self._for_a_slot(first, self._fed_back, self._drives(unflat(first, self.shapes)))

    def _for_a_slot(
        self, v: torch.Tensor, live: Callable[[State], torch.Tensor], kept: torch.Tensor
    ) -> torch.Tensor:
        """v after a slot of dv/dt = own v + live v + kept, by Taylor's series: 1e-15 for steps of |J| t = 1."""
        assert self.slot is not None
        fastest = max(float(o.abs().max()) for o in self.own)
        fastest = max([fastest, 1.0, *(1 / lag for lag in self.lags)])
        steps = math.ceil(2 * self.slot * fastest)
        for _ in range(steps):
            term, held = v, kept
            for order in range(1, 25):
                blocks = unflat(term, self.shapes)
                term = (self._by_itself(blocks) + live(blocks) + held) * (self.slot / steps / order)
                held = torch.zeros_like(kept)  # a constant has no further derivative
                v = v + term
                self.products += 1
        return v

    # -- eigenvalues -------------------------------------------------------------------------------------------

    def by_construction(self) -> Rightmost:
        """The diagonal: u, then h - u, each layer by layer, make the Jacobian triangular."""
        value = self._own_values().amax(1).cpu()
        return Rightmost(value.to(torch.complex128), torch.zeros_like(value), "construction")

    def rightmost(self) -> Rightmost:
        """The rightmost eigenvalue of J, or the largest of a period, and its radius; of coupled units, and of
        those that stand alone."""
        dense = self.size <= DENSE
        known = torch.full((self.rows,), math.inf, dtype=torch.float64)
        if dense:
            value, known, whole, beside = self._all()
            miss = torch.zeros_like(whole)
        else:
            value, miss, whole, beside = self._arnoldi()
        # The relative error of a product with J, or what Arnoldi's method has left, on a chain of all layers.
        off = torch.maximum(torch.finfo(torch.float64).eps * whole, miss)
        beside = beside.clamp(min=torch.finfo(torch.float64).tiny)
        layers = 2 * self.count + len(self.hidden)
        radius = torch.minimum(torch.maximum(beside * (off / beside) ** (1 / layers), off), known)
        least = -math.inf if self.slot is None else 0.0
        alone = torch.where(self.linked, torch.full_like(self._diagonal, least), self._own_values()).amax(1).cpu()
        more = alone > (value.real if self.slot is None else value.abs())
        more |= ~self.linked.any(1).cpu()
        radius = torch.where(more, torch.zeros_like(radius), radius)
        return Rightmost(torch.where(more, alone.to(value.dtype), value), radius, "dense" if dense else "arnoldi")

    def _own_values(self) -> torch.Tensor:
        return self._diagonal if self.slot is None else (2 * self.slot * self._diagonal).exp()

    def _first(self, values: np.ndarray) -> int:
        finite = np.nan_to_num(values, nan=-np.inf)
        return int(np.argmax(np.abs(finite) if self.slot is not None else finite.real))

    def _matrices(self) -> np.ndarray:
        """J, or the map of a period, of all examples, (B, n, n)."""
        unit = torch.zeros(self.rows, self.size, dtype=torch.float64, device=self.own[0].device)
        columns = []
        for n in range(self.size):
            unit[:, n] = 1
            columns.append(self.product(unit))
            unit[:, n] = 0
        return torch.stack(columns, 2).cpu().numpy()

    def _beside(self, value: torch.Tensor) -> np.ndarray:
        """`_matrices` at a state that is off by the residual over the eigenvalue, which is the slowest rate."""
        slow = value.real.abs() if self.slot is None else (value.abs() - 1).abs()
        off = (self.residual.cpu() / slow.clamp(min=1e-3)).nan_to_num(nan=1.0).clamp(max=1e-2)
        shift = []
        for k, p in enumerate(self.state):
            far = (off.to(p) * peak(p)).view(-1, *[1] * (p.ndim - 1)).expand_as(p)
            shift.append(far if self.shift is None else far + self.shift[k])
        line = _Line(self.phase, self.state, self.moved, shift, self.lagged, self.slot)
        found = line._matrices()
        self.products += line.products
        return found

    def _all(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The rightmost of all eigenvalues, how far it may be off by Bauer and Fike, |J|, and |N|."""
        matrices, linked = self._matrices(), self.linked.cpu().numpy()
        value, known, whole, beside = [], [], [], []
        vectors = []
        for n in range(self.rows):
            matrix = matrices[n][np.ix_(linked[n], linked[n])]
            if not matrix.size:
                matrix = np.full((1, 1), -1.0 if self.slot is None else 0.0)
            if not np.isfinite(matrix).all():
                value.append(complex(math.nan))
                whole.append(math.nan)
                beside.append(math.nan)
                vectors.append(math.nan)
                continue
            found, frame = np.linalg.eig(matrix)
            value.append(complex(found[self._first(found)]))
            whole.append(float(np.linalg.norm(matrix, 2)))
            beside.append(float(np.linalg.norm(matrix - np.diag(np.diag(matrix)), 2)))
            vectors.append(float(np.linalg.cond(frame)))
        there = torch.tensor(value, dtype=torch.complex128)
        change = matrices - self._beside(there)
        for n in range(self.rows):
            moved = change[n][np.ix_(linked[n], linked[n])]
            sure = np.isfinite(moved).all() and math.isfinite(vectors[n])
            rounding = 2 * self.size * float(np.finfo(np.float64).eps) * whole[n]
            off = rounding + (float(np.linalg.norm(moved, 2)) if sure and moved.size else 0.0)
            known.append(vectors[n] * off if sure else math.inf)
        radii, norms, couplings = (torch.tensor(v, dtype=torch.float64) for v in (known, whole, beside))
        return there, radii, norms, couplings

    def _arnoldi(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Arnoldi's method (Saad, Numerical Methods for Large Eigenvalue Problems, 2011, algorithm 6.2) on all
        examples at once; each ends where its vectors span an invariant space."""
        most = min(KRYLOV[-1], self.size)
        start = torch.randn(self.size, generator=stream(0, "stability"), dtype=torch.float64)
        v = start.to(self.own[0].device) * self.linked
        basis = [v / v.norm(dim=1, keepdim=True).clamp(min=1e-300)]
        table = torch.zeros(self.rows, most + 1, most, dtype=torch.float64)
        ends = [most] * self.rows
        value = torch.full((self.rows,), math.nan, dtype=torch.complex128)
        miss = torch.full((self.rows,), math.inf, dtype=torch.float64)
        whole = torch.zeros(self.rows, dtype=torch.float64)
        for n in range(most):
            w = self.product(basis[n]) * self.linked
            before = w.norm(dim=1)
            stacked = torch.stack(basis, 2)
            for _ in range(2):
                onto = torch.einsum("bnk,bn->bk", stacked, w)
                w = w - torch.einsum("bnk,bk->bn", stacked, onto)
                table[:, : n + 1, n] += onto.cpu()
            left = w.norm(dim=1)
            ended = left <= 1e-14 * before
            table[:, n + 1, n] = torch.where(ended, torch.zeros_like(left), left).cpu()
            basis.append(torch.where(ended[:, None], torch.zeros_like(w), w / left[:, None].clamp(min=1e-300)))
            for b in ended.nonzero().flatten().tolist():
                ends[b] = min(ends[b], n + 1)
            if n + 1 not in (*KRYLOV, most):
                continue
            for b in range(self.rows):
                m = min(ends[b], n + 1)
                small = table[b, :m, :m].numpy()
                if not np.isfinite(small).all():
                    continue
                found, vectors = np.linalg.eig(small)
                first = self._first(found)
                value[b] = torch.as_tensor(complex(found[first]), dtype=value.dtype)
                whole[b] = float(np.linalg.norm(table[b, : m + 1, :m].numpy(), 2))
                miss[b] = float(table[b, m, m - 1]) * float(abs(vectors[m - 1, first]))
            if bool((miss <= SOLVED * whole).all()):
                break
        return value, miss, whole, self._norm()

    def _norm(self) -> torch.Tensor:
        """|N| (B,), or of the period's map, by the power method on N^T N."""
        apply = self.coupling if self.slot is None else self.product
        v = torch.randn(self.size, generator=stream(1, "stability"), dtype=torch.float64)
        v = v.to(self.own[0].device) * self.linked
        size = torch.zeros(self.rows, dtype=torch.float64)
        for _ in range(8):
            v = v / v.norm(dim=1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
            with torch.enable_grad():
                at = v.detach().requires_grad_()
                out = apply(at * self.linked) * self.linked
                (v,) = torch.autograd.grad(out, at, out.detach())
            size = out.detach().norm(dim=1)
        return size.cpu()
