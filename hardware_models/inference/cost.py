"""What an inference of a system costs: its error, the time to rest, watts and joules, each with what it rests on.

A system that is a circuit has seconds and volts of its own. A model on the cells of a device has them by the
device: activities of full scale are `DeviceModel.voltage`, and a unit of the model's time is
`DeviceModel.time_constant`. Any other model has neither, and the figure says so in place of a number.

Energies are the power of the state at rest times the time to rest, by the parts that `mapping.budget` counts, as
for mapped networks.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from physics_ep.blocks import State
from physics_ep.cost import Cost, SquaredError
from physics_ep.dynamics.simulation import SPAN, simulate
from physics_ep.errors import InputError, counted
from physics_ep.misses import told_misses
from physics_ep.physical_system import PhysicalSystem
from physics_ep.relaxation.loop import relax
from physics_ep.runs.metrics import evaluate
from physics_ep.storage.trajectory import Trajectory

from ..analog.circuit import AnalogHopfieldCircuit
from ..analog.power import power as analog_power
from ..circuits.base import NODE_CAPACITANCE, PartsCircuit
from ..devices.fields import defaults_of
from ..devices.model import ASSUMED_SECONDS, DeviceModel
from ..devices.systems import OnDevice
from ..layers.couplings import Dense
from ..layers.layered import Layered
from ..mapping.budget import Budget, PartCounts, Takes
from ..netlists.memristors import STATEFUL
from ..nodal.power import HEAT, STORES, power_at_rest
from ..oscillators.base import Oscillators
from ..resistive.network import ResistiveNetwork

AT_REST = 1e-6
"""Force over its peak below which a system is at rest."""
FOLLOWED = 4
"""Examples that are followed in time."""
LONGEST = 10
"""How many spans of `simulate` a system is given to come to rest."""
MOVING = (*STORES, *STATEFUL)
"""Kinds of parts that give a circuit a motion of its own, which `simulate` does not follow."""
SHOWN = 256
"""Examples over which power is averaged."""


@dataclass(frozen=True)
class InferenceCost:
    """What an inference of a system costs; NaN where it is not known, and `words` says why.

    Attributes
    ----------
    error : float
        Share of the test examples that are misclassified; those without equilibrium count. NaN of measured targets.
    rms, r2 : dict of str to float
        Root mean square miss of each measured target, in the unit of its file, and its R2; empty of classes.
    seconds : float
        Time to rest of the slowest example that was followed, from the initial state.
    watts : float
        What the parts that are known take in the state at rest, mean over the examples.
    joules : float
        Energy of an inference and example.
    budget : Budget or None
        The energy by kinds of parts.
    words : dict of str to str
        What each of 'error', 'time to rest', 'power' and 'energy' rests on, or why it is not known.
    """

    error: float = math.nan
    seconds: float = math.nan
    watts: float = math.nan
    joules: float = math.nan
    budget: Budget | None = None
    rms: dict[str, float] = field(default_factory=dict)
    r2: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """The figures of an inference as `--json` writes them."""
        rows = {} if self.budget is None else {"rows": self.budget.figures()}
        values = {"error": self.error, "seconds": self.seconds, "watts": self.watts, "joules": self.joules}
        of_targets = {"rms": self.rms, "r2": self.r2} if self.rms else {}
        return {**values, **of_targets, **rows, "words": self.words}

    @property
    def misses(self) -> str:
        """What a line tells of measured targets; '' of classes."""
        return told_misses(list(self.rms), self.rms.values(), self.r2.values())


class _UnknownError(Exception):
    """A figure is not known; the message says why."""


def inference_cost(
    system: PhysicalSystem, x: torch.Tensor, y: torch.Tensor | None = None, cost: Cost | None = None
) -> InferenceCost:
    """Measure what an inference of a system costs.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x : Tensor (B, ...)
        Examples, as the system takes them.
    y : Tensor, optional
        Class indices (B,), or measured targets (B, n).
    cost : Cost, optional
        The cost of measured targets. Default: the squared error that the system was trained by.

    Returns
    -------
    InferenceCost

    Raises
    ------
    NotConverged
        If none of the examples has an equilibrium.
    """
    system = copy.deepcopy(system).to(torch.float64)  # the last digits of a course to rest are beyond float32
    x = x.to(system.device, system.dtype) if x.dtype.is_floating_point else x.to(system.device)
    values: dict[str, Any] = {}
    words: dict[str, str] = {}
    if y is None:
        words["error"] = "because the examples have no targets"
    else:
        measured: dict[str, Any] = getattr(system, "measured_targets", {})
        cost = SquaredError(measured.get("target", 1.0)) if cost is None else cost
        found = evaluate(system, [(x, y.to(system.device))], cost=cost)
        values["error"] = found.error
        words["error"] = f"of {counted(len(x), 'test example')}, {found.unconverged} of them without equilibrium"
        if found.misses is not None:
            n = len(found.misses.squares)
            names = measured.get("names", [f"target {k + 1}" for k in range(n)])
            scale = np.array(measured["scale"]) if measured else np.full(n, 1 / getattr(cost, "target", 1.0))
            values["rms"] = dict(zip(names, map(float, scale * found.misses.rms), strict=True))
            values["r2"] = dict(zip(names, map(float, found.misses.r2), strict=True))
            whose = "the file's unit" if measured else "the unit of the targets as given"
            left = f"; {found.unconverged} without equilibrium are left out" if found.unconverged else ""
            words["error"] = f"root mean square of {counted(len(x), 'test example')}, in {whose}{left}"
    few = x[:FOLLOWED]
    try:
        unit, from_where = _seconds(system)
        course = _to_rest(system, few)
        seconds = values["seconds"] = float(course.time[-1]) * unit
        words["time to rest"] = (
            f"slowest of {counted(len(few), 'example')}, from the initial state until the force is below "
            f"{AT_REST:g} of its peak; {from_where}"
        )
    except _UnknownError as why:
        seconds, words["time to rest"] = math.nan, str(why)
    try:
        rest = relax(system, x[:SHOWN])
        if not bool(rest.converged.any()):
            rest.require()
        shown, state = x[:SHOWN][rest.converged], tuple(s[rest.converged] for s in rest.state)
        device = getattr(system, "device_model", None)
        power, of_what = _power(system, state, shown)
        parts = _parts(system)
        takes = Takes(device or DeviceModel(), float(power.mean()), seconds, math.nan, 0, parts)
        budget = takes.inference()
        told = [f"{row} {budget[row]:.2g} J" for row in budget.counted]
        none = f"; without figures for {', '.join(budget.not_counted)}" if budget.not_counted else ""
        static = device or DeviceModel()
        values["watts"] = (
            float(power.mean())
            + parts.amplifiers * static.amplifier_power
            + parts.buffers * static.buffer_power
            + parts.oscillators * static.oscillator_power
        )
        lost = len(rest.converged) - len(shown)
        left = f" ({lost} without equilibrium left out)" if lost else ""
        words["power"] = f"at rest, mean of {counted(len(shown), 'example')}{left}: {of_what}"
        counts = {"amplifiers": parts.amplifiers, "buffers": parts.buffers, "oscillators": parts.oscillators}
        lines = _lines(system)
        for name, n in counts.items():
            if n:
                field = f"{name[:-1]}_power"
                watts = getattr(static, field)
                assumed = device is None or watts == defaults_of(type(static))[field]
                whose = "assumed (default)" if assumed else "by the device"
                which = f" ({lines})" if name == "buffers" else ""
                words["power"] += f"; {n} {name}{which} of {watts:.2g} W each, {whose}"
        if math.isnan(seconds):
            words["energy"] = "because the time to rest is not known"
        else:
            values |= {"joules": budget.total, "budget": budget}
            words["energy"] = f"power at rest times the time to rest: {', '.join(told)}{none}"
    except _UnknownError as why:
        words["power"] = str(why)
        words["energy"] = "because the power is not known"
    return InferenceCost(words=words, **values)


def _seconds(system: PhysicalSystem) -> tuple[float, str]:
    """Seconds of a unit of the system's time, and where they are from."""
    if isinstance(system, PartsCircuit):
        own = [kind for kind in MOVING if len(system.parts.group(kind))]
        if own:
            raise _UnknownError(
                f"because the circuit moves by parts of its own ({', '.join(own)}), which "
                "hardware_models.transient follows"
            )
        assumed = ", assumed" * (system.node_capacitance == NODE_CAPACITANCE)
        return 1.0, f"{system.node_capacitance:.2g} F at each node{assumed}: the circuit has no capacitors"
    if system.time_unit == "s":
        farads = getattr(system, "capacitance", None)
        nodes = (
            f"{farads:.2g} F at each node" if isinstance(farads, float) else "by the capacitances of the circuit"
        )
        return 1.0, nodes
    if not isinstance(system, OnDevice):
        raise _UnknownError(_no_units(system))
    device = system.device_model
    if device is None:
        raise _UnknownError(_no_devices(system))
    given = device.time_constant
    unit = ASSUMED_SECONDS if given is None else given
    origin = "assumed, as the device gives none" if given is None else "the device's"
    return unit, f"a unit of the model's time is a time constant of {unit:.2g} s, {origin}"


def _to_rest(system: PhysicalSystem, x: torch.Tensor) -> Trajectory:
    """Follow a free phase until its force has gone."""
    try:
        course = simulate(system, x, LONGEST * SPAN * system.time_constant, stop_when_settled=AT_REST)
    except InputError as error:
        raise _UnknownError(f"because it cannot be followed in time: {error}") from None
    if not bool((course.residual[-1] <= AT_REST * course.residual.amax(0)).all()):
        raise _UnknownError(f"because it is not at rest after {LONGEST * SPAN:g} time constants")
    return course


def _no_units(system: PhysicalSystem) -> str:
    kind = type(system).__name__
    return f"because a {kind} is a model without volts and seconds, which no devices hold"


def _no_devices(system: PhysicalSystem) -> str:
    kind = type(system).__name__
    return (
        f"because a {kind} has volts and seconds by its devices only: name some "
        "(--preset, or [system.device] in the config)"
    )


def _power(system: PhysicalSystem, state: State, x: torch.Tensor) -> tuple[torch.Tensor, str]:
    """Watts (B,) that a system takes in a state, and what is in them; a system of one's own says it by `watts`."""
    own = getattr(system, "watts", None)
    if callable(own):
        return own(state, x).detach(), f"as the method watts of {type(system).__name__} tells"
    if isinstance(system, ResistiveNetwork):
        return system.cell_power(state, x), "all cells, V^2 G"
    if isinstance(system, PartsCircuit):
        try:
            kinds = power_at_rest(system.parts, system.sources(x).numpy(), system.voltages(state, x).numpy())
        except InputError as error:
            raise _UnknownError(f"because modified nodal analysis finds no power: {error}") from None
        heat = {kind: watts for kind, watts in kinds.items() if kind in HEAT}
        total = sum(heat.values(), np.zeros(len(x)))
        told = ", ".join(f"{kind} {watts.mean():.2g} W" for kind, watts in heat.items())
        return torch.from_numpy(total), f"what sources and active parts deliver, turned into heat: {told}"
    if isinstance(system, AnalogHopfieldCircuit):
        still = simulate(system, x, system.time_constant, start=state, steps=20)
        taken = analog_power(system, still, x)
        return (taken.pairs + taken.leaks)[-1], "all conductances and leaks, V^2 G"
    if not isinstance(system, OnDevice):
        raise _UnknownError(_no_units(system))
    if system.device_model is None:
        raise _UnknownError(_no_devices(system))
    if isinstance(system, Oscillators):
        return torch.zeros(len(x), dtype=torch.float64), "couplings are counted as none"
    if not isinstance(system, Layered) or not all(isinstance(layer, Dense) for layer in system.layers):
        raise _UnknownError(f"because arrays of a {type(system).__name__} are not counted yet")
    device = system.device_model
    way = "each array read from its rows and from its columns"
    return _array_power(system, device, state, x), f"all cells, V^2 G, {way}, full scale {device.voltage:g} V"


def _array_power(system: Any, device: DeviceModel, state: State, x: torch.Tensor) -> torch.Tensor:
    """Watts (B,) of arrays of pairs of cells that are read both ways.

    Both cells of each pair conduct as they were drawn (`OnDevice.line_conductances`). A layer's lines bear its
    activity times `voltage` over its full scale; the input drives its array one way only.
    """
    scales = [float(x.abs().max()) or 1.0, *system.full_scales]
    blocks = [x, *state]
    volts = [block.flatten(1) * (device.voltage / full) for block, full in zip(blocks, scales, strict=True)]
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for k in range(len(system.layers)):
        lines = system.line_conductances(f"layers.{k}.weight").to(x)
        total = total + volts[k].square() @ lines.sum(0)
        if k:
            total = total + volts[k + 1].square() @ lines.sum(1)
        bias = f"layers.{k}.bias"
        if bias in system.device_scales:  # a row that is driven at full scale
            total = total + float(system.line_conductances(bias).sum()) * device.voltage**2
    return total


def _lines(system: PhysicalSystem) -> str:
    """What the buffers that `_parts` counts drive."""
    if isinstance(system, ResistiveNetwork):
        return "two an input, which drive +x and -x"
    return "one an input and a unit, at the lines of arrays"


def _parts(system: PhysicalSystem) -> PartCounts:
    """Count the parts of a system beside its cells."""
    sizes = tuple(getattr(system, "sizes", ()))
    if isinstance(system, ResistiveNetwork):
        behind = sum(sizes[1:-1]) if any(gain != 1 for gain in system.gains[1:]) else 0
        return PartCounts(amplifiers=behind, buffers=2 * sizes[0], input_values=sizes[0], output_values=sizes[-1])
    if isinstance(system, Oscillators):
        return PartCounts(oscillators=sum(sizes[1:]), input_values=sizes[0], output_values=sizes[-1])
    if isinstance(system, AnalogHopfieldCircuit | PartsCircuit) or callable(getattr(system, "watts", None)):
        return PartCounts()
    return PartCounts(
        amplifiers=sum(sizes[1:-1]), buffers=sum(sizes), input_values=sizes[0], output_values=sizes[-1]
    )
