"""Operating points of any circuit by modified nodal analysis: the way for circuits that have no energy.

Newton's method with limited junction voltages (Nagel 1975, SPICE2, Berkeley memorandum ERL-M520): each junction is
linearised not where the last step put it, but as far along as its exponential allows. Where that fails, leaks
from all nodes to ground are taken away step by step, and then the sources are turned up step by step.

With active parts there may be several operating points, or none, and one that is found need not be stable in time:
`hardware_models.nodal.transients` tells. A passive circuit has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from physics_ep.equilibrium import Status
from physics_ep.errors import InputError, argument_error

from ..arrays import plain
from ..netlists.parts import Parts
from ..netlists.resting import resting
from ..netlists.shunts import with_gmin
from ..netlists.topology import FLOOR, held_by_leakage
from .equations import Array, Drive, NodalEquations
from .factors import Factors
from .leakage import untold
from .nudges import nudging
from .transistors import limit as transistor_limit

TOLERANCE = 1e-12
"""Amperes."""
ITERATIONS = 100
_SETTLED = 1e-9
"""Newton's last step at a node, relative to its voltage and to a volt: the next one would be its square."""
_LARGEST = 1e-3
"""Share of the largest voltage that counts as a node's own there: rounding of the largest may reach it."""
_DIGITS = 8
"""Units in the last place of all unknowns that may be missing at a node."""
_LEAKS = 1e-3, 1e-13
"""First and last leak, siemens."""
_SINGULAR = 1e-15
"""Reciprocal condition of a linear circuit with active parts."""
_CONTINUATION = 60
"""Solutions along one path of leaks or sources."""
_NEARBY = 40
"""Iterations that one of them may take: it starts near where it ends."""


@dataclass(frozen=True)
class Solution:
    """Operating points of a batch, with the evidence that they are such.

    Attributes
    ----------
    voltages : array (B, n_nodes)
        Node voltages, volts, in the order of `Parts.nodes`: ground, 0 V, comes first.
    currents : array (B, n_branches)
        Amperes, from the first node through the part to the second, of the parts named in `branches`.
    branches : tuple of str
        Voltage sources, vcvs, rectifiers, amplifiers (the current into the output node's amplifier), ideal diodes.
    residual : array (B,)
        Largest violation of Kirchhoff's current law at a node, amperes, in the very state that is returned (of
        the first of nodes that ideal sources tie, at all of them together).
    tolerance : float
        What `residual` was asked to meet, amperes: more than was given where rounding of the voltages is more at a
        node. Every other node has met its own, which `converged` tells.
    converged : bool array (B,)
    iterations : int
        Iterations that Newton's method took, all attempts together.
    status : Status
        Why the solver stopped, for the batch as a whole.
    untold : tuple of str
        Nodes that leakage alone holds, and whose voltages float64 cannot tell in some example, which then has not
        converged: conductances across the diodes (`gmin`) would hold them.
    """

    voltages: Array
    currents: Array
    branches: tuple[str, ...]
    residual: Array
    tolerance: float
    converged: Array
    iterations: int
    status: Status
    untold: tuple[str, ...] = ()

    def why_not(self) -> str:
        """What is wrong where an example has not converged, for messages."""
        if self.untold:
            return why_untold(self.untold)
        return f"a residual of {self.residual.max():.2g} A is left"


def why_untold(nodes: Sequence[str]) -> str:
    """Words on nodes whose voltages float64 cannot tell."""
    others = f" (and {len(nodes) - 1} more)" if len(nodes) > 1 else ""
    return (
        f"leakage alone holds node {nodes[0]!r}{others}, and float64 cannot tell its voltage (a gmin of 1e-12 S "
        "across the diodes, as in SPICE, would hold it)"
    )


def operating_point(
    parts: Parts,
    sources: Any = None,
    *,
    start: Any = None,
    nudge: tuple[Sequence[str], Any, float] | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = ITERATIONS,
    gmin: float = 0.0,
) -> Solution:
    """Find where Kirchhoff's laws hold, capacitors open and memristors at their present states.

    Parameters
    ----------
    parts : Parts
    sources : array_like (B, n_voltage_sources), optional
        Volts, in the order of the parts list. Default: the parts' own values, B = 1.
    start : Solution or array_like (B, n_nodes), optional
        Node voltages to start from, ground's included. Default: none, all junctions off.
    nudge : (node names, targets, beta), optional
        A conductance beta, siemens, from each node to a source at its target, volts, (B, k) or (k,).
    tolerance : float
        Amperes.
    max_iterations : int
        Most iterations of one attempt of Newton's method.
    gmin : float
        Conductance across every diode, siemens, as simulators add one (`hardware_models.netlists.shunts`).

    Returns
    -------
    Solution
        Not necessarily converged: see `converged` and `status`.

    Raises
    ------
    InputError
        If an argument does not fit, a node floats, ideal voltage sources form a loop, or a linear circuit's
        equations are singular (feedback that cancels a conductance).
    """
    parts = resting(with_gmin(parts, gmin))
    volts = source_volts(parts, sources)
    if not tolerance > 0:
        raise argument_error("tolerance", "be positive", tolerance)
    if max_iterations < 1:
        raise argument_error("max_iterations", "be at least 1", max_iterations)
    held = nudging(parts, nudge)
    batch = max(len(volts), 1 if held is None else len(held.targets))
    equations = NodalEquations(parts, nudge=held)
    drive = spread(equations.drive(volts), batch)
    z = _started(equations, start, batch)
    return solve(equations, z, drive, tolerance, max_iterations)


def solve(equations: NodalEquations, z: Array, drive: Drive, tolerance: float, max_iterations: int) -> Solution:
    """Operating points of equations laid out before, from states z (B, 1 + n), as `operating_point` finds them."""
    if equations.linear:
        _refuse_singular(equations)
    weak, open_nodes = _weak(equations), np.zeros(equations.n_nodes, bool)
    with np.errstate(all="ignore"):
        exact = bool(weak.any())
        z, good, iterations = newton(
            equations, z, drive, tolerance=tolerance, max_iterations=max_iterations, exact=exact
        )
        for path in (_less_leak, _more_drive):
            for b in np.flatnonzero(~good) if not equations.linear else ():
                found, spent = path(equations, select(drive, [b]), tolerance, min(max_iterations, _NEARBY))
                iterations += spent
                if found is not None and exact:
                    found, ended, spent = newton(
                        equations,
                        found,
                        select(drive, [b]),
                        tolerance=tolerance,
                        max_iterations=max_iterations,
                        exact=True,
                    )
                    z[b], good[b], iterations = found[0], ended[0], iterations + spent
                elif found is not None:
                    z[b], good[b] = found[0], True
        currents = equations.currents(equations.across(z), drive)
        law = equations.residual(z, currents, equations.conducting(z), drive)
        missing = np.abs(law[:, : equations.n_nodes])
        residual = missing.max(1)
        if exact:
            # A current that is missing, as one that nothing can carry, is no question of digits.
            lost = missing > _allowed(equations, z, equations.slopes(equations.across(z)), tolerance)
            left_open = untold(equations, z, drive, weak) & ~(~good & lost.any(1))[:, None]
            good &= ~left_open.any(1)
            open_nodes = left_open.any(0)
    if good.any():
        # What met only the rounding of its voltages was asked for no more.
        tolerance = max(tolerance, float(residual[good].max()))
    status = Status.CONVERGED
    if not good.all():
        status = Status.BUDGET if np.isfinite(residual).all() else Status.NOT_FINITE
    split = equations.n_nodes
    names = tuple(equations.parts.nodes[k] for k in np.flatnonzero(open_nodes))
    volts, amperes = z[:, :split], z[:, split:]
    return Solution(volts, amperes, equations.branches, residual, tolerance, good, iterations, status, names)


@np.errstate(all="ignore")  # what overflows is seen by its residual
def newton(
    equations: NodalEquations,
    z: Array,
    drive: Drive,
    *,
    leak: float = 0.0,
    tolerance: float = TOLERANCE,
    max_iterations: int = ITERATIONS,
    exact: bool = False,
) -> tuple[Array, Array, int]:
    """Newton's method with limited junction voltages, on all examples that have not converged.

    Parameters
    ----------
    z : array (B, 1 + n)
        Unknowns to start from.
    drive : Drive
        (B, ...).
    leak : float
        Conductance from every node to ground, siemens.
    tolerance, max_iterations
        The arguments of `operating_point` of the same names.
    exact : bool
        Whether to end with steps by the true slopes of junctions, however small: where leakage holds nodes, only
        these say how far from the solution they are in volts.

    Returns
    -------
    array (B, 1 + n), bool array (B,), int
        States, whether they solve the equations, iterations.
    """
    z, n = z.copy(), equations.n_nodes
    done = np.zeros(len(z), bool)
    lost = np.zeros(len(z), bool)
    curved = equations.curved
    at, ruled = equations.across(z), equations.transistors.controls(z)
    transistors = len(equations.transistors) > 0
    ceiling = equations.critical + 10 * equations.exponential
    at[:, :curved] = np.minimum(at[:, :curved], np.where(at[:, :curved] > ceiling, equations.critical, np.inf))
    moved = np.full(len(z), np.inf)
    limited = np.zeros(len(z), bool)
    last = np.zeros(len(z), bool)
    factors: Factors | None = None
    for iteration in range(max_iterations + 1):
        act = np.flatnonzero(~done & ~lost)
        if not act.size:
            return z, done, iteration
        here, point, now = select(drive, act), at[act], z[act]
        across = equations.across(now)
        slopes = equations.slopes(point)
        currents = equations.currents(point, here)
        currents[:, curved:] = equations.currents(across, here)[:, curved:]
        currents[:, :curved] += slopes * (across - point)[:, :curved]
        on = equations.conducting(now)
        channels = gated = None
        if transistors:
            channels, gated = equations.transistors.tangent(now, ruled[act])
        law = equations.residual(now, currents, on, here, channels)
        if leak:
            law[:, 1:] += leak * (now[:, :n] @ equations.to_ground)[:, 1:]
        missing = np.abs(law[:, :n])
        residual = missing.max(1)
        good = residual <= tolerance
        if not good.all():  # what a node's own currents round to; another's may be a billion times that
            good = (missing <= _allowed(equations, now, slopes, tolerance)).all(1)
        good &= ~limited[act]
        good &= _behaviours_obey(equations, now, law)
        good &= _diodes_obey(equations, now, law, on, tolerance)
        begin = good & ~last[act] if exact else np.zeros(len(act), bool)
        good &= (moved[act] <= _SETTLED) & ~begin
        last[act[begin]] = True
        done[act[good]] = True
        lost[act[~np.isfinite(residual)]] = True
        go = ~done[act] & ~lost[act]
        if iteration == max_iterations or not go.any():
            continue
        act, law, slopes, on, now = act[go], law[go], slopes[go], on[go], now[go]
        gated = None if gated is None else gated[go]
        if factors is None or not equations.linear:
            # A junction far in reverse has no slope left to move its node by: keep some.
            steep = np.maximum(slopes, FLOOR * _slopes_at_zero(equations))
            if last.any():
                steep = np.where(last[act][:, None], slopes, steep)
            factors = Factors(equations, equations.jacobian(now, steep, on, leak, gated=gated))
        step = factors.solve(-law[:, 1:])
        if last.any():
            size = np.abs(step[:, : n - 1]).max(1, keepdims=True)
            step = np.where(last[act][:, None] & (size > 1), step / size, step)
        z[act, 1:] += step
        size = np.abs(z[act, 1:n])
        size = np.maximum(np.maximum(1.0, size), _LARGEST * size.max(1, keepdims=True, initial=0.0))
        moved[act] = (np.abs(step[:, : n - 1]) / size).max(1, initial=0.0)
        wanted = equations.across(z[act])
        reached = limit(equations, wanted[:, :curved], at[act, :curved])
        limited[act] = (reached != wanted[:, :curved]).any(1)
        if transistors:
            aim = equations.transistors.controls(z[act])
            ruled[act] = transistor_limit(aim, ruled[act])
            limited[act] |= (ruled[act] != aim).any(1)
        wanted[:, :curved] = reached
        at[act] = wanted
    return z, done, max_iterations


def _allowed(equations: NodalEquations, z: Array, slopes: Array, tolerance: float) -> Array:
    """Currents that may be missing at each node, (B, n_nodes) amperes: rounding of its own, where that is more."""
    return np.maximum(tolerance, _DIGITS * equations.rounding(z, slopes))


def _behaviours_obey(equations: NodalEquations, z: Array, law: Array) -> Array:
    """Whether all behavioural sources give what their expressions say, (B,): to 1e-9 of it, and of 1 V or 1 uA."""
    if not equations.behaviours:
        return np.ones(len(z), bool)
    branch = np.array([b for b, *_ in equations.behaviours])
    flows = equations.flowing[branch]
    first, second = equations.branch_ends[branch, :2].T
    size = np.where(flows, np.abs(z[:, equations.n_nodes + branch]), np.abs(z[:, first] - z[:, second]))
    missing = np.abs(law[:, equations.n_nodes + branch]) / equations.shares
    meets = missing <= _SETTLED * np.maximum(size, np.where(flows, 1e-6, 1.0))
    return meets.all(1) & equations.defined(z)


def _diodes_obey(equations: NodalEquations, z: Array, law: Array, on: Array, tolerance: float) -> Array:
    """Whether all ideal diodes meet their laws, (B,): steps in volts do not tell where one switches, or shorts."""
    if not equations.switching.any():
        return np.ones(len(z), bool)
    series = equations.series[equations.series > 0]
    first, second = np.abs(z[:, equations.branch_ends[:, 0]]), np.abs(z[:, equations.branch_ends[:, 1]])
    rounding = 4 * np.finfo(np.float64).eps * np.minimum(first, second)
    volts = tolerance * series.min(initial=1 / equations.scale) + rounding
    allowed = np.where(on, volts, tolerance / equations.scale)
    return ((np.abs(law[:, equations.n_nodes :]) <= allowed) | ~equations.switching).all(1)


def limit(equations: NodalEquations, wanted: Array, last: Array) -> Array:
    """Voltages across curved elements, as far as their exponentials allow from the last ones, (B, curved).

    Nagel 1975: above the critical voltage a step goes as far as Newton's method on the logarithm of the current
    would.
    """
    turned = wanted < np.minimum(0.0, 10 * equations.exponential - equations.mirror)
    edge = np.where(turned, equations.mirror, 0.0)
    v, before = np.where(turned, -wanted - edge, wanted), np.where(turned, -last - edge, last)
    scale, critical = equations.exponential, equations.critical
    argument = 1 + (v - before) / scale
    from_on = np.where(argument > 0, before + scale * np.log(np.maximum(argument, 1e-300)), critical)
    from_off = scale * np.log(np.maximum(v / scale, 1e-300))
    held = np.where(before > 0, from_on, from_off)
    v = np.where((v > critical) & (np.abs(v - before) > 2 * scale), held, v)
    return np.where(turned, -v - edge, v)


def source_volts(parts: Parts, sources: Any) -> Array:
    """Voltages (B, n_voltage_sources) of the sources, checked; the parts' own where none are given."""
    own = parts.group("voltage_source").values.reshape(1, -1)
    if sources is None:
        return own
    volts = np.array(plain(sources), np.float64)
    if volts.ndim != 2 or volts.shape[1] != own.shape[1] or not len(volts):
        raise argument_error("sources", f"have the shape (B, {own.shape[1]})", volts.shape)
    if not np.isfinite(volts).all():
        raise argument_error("sources", "be finite", "not")
    return volts


def spread(drive: Drive, batch: int) -> Drive:
    """A drive with one row an example."""
    for array in drive:
        if len(array) not in (1, batch):
            raise argument_error("sources and targets", "have as many rows as each other, or one", len(array))
    return Drive(*(np.broadcast_to(array, (batch, array.shape[1])) for array in drive))


def select(drive: Drive, rows: Any) -> Drive:
    """A drive for some of the examples."""
    return Drive(*(array[rows] for array in drive))


def _started(equations: NodalEquations, start: Any, batch: int) -> Array:
    z = np.zeros((batch, equations.size + 1))
    if start is None:
        return z
    if isinstance(start, Solution):
        given = np.hstack([start.voltages, start.currents])
        if given.shape[1] != z.shape[1]:
            raise argument_error("start", f"have {z.shape[1]} unknowns", given.shape[1])
    else:
        given = np.atleast_2d(np.array(plain(start), np.float64))
        if given.ndim != 2 or given.shape[1] != equations.n_nodes:
            raise argument_error("start", f"have the shape ({batch}, {equations.n_nodes})", given.shape)
    if len(given) not in (1, batch) or not np.isfinite(given).all():
        raise argument_error("start", f"hold finite voltages for {batch} examples", f"{len(given)}")
    z[:, 1 : given.shape[1]] = given[:, 1:]
    return z


def _weak(equations: NodalEquations) -> Array:
    """Nodes that leakage alone holds, (n_nodes,) bool; held capacitors and nudges hold theirs too."""
    nudge = equations.nudge
    ties = np.zeros((0, 2), np.int64) if nudge is None else nudge.nodes
    return held_by_leakage(equations.parts, equations.branch_ends[:, :2], ties)


def _slopes_at_zero(equations: NodalEquations) -> Array:
    return equations.slopes(np.zeros((1, equations.curved)))


def _less_leak(
    equations: NodalEquations, drive: Drive, tolerance: float, max_iterations: int
) -> tuple[Array | None, int]:
    """Follow the solution of one example as leaks to ground are taken away."""
    z, spent = np.zeros((1, equations.size + 1)), 0
    leak, factor, last = _LEAKS[0], 10.0, np.inf
    for _ in range(_CONTINUATION):
        found, good, used = newton(
            equations, z, drive, leak=leak, tolerance=tolerance, max_iterations=max_iterations
        )
        spent += used
        if good[0]:
            z, last = found, leak
            if leak == 0.0:
                return z, spent
            leak = leak / factor if leak > _LEAKS[1] else 0.0
        elif not np.isfinite(last) or (leak == 0.0 and last < _LEAKS[1]):
            return None, spent
        else:
            factor = np.sqrt(factor)
            if factor < 1.01:
                return None, spent
            leak = last / factor
    return None, spent


def _more_drive(
    equations: NodalEquations, drive: Drive, tolerance: float, max_iterations: int
) -> tuple[Array | None, int]:
    """Follow the solution of one example as all sources are turned up."""
    z, spent = np.zeros((1, equations.size + 1)), 0
    share, step = 0.0, 0.1
    for _ in range(_CONTINUATION):
        trial = min(1.0, share + step)
        scaled = Drive(*(trial * array for array in drive))
        found, good, used = newton(equations, z, scaled, tolerance=tolerance, max_iterations=max_iterations)
        spent += used
        if good[0]:
            z, share, step = found, trial, 2 * step
            if share == 1.0:
                return z, spent
        else:
            step /= 4
            if step < 1e-5:
                return None, spent
    return None, spent


def _refuse_singular(equations: NodalEquations) -> None:
    """Raise InputError if a linear circuit has no unique solution."""
    none = np.zeros((1, 0))
    factors = Factors(equations, equations.jacobian(none, none, none))
    # Conductances alone never cancel, however different they are.
    if factors.singular[0] or (equations.active and factors.reciprocal_condition() < _SINGULAR):
        raise InputError(
            "The circuit has no unique operating point: its equations are singular at node "
            f"{equations.parts.nodes[1 + factors.weakest()]!r} (nothing sets its voltage, or the feedback of an "
            "active part cancels the conductance there)."
        )
