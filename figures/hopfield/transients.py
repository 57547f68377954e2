"""Transients of the analog circuit: volts over seconds, energy, missing current and power, free and nudged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_models.analog.circuit import FARAD, AnalogHopfieldCircuit
from hardware_models.analog.power import power
from hardware_models.hopfield.graph import UnitGraph
from hardware_models.hopfield.network import HopfieldNetwork
from physics_ep.dynamics.simulation import simulate
from physics_ep.errors import argument_error
from physics_ep.extremes import greatest
from physics_ep.nudging import Nudge

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject, fresh_hopfield, given

UNITS_SHOWN = 3

CLASSES = {
    "amplifiers": "from amplifiers",
    "inputs": "from inputs",
    "nudge": "from the nudge",
    "pairs": "heat, conductances",
    "leaks": "heat, leaks",
    "capacitors": "into capacitors",
}
"""Classes of `hardware_models.analog.power.Power`, as the legend names them; the currents count as inputs."""
LOOKS = (style.Series(style.BLACK, (0, None), "o"), style.Series(style.GREY, (0, (5, 1.5)), "s"))
"""Line styles of the free and the nudged phase, where both are in one panel."""
DECADES = 5
"""Decades of power that are shown, below the largest value ..."""
TIME_DECADES = 3.5
"""... and of time, where that is logarithmic."""


@dataclass(frozen=True)
class Transient:
    """One phase of one example; T times, n nodes.

    Attributes
    ----------
    beta : float
        Nudging strength, siemens; 0 for the free phase.
    time : ndarray (T,)
        Seconds from the beginning of the phase.
    volts : tuple of ndarray (T, n)
        Voltages of each of `CircuitTransients.layers`.
    energy : ndarray (T,)
        F = E + beta C, watts.
    current : ndarray (T,)
        Largest current that charges a capacitor, amperes.
    settling_time : float
        Seconds until that stays under 1 % of its peak; NaN if it does not by the end.
    power : dict of str to ndarray (T,)
        Power that each class of elements dissipates, watts.
    energies : dict of str to float
        Integrals of these, joules.
    rest : tuple of ndarray (n,)
        Equilibrium that a solver certified, volts, as `volts` has them; empty: none was asked for.
    residual : float
        Residual of that equilibrium: largest current that is missing at a node, amperes.
    """

    beta: float
    time: np.ndarray
    volts: tuple[np.ndarray, ...]
    energy: np.ndarray
    current: np.ndarray
    settling_time: float
    power: dict[str, np.ndarray]
    energies: dict[str, float]
    rest: tuple[np.ndarray, ...] = ()
    residual: float = math.nan

    @property
    def distance(self) -> float:
        """Largest difference between where the phase ends and the certified equilibrium, volts."""
        return greatest(float(np.abs(v[-1] - r).max()) for v, r in zip(self.volts, self.rest, strict=True))


@dataclass(frozen=True)
class CircuitTransients:
    """A free phase from rest, and the nudged phase that follows it.

    Attributes
    ----------
    label : str
    phases : (Transient, Transient)
        Free, nudged.
    layers : tuple of str
        Layers whose volts are shown: for an analog Hopfield network, outputs of its amplifiers.
    classes : dict of str to str
        Classes of elements, and how the legend names them.
    sources : tuple of str
        The classes that deliver.
    decades : float
        Number of decades of power that are shown.
    log_time : bool
        Whether time is shown on a logarithmic axis.
    """

    label: str
    phases: tuple[Transient, Transient]
    layers: tuple[str, ...] = ("hidden", "outputs")
    classes: Mapping[str, str] = field(default_factory=lambda: dict(CLASSES))
    sources: tuple[str, ...] = ("amplifiers", "inputs", "nudge")
    decades: float = DECADES
    log_time: bool = False


def circuit_transients(
    subject: Subject, *, share: float = 0.5, duration: float = 16.0, capacitance: float | None = None
) -> CircuitTransients:
    """Simulate the analog circuit of the subject's network on its first example.

    Parameters
    ----------
    subject : Subject
        Its system is a `HopfieldNetwork`, a `UnitGraph`, or an `AnalogHopfieldCircuit` already.
    share : float
        Nudging strength over the circuit's own conductance 1 / (A R).
    duration : float
        Duration of each phase, in units of R C.
    capacitance : float, optional
        Farad; default that of `AnalogHopfieldCircuit.from_network`.

    Returns
    -------
    CircuitTransients

    Raises
    ------
    InputError
        If the system has no analog circuit.
    """
    system = subject.system
    if not isinstance(system, HopfieldNetwork | UnitGraph):
        raise argument_error("run", "hold a Hopfield network for this figure", type(system).__name__)
    circuit = (
        system
        if isinstance(system, AnalogHopfieldCircuit)
        else AnalogHopfieldCircuit.from_network(system, capacitance=FARAD if capacitance is None else capacitance)
    )
    volt = circuit.supply
    x, y = volt * subject.x[:1].double().cpu(), volt * subject.y[:1].double().cpu()
    outputs = circuit.output_columns.numpy()
    hidden = np.setdiff1d(np.arange(len(circuit.units)), outputs)
    nudge = Nudge(subject.cost, y, share * circuit.nudge_scale)
    span, steps = duration * circuit.time_constant, math.ceil(40 * duration)
    found, start = [], None
    for pull in (None, nudge):
        course = simulate(circuit, x, span, pull, start, steps=steps)
        start = tuple(s[-1] for s in course.state)
        volts = course.state[0][:, 0].numpy()
        drawn = power(circuit, course, x, pull)
        drawn = replace(drawn, inputs=drawn.inputs + drawn.currents)
        found.append(
            Transient(
                beta=0.0 if pull is None else float(nudge.beta),  # type: ignore[arg-type]
                time=course.time.numpy(),
                volts=(volts[:, hidden], volts[:, outputs]),
                energy=course.energy[:, 0].detach().numpy(),
                current=course.residual[:, 0].numpy() * circuit.residual_scale,
                settling_time=float(course.settling_time[0]),
                power={name: getattr(drawn, name)[:, 0].detach().numpy() for name in CLASSES},
                energies={name: float(value[0]) for name, value in drawn.energies().items() if name in CLASSES},
            )
        )
    return CircuitTransients(subject.label, (found[0], found[1]))


@style.drawing
def draw_transients(data: CircuitTransients) -> Figure:
    """Upper row: volts of both phases, energy above its end. Lower row: power of both phases, charging current."""
    free, nudged = data.phases
    figure, axes = style.new_figure(style.PAGE, 104, 2, 3)
    time, second = scale(free.time[-1], "s")
    shown = [np.argsort(-np.abs(v[-1] - v[0]), kind="stable")[:UNITS_SHOWN] for v in nudged.volts]
    _draw_volts(axes[0, 0], free, data.layers, shown, time)
    _draw_volts(axes[0, 1], nudged, data.layers, shown, time, [v[-1] for v in free.volts])
    _draw_energy(axes[0, 2], data, time)
    _draw_power(axes[1, 0], free, data, time)
    _draw_power(axes[1, 1], nudged, data, time)
    style.same_limits(axes[1, :2])
    _draw_current(axes[1, 2], data, time)
    axes[0, 0].set_title("free phase, from rest")
    axes[0, 1].set_title(f"nudged, $\\beta$ = {quantity(nudged.beta, 'S')}")
    axes[1, 0].set_title("power, free phase")
    axes[1, 1].set_title("power, nudged phase")
    for ax in axes.flat:
        ax.set_xlabel(f"Time ({second})")
        if data.log_time:
            ax.set_xscale("log")
        ax.set_xlim(free.time[-1] * time * (10**-TIME_DECADES if data.log_time else 0), free.time[-1] * time)
    for k, phase in enumerate((free, nudged)):
        if math.isfinite(phase.settling_time):
            for ax in axes[:, k]:
                ax.axvline(phase.settling_time * time, color=style.GREY, lw=0.7, ls=(0, (4, 2)), zorder=0)
    for ax in (axes[0, 0], axes[0, 1], *axes[:, 2]):
        style.legend(ax)
    classes: dict[str, Artist] = {}
    for ax in axes[1, :2]:
        classes |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    order = [label for label in data.classes.values() if label in classes]
    handles = [classes[label] for label in order]
    style.shared_legend(handles=handles, labels=order)
    return figure


PREFIXES = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M"}


def scale(largest: float, unit: str) -> tuple[float, str]:
    """Factor and unit that bring a number to between 1 and 1000: (1e9, 'ns') for 2e-8 s."""
    exponent = 3 * math.floor(math.log10(abs(largest)) / 3) if largest else 0
    exponent = min(max(exponent, min(PREFIXES)), max(PREFIXES))
    return 10.0**-exponent, PREFIXES[exponent] + unit


def quantity(value: float, unit: str) -> str:
    """A number with its unit: '20 ns'."""
    factor, name = scale(value, unit)
    return f"{value * factor:.3g} {name}"


def _sparse(phase: Transient, k: int = 0, count: int = 6) -> tuple[int, int]:
    every = max(1, len(phase.time) // count)
    return k * every // 4, every


def _draw_volts(
    ax: Axes,
    phase: Transient,
    layers: tuple[str, ...],
    shown: list[np.ndarray],
    time: float,
    start: list[np.ndarray] | None = None,
) -> None:
    begun = [np.zeros(v.shape[1]) for v in phase.volts] if start is None else start
    moved = [v - b for v, b in zip(phase.volts, begun, strict=True)]
    factor, unit = scale(max(float(np.abs(v[:, i]).max()) for v, i in zip(moved, shown, strict=True)), "V")
    for k, (name, layer, nodes) in enumerate(zip(layers, moved, shown, strict=True)):
        for j, node in enumerate(nodes):
            label = None if j else name
            mark = _sparse(phase, k + j)
            style.series(k).plot(ax, phase.time * time, layer[:, node] * factor, label=label, markevery=mark)
    if phase.rest:
        ends = np.concatenate([(r - b)[i] for r, b, i in zip(phase.rest, begun, shown, strict=True)])
        cross: dict[str, Any] = {"marker": "x", "ls": "", "mew": 0.8, "color": style.BLACK, "clip_on": False}
        ax.plot(
            np.full(len(ends), phase.time[-1] * time),
            ends * factor,
            label=f"certified to {quantity(phase.residual, 'A')}",
            zorder=5,
            **cross,
        )
    ax.set_ylabel(f"$V$ ({unit})" if start is None else f"$V - V_\\mathrm{{free}}$ ({unit})")


def _draw_energy(ax: Axes, data: CircuitTransients, time: float) -> None:
    heights = [p.energy - p.energy[-1] for p in data.phases]
    factor, unit = scale(max(float(h.max()) for h in heights), "W")
    for k, (phase, height) in enumerate(zip(data.phases, heights, strict=True)):
        # The end is where the simulation ends, not the limit: the last decade above it would mislead.
        visible = height > 10 * height[-max(2, len(height) // 10)]
        mark = _sparse(phase, k)
        LOOKS[k].plot(ax, phase.time[visible] * time, height[visible] * factor, label=_name(phase), markevery=mark)
    ax.set_yscale("log")
    ax.set_ylabel(f"$F - F_\\mathrm{{end}}$ ({unit})")


def _draw_power(ax: Axes, phase: Transient, data: CircuitTransients, time: float) -> None:
    factor, unit = scale(max(float(np.abs(p).max()) for p in phase.power.values()), "W")
    least = 10.0**-data.decades * max(float(np.abs(p).max()) for p in phase.power.values())
    for k, (name, label) in enumerate(data.classes.items()):
        if name not in phase.power:
            continue
        size = np.where(np.abs(phase.power[name]) > least, np.abs(phase.power[name]), np.nan)
        if np.isfinite(size).any():
            mark = _sparse(phase, k)
            style.series(k).plot(ax, phase.time * time, size * factor, label=label, markevery=mark)
    ax.set_yscale("log")
    ax.set_ylabel(f"Power, absolute ({unit})")


def _draw_current(ax: Axes, data: CircuitTransients, time: float) -> None:
    factor, unit = scale(float(data.phases[0].current.max()), "A")
    for k, phase in enumerate(data.phases):
        mark = _sparse(phase, k)
        LOOKS[k].plot(ax, phase.time * time, phase.current * factor, label=_name(phase), markevery=mark)
    for k, phase in enumerate(data.phases):
        bound = 0.01 * phase.current.max() * factor
        ax.axhline(bound, color=LOOKS[k].color, lw=0.7, ls=(0, (4, 2)), label=None if k else "1 % of the peak")
        if math.isfinite(phase.settling_time):
            ring: dict[str, Any] = {"mfc": "none", "mec": style.SERIES[1].color, "mew": 0.9, "ms": 4.5, "ls": ""}
            label = None if k else "settling time"
            ax.plot([phase.settling_time * time], [bound], marker="D", label=label, zorder=5, **ring)
    ax.set_yscale("log")
    ax.set_ylabel(f"Largest charging current ({unit})")


def _name(phase: Transient) -> str:
    return "nudged" if phase.beta else "free"


def make_circuit_transients(request: Request) -> Drawn:
    """Figure 'circuit_transients' of the catalogue."""
    # The circuit is simulated in float64 on the CPU, wherever its network was.
    subject = (
        fresh_hopfield("Hopfield network", [48, 32], "tanh", 0.8, examples=1, seed=request.seed)
        if request.run is None
        else given(request, examples=1)
    )
    with request.progress.task("figure: circuit transients", 1) as advance:
        data = circuit_transients(subject)
        advance(1)
    return Drawn(draw_transients(data), asdict(data))
