"""A circuit in time: C dv/dt + i(v, t) = 0, stiff, with nodes that have no capacitor, by implicit Runge-Kutta.

Inductors count as capacitors do, with currents for voltages, and so do the states of memristors
(`hardware_models.nodal.memristors`), which begin where the parts list says. Nodes without a capacitor, and the
currents of sources, have no derivative: together the equations are a differential-algebraic system. Each stage of a
diagonally implicit method gives every capacitor a current that is a conductance C / (h a_ii) times its voltage and
a part known from earlier stages, as circuit simulators do for the trapezoidal rule (Nagel 1975, SPICE2); then
Kirchhoff's laws are those of a circuit without capacitors, and hold in full at every stage. The methods are stiffly
accurate and L-stable: what moves faster than the step is damped, not followed, and the last stage is the new state.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from physics_ep.dynamics.integrators import TABLEAUS, Tableau
from physics_ep.errors import InputError, argument_error, require_count, unknown_name
from physics_ep.nudging import Nudge
from physics_ep.progress import SILENT, Progress, task

from ..arrays import plain
from ..netlists.parts import Group, Parts
from ..netlists.topology import find_loop
from ..netlists.waveforms import Waveforms
from .courses import CircuitTrajectory
from .equations import Array, Drive, NodalEquations
from .nudges import Nudging, nudging
from .points import ITERATIONS, TOLERANCE, Solution, solve, source_volts, spread
from .power import CircuitPower
from .steps import Stepper, TransientPoint
from .stored_transients import CHUNK_BYTES, TransientStore

METHODS = {
    "tr_bdf2": TABLEAUS["tr_bdf2"],
    # Kennedy and Carpenter, Applied Numerical Mathematics 44 (2003) 139, ARK4(3)6L[2]SA, its implicit half.
    "kennedy_carpenter": Tableau(
        (
            (),
            (1 / 4, 1 / 4),
            (8611 / 62500, -1743 / 31250, 1 / 4),
            (5012029 / 34652500, -654441 / 2922500, 174375 / 388108, 1 / 4),
            (15267082809 / 155376265600, -71443401 / 120774400, 730878875 / 902184768, 2285395 / 8070912, 1 / 4),
            (82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, 1 / 4),
        ),
        (82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, 1 / 4),
        order=4,
        companion=(
            4586570599 / 29645900160,
            0.0,
            178811875 / 945068544,
            814220225 / 1159782912,
            -3700637 / 11593932,
            61727 / 225920,
        ),
        estimate_order=3,
    ),
}
"""Methods by name: L-stable, their first stage explicit, all others with one coefficient on the diagonal."""
_IMPULSE = 1e-12
"""Share of the duration that a loop of capacitors and sources takes to share a jump of voltage."""


def transient(
    circuit: Any,
    duration: float,
    *,
    inputs: Any = None,
    start: Any = "initial",
    nudge: Nudge | tuple[Sequence[str], Any, float] | None = None,
    method: str = "kennedy_carpenter",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    every: int = 1,
    by_part: bool = False,
    max_steps: int = 1_000_000,
    progress: Progress | bool = SILENT,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> CircuitTrajectory:
    """Follow a circuit in time.

    Parameters
    ----------
    circuit : Parts, or Circuit
    duration : float
        Seconds.
    inputs : array_like (B, n_voltage_sources), optional
        Volts of the voltage sources; those with a waveform follow it all the same. Default: the parts' own, B = 1.
    start : 'initial', 'zero', 'operating_point', CircuitTrajectory, or array_like (B, n_nodes)
        Capacitors at their initial voltages (IC=, or what .ic says of their nodes), without charge where there is
        none, and inductors at their initial currents (IC=), else without: SPICE's UIC; all without charge and
        current; at rest at what sources are before time 0, under the nudge where there is one, nodes of .ic held at
        their voltages, as SPICE starts without UIC; as they are at the end of a course of the same circuit, with
        the currents of its inductors and the states of its memristors; or charged to what lies across them at these
        node voltages (ground's first), inductors without current. Whatever has no capacitor follows from that.
        Waveforms begin at their time 0 in each course.
    nudge : Nudge with SquaredError or a multiple of it, or (node names, targets, beta), optional
        A conductance beta, siemens, from each output node to a source at its target, volts.
    method : str
        One of `METHODS`.
    rtol, atol : float
        Error of each step at each node: rtol times its voltage plus atol volts. All examples take the same steps.
    every : int
        Keep one step in so many; the last is kept.
    by_part : bool
        Whether to meter the power of every part by itself, in place of each kind's.
    max_steps : int
    progress : Progress
    out : path, optional
        Write the course to this file as it is computed, for courses larger than memory
        (`hardware_models.nodal.stored_transients`). What is returned is mapped from the file.
    overwrite : bool
        Replace a file that something else wrote.

    Returns
    -------
    CircuitTrajectory

    Raises
    ------
    InputError
        If an argument does not fit, the circuit has no consistent state at the start, or it diverges.
    """
    parts = circuit if isinstance(circuit, Parts) else getattr(circuit, "parts", None)
    if not isinstance(parts, Parts):
        raise argument_error("circuit", "be a Circuit or Parts", type(circuit).__name__)
    if not (np.isfinite(duration) and duration > 0):
        raise argument_error("duration", "be positive and finite, in seconds", duration)
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if not (rtol > 0 and atol > 0):
        raise argument_error("rtol and atol", "be positive", (rtol, atol))
    require_count("every", every)
    require_count("max_steps", max_steps)
    volts, start = source_volts(parts, inputs), plain(start)
    held = nudging(parts, _conductances(circuit, nudge))
    waves = Waveforms(parts, None if inputs is None else volts, duration)
    stepper = Stepper(parts, held, METHODS[method], rtol, atol, by_part, waves.longest)
    begun = 1 if isinstance(start, str) else len(_voltages(start))
    batch = max(len(volts), len(held.targets) if held else 1, begun)
    first = _beginning(parts, held, waves, start, batch, stepper)
    kept = [first]
    with ExitStack() as opened:
        store = None if out is None else opened.enter_context(TransientStore(out, overwrite))
        advance = opened.enter_context(task(progress, "following the circuit", total=1000))
        shown, together = 0, max(1, CHUNK_BYTES // (24 * first.z.nbytes))
        for count, point in enumerate(_points(stepper, waves, first, parts, held, max_steps), 1):
            if count % every == 0 or point.time >= duration:
                kept.append(point)
            if store is not None and len(kept) >= together:
                store.append(_trajectory(stepper, waves, kept))
                kept = []
            done = int(1000 * point.time / duration)
            if done > shown:
                advance(done - shown)
                shown = done
        if store is None:
            return _trajectory(stepper, waves, kept)
        if kept:
            store.append(_trajectory(stepper, waves, kept))
        return store.finish()


def _points(
    stepper: Stepper, waves: Waveforms, first: TransientPoint, parts: Parts, held: Nudging | None, max_steps: int
) -> Iterator[TransientPoint]:
    """The course after its first point, one step after the other, each piece of the waveforms by itself."""
    point = first
    for k in range(len(waves.edges) - 1):
        began, _ = waves.piece(k)
        if k:
            before = waves.at(waves.edges[k], after=False)
            if any((a != b).any() for a, b in zip(before, began, strict=True)):
                z, charging = consistent(parts, held, stepper, point.z, began, waves.edges[-1])
                point = stepper.point(point.time, z, charging, began, point.energy)
                yield point
        for step in stepper.cross(point, waves.edges[k], waves.edges[k + 1], waves.course(k), waves.edges[-1]):
            point = step
            if stepper.steps > max_steps:
                raise InputError(
                    f"Argument max_steps must be larger, but was {max_steps}: it took the transient to "
                    f"{point.time:.3g} s."
                )
            yield step


def _beginning(
    parts: Parts, held: Nudging | None, waves: Waveforms, start: Any, batch: int, stepper: Stepper
) -> TransientPoint:
    """The first point: capacitors as asked for, all else consistent with them."""
    began = waves.at(0.0, after=True)
    charges: Array | None = None
    inductor = parts.group("inductor")
    coils = stepper.equations.coils[: len(inductor)]
    z = np.zeros((batch, stepper.equations.size + 1))
    z[:, stepper.equations.states] = stepper.equations.memristors.states
    if isinstance(start, str) and start == "operating_point":
        before = waves.at(0.0, after=False)
        z = _at_rest(parts, held, before, z)
        if not parts.initial and all((a == b).all() for a, b in zip(before, began, strict=True)):
            return stepper.point(0.0, z, np.zeros((batch, len(stepper.equations.capacitance))), began)
    elif isinstance(start, str):
        if start not in ("initial", "zero"):
            must = "be 'initial', 'zero', 'operating_point', a course or node voltages"
            raise argument_error("start", must, repr(start))
        if start == "initial":
            charges = initial_charges(parts)
            z[:, coils] = [inductor.initial.get(name, 0.0) for name in inductor.names]
    else:
        given, n = _voltages(start), len(parts.nodes)
        if isinstance(start, CircuitTrajectory):
            _require_same(start, stepper)
        if given.ndim != 2 or given.shape[1] != n or len(given) not in (1, batch) or not np.isfinite(given).all():
            raise argument_error("start", f"hold finite voltages of shape ({batch}, {n})", given.shape)
        z[:, 1:n] = given[:, 1:]
        if isinstance(start, CircuitTrajectory):
            z[:, stepper.equations.flows] = start.currents[-1]
            z[:, stepper.equations.states] = start.states[-1]
    z, charging = consistent(parts, held, stepper, z, began, waves.edges[-1], charges)
    return stepper.point(0.0, z, charging, began)


def _voltages(start: Any) -> Array:
    """Node voltages of a start that is no word, (B, nodes)."""
    try:
        given = start.state[0][-1] if isinstance(start, CircuitTrajectory) else start
        return np.atleast_2d(np.asarray(given).astype(np.float64))
    except (TypeError, ValueError):
        must = "be 'initial', 'zero', 'operating_point', a course or node voltages"
        raise argument_error("start", must, type(start).__name__) from None


def _require_same(course: CircuitTrajectory, stepper: Stepper) -> None:
    """Refuse a course of a circuit with other nodes, branches or memristors."""
    equations = stepper.equations
    branches = equations.branches[: equations.flows.stop - equations.flows.start]
    for what, theirs, own in (
        ("nodes", course.nodes, equations.parts.nodes),
        ("branches", course.branches, branches),
        ("memristors", course.memristors, equations.memristors.names),
    ):
        if tuple(theirs) != tuple(own):
            must = f"be a course of this circuit, with its {what} ({', '.join(own) or 'none'})"
            raise argument_error("start", must, ", ".join(theirs) or "without any")


def initial_charges(parts: Parts) -> Array:
    """Volts across the capacitors at the start, (capacitors,): their own, or those of .ic between their nodes."""
    capacitor = parts.group("capacitor")
    level = np.array([parts.initial.get(node, 0.0) for node in parts.nodes])
    first, second = capacitor.nodes.T
    between = (level[first] - level[second]).tolist()
    given = [capacitor.initial.get(name, v) for name, v in zip(capacitor.names, between, strict=True)]
    return np.array(given, np.float64)


def _at_rest(parts: Parts, held: Nudging | None, levels: tuple[Array, Array], z: Array) -> Array:
    """The operating point before time 0, nodes with initial voltages held at them."""
    what = "operating point at the start of the transient"
    if not parts.initial:
        rest = NodalEquations(parts, nudge=held)
        return _solved(rest, z, _drive(rest, levels, len(z)), what)
    own = parts.group("voltage_source")
    nodes = np.array([[parts.nodes.index(node), 0] for node in parts.initial], np.int64)
    volts = np.array([*parts.initial.values()], np.float64)
    added = Group(
        own.names + tuple(f".ic v({node})" for node in parts.initial),
        np.concatenate([own.nodes, nodes]),
        np.concatenate([own.values, volts[:, None]]),
    )
    rest = NodalEquations(replace(parts, groups={**parts.groups, "voltage_source": added}), nudge=held)
    extra = slice(len(parts.nodes) + len(own), len(parts.nodes) + len(own) + len(volts))
    began = np.insert(z, [extra.start] * len(volts), 0.0, axis=1)
    given = np.hstack([levels[0], np.tile(volts, (len(levels[0]), 1))])
    found = _solved(rest, began, _drive(rest, (given, levels[1]), len(z)), what)
    return np.delete(found, extra, axis=1)


def consistent(
    parts: Parts,
    held: Nudging | None,
    stepper: Stepper,
    z: Array,
    levels: tuple[Array, Array],
    duration: float,
    charges: Array | None = None,
) -> tuple[Array, Array]:
    """State and capacitor currents with the charges of a state, or given ones, and new levels of the sources.

    Capacitors are voltage sources for that, and inductors are current sources, with a conductance that lets the
    current of an inductor jump where nothing else could take it. Where they form loops with sources, a jump of a
    source moves charge in
    no time, and each has a resistance that lets it. So it has in loops with ideal diodes, which makes this a very
    short step of the implicit Euler method: a diode on its kink conducts if its node would go on past it.
    """
    capacitor = parts.group("capacitor")
    first, second = capacitor.nodes.T
    loop = bool(find_loop(parts, capacitors=True))
    series = _IMPULSE * duration / capacitor.values.ravel() if loop else None
    inductance = parts.group("inductor").values.ravel()
    parallel = _IMPULSE * duration / inductance
    frozen = NodalEquations(parts, nudge=held, capacitors="held", series=series, parallel=parallel)
    coils = frozen.branch_kinds.get("inductor", slice(0))
    count = len(capacitor)
    state = np.hstack([z, np.zeros((len(z), count))])
    for _ in range(2 if loop else 1):
        drive = _drive(frozen, levels, len(z))
        volts = drive.volts.copy()
        across = state[:, first] - state[:, second] if charges is None else charges
        volts[:, frozen.branch_kinds.get("capacitor", slice(0))] = across
        charges = None
        volts[:, coils] = (state[:, frozen.n_nodes :] / frozen.scale)[:, coils]
        volts[:, frozen.moving] = z[:, frozen.states]
        state = _solved(frozen, state, drive._replace(volts=volts), "start of the transient")
    end = state.shape[1] - count
    return state[:, :end], state[:, end:]


def _drive(equations: NodalEquations, levels: tuple[Array, Array], batch: int) -> Drive:
    volts, amperes = levels
    return spread(equations.drive(volts)._replace(amperes=amperes), batch)


def _solved(equations: NodalEquations, z: Array, drive: Drive, what: str) -> Array:
    found: Solution = solve(equations, z, drive, TOLERANCE, ITERATIONS)
    if not found.converged.all():
        raise InputError(f"The circuit has no {what} that could be found: {found.why_not()}.")
    return np.hstack([found.voltages, found.currents])


def _conductances(circuit: Any, nudge: Any) -> Any:
    """A nudge by the squared error, or by a multiple of it, as conductances at the circuit's outputs."""
    if not isinstance(nudge, Nudge):
        return nudge
    y = nudge.y.detach().cpu().double()
    linear = nudge.cost.linear(y, 1.0)
    shunt = None if linear is None else torch.as_tensor(linear[0], dtype=torch.float64).unique()
    if linear is None or shunt is None or len(shunt) != 1 or float(shunt) <= 0:
        must = "be SquaredError, or a multiple of it (one conductance to each target)"
        raise argument_error("cost of nudge", must, nudge.cost)
    if isinstance(circuit, Parts):
        raise argument_error("nudge", "be (node names, targets, beta) for a parts list", "a Nudge")
    if isinstance(nudge.beta, torch.Tensor | complex):
        raise argument_error("beta of nudge", "be one real number", nudge.beta)
    return tuple(circuit.output_names), (linear[1] / shunt).numpy(), nudge.beta * float(shunt)


def _trajectory(stepper: Stepper, waves: Waveforms, points: list[TransientPoint]) -> CircuitTrajectory:
    def rows(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(p, name) for p in points]))

    equations = stepper.equations
    z, time = rows("z"), rows("time")
    first, second = equations.parts.group("capacitor").nodes.T
    return CircuitTrajectory(
        time,
        (z[..., : equations.n_nodes],),
        rows("content"),
        rows("force"),
        (z[..., first] - z[..., second],),
        "s",
        "V",
        "W",
        nodes=equations.parts.nodes,
        branches=equations.branches[: equations.flows.stop - equations.flows.start],
        currents=z[..., equations.flows],
        charging=rows("charging"),
        kirchhoff=rows("kirchhoff"),
        power=CircuitPower(time, stepper.meter.kinds, stepper.meter.names, rows("power"), rows("energy")),
        steps=stepper.steps,
        rejected=stepper.rejected,
        memristors=equations.memristors.names,
        states=z[..., equations.states],
        memristor_currents=torch.from_numpy(equations.memristor_currents(z.numpy().reshape(-1, z.shape[-1]))).view(
            *z.shape[:2], -1
        ),
    )
