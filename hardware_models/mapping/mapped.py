"""From a predictive coding network to a substrate: what is built, how faithful it is, and its EP gradients.

A substrate is one subclass of `PairedCircuit`, listed in `SUBSTRATES`; everything else is common to all.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import torch

from physics_ep.blocks import State, all_finite, keep
from physics_ep.cost import Cost, SquaredError
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.estimators.propagation import EquilibriumPropagation, estimate_gradient
from physics_ep.estimators.step import Step
from physics_ep.extremes import greatest
from physics_ep.nudging import Nudge, Stencil
from physics_ep.overrides import require_physics
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.predictive_coding.phase import relative
from physics_ep.registry import load, substrates
from physics_ep.relaxation.loop import relax
from physics_ep.weights import check_plain

from ..devices.crossbars import stream
from ..devices.fields import defaults_of
from ..devices.model import DeviceModel, reads
from ..devices.presets import check_idle, undescribed
from .board import SETTLED, NotRealisable, unread_field
from .budget import Takes, count_parts
from .circuit import PairedCircuit
from .fidelity import Course, Fidelity, ToldByFidelity, array_rows
from .oscillator import OscillatorPairs
from .oscillator_graph import PairsGraph, pairs_graph
from .ranges import ReadingRanges
from .stability import certify

if TYPE_CHECKING:  # compiled circuits are heavy: only `to_circuit` imports them
    from .resistive_parts import PairsCircuit

__all__ = [
    "SETTLED",
    "SUBSTRATES",
    "Mapped",
    "NotRealisable",
    "as_read",
    "check_fields",
    "check_rails",
    "device_of",
    "held",
    "map_pcn",
    "substrate_class",
]


NUDGE = 0.01
"""Strength of the nudge whose settling is measured."""


class Mapped(ToldByFidelity):
    """A predictive coding network on a substrate.

    Attributes
    ----------
    network : PredictiveCodingNetwork
        The ideal one.
    system : EnergySystem
        The encoded one, for `relax`, `simulate` and `EquilibriumPropagation`.
    perturbed : PredictiveCodingNetwork
        The feedforward network that the devices compute when nothing is fed back, with the network's parameter
        names. Its backprop is the feedforward reference of gradients, that of `network` the transfer reference;
        what EP adapts to where copies differ is neither (`validation.references`).
    device : DeviceModel
    seed : int
    substrate : str
    unread : tuple of str
        Fields of the device that a preset has set, and the substrate does not read.
    """

    def __init__(
        self,
        network: PredictiveCodingNetwork,
        system: PairedCircuit,
        device: DeviceModel,
        seed: int,
        substrate: str,
        calibration: torch.Tensor | None,
        unread: tuple[str, ...] = (),
    ) -> None:
        self.network = network
        self.system = system
        self.device = device
        self.seed = seed
        self.substrate = substrate
        self.unread = unread
        self._calibration = calibration
        self._ranged: object = None
        """What the ranges of the converters of readings were found for; None: not found."""
        self.course = Course()
        """What came of following the substrate in time, when that was tried last."""

    def words(self) -> list[str]:
        """What is on which substrate, and which imperfections its devices have."""
        set_to = {f.name: getattr(self.device, f.name) for f in fields(self.device)}
        apart = {name: value for name, value in set_to.items() if value != getattr(type(self.device)(), name)}
        sizes = " \N{RIGHTWARDS ARROW} ".join("x".join(map(str, shape)) for shape in self.network.shapes)
        told = ", ".join(f"{name}={value!r}" for name, value in list(apart.items())[:4])
        more = f" and {len(apart) - 4} more" if len(apart) > 4 else ""
        return [f"{sizes} on {self.substrate}", f"devices with {told}{more}" if apart else "ideal devices"]

    @property
    def perturbed(self) -> PredictiveCodingNetwork:
        """The feedforward network that the devices compute when nothing is fed back."""
        return self.system

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs (B, ...) as the substrate is driven by them, in units of activity."""
        return self.system.encode(x)

    def decode(self, state: State) -> torch.Tensor:
        """The network's outputs (B, n_out) from a state of the system."""
        return self.system.outputs(state)

    def estimate(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        cost: Cost,
        scheme: Stencil | str | None = None,
        beta: float | str = "auto",
        *,
        reads: torch.Generator | None = None,
        **options: Any,
    ) -> tuple[dict[str, torch.Tensor], Step]:
        """EP on the substrate: gradient of the mean cost by the network's parameter names, and the step.

        Parameters
        ----------
        x, y : Tensor
        cost : Cost
        scheme, beta
            The arguments of `EquilibriumPropagation` of the same names.
        reads : torch.Generator, optional
            Generator of read noise and conductance noise, best of the system's own device: numbers that are drawn
            elsewhere are copied to it. Default: one of that device, seeded with the device instance, that goes
            on.
        **options
            Options of `EquilibriumPropagation`: solver, tolerance, max_iterations, on_unconverged, gates, ...

        Raises
        ------
        NotConverged
            If a phase finds no equilibrium.
        NegativeNudgeError
            If -beta is beyond the stability limit.
        """
        ep = EquilibriumPropagation(cost, scheme, beta, **options)
        if not isinstance(reads, torch.Generator | None):
            raise argument_error("reads", "be a torch.Generator", type(reads).__name__)
        asked = (cost.name, repr(scheme), beta)
        device = self.system.device_model
        if device.adc_bits is not None and device.adc_range is None and self._ranged not in (True, asked):
            at = self._inputs().to(self.system.device, self.system.dtype)
            # A generator of signs draws for the batch.
            quiet = {name: value for name, value in options.items() if name != "generator"}
            self.calibrate(at, y[torch.arange(len(at), device=y.device) % len(y)], cost, scheme, beta, **quiet)
            self._ranged = asked
        own = self.system.reads
        self.system.reads = own if reads is None else reads
        try:
            return estimate_gradient(ep, self.system, x, y)
        finally:
            self.system.reads = own

    def calibrate(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        cost: Cost,
        scheme: Stencil | str | None = None,
        beta: float | str = "auto",
        **options: Any,
    ) -> Mapped:
        """Set the ranges of the converters of readings to the largest activities and errors of these examples.

        They stay as they are, whatever is read, until this is called again. A device with an `adc_range` does not
        take notice of them. Without a call, `estimate` finds them for its cost, scheme and beta on the calibration
        inputs that the network was mapped with, with the targets of its batch in turn.

        Parameters are those of `estimate`.

        Returns
        -------
        Mapped
            The mapped network itself.

        Raises
        ------
        NotConverged
            If a phase finds no equilibrium.
        """
        system, found = self.system, ReadingRanges(self.system.depth)
        drawn = system.reads.get_state()
        system.ranging = found
        try:
            estimate_gradient(EquilibriumPropagation(cost, scheme, beta, **options), system, x, y)
        finally:
            system.ranging = None
            system.reads.set_state(drawn)
        system.ranges, self._ranged = found, True
        return self

    def gradient(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        cost: Cost,
        scheme: Stencil | str | None = None,
        beta: float | str = "auto",
        **options: Any,
    ) -> dict[str, torch.Tensor]:
        """The gradient by EP on the substrate, by parameter of the network: `estimate` without its step."""
        return self.estimate(x, y, cost, scheme, beta, **options)[0]

    def to_circuit(self) -> PairsCircuit:
        """A resistive network's or Hopfield circuit's parts (`hardware_models.mapping.resistive_parts`, and
        `hopfield_parts`), for modified nodal analysis and SPICE.

        Raises
        ------
        InputError
            If the substrate is another, or the network cannot be drawn.
        """
        from .hopfield_parts import in_parts

        self._require_plain("auto_zero")
        return in_parts(self.system)

    def to_graph(self, edges: str = "one") -> PairsGraph:
        """An oscillator network's oscillators one by one, their mirror images not imposed.

        Parameters
        ----------
        edges : {'one', 'separate'}
            Whether the four edges of a coupling are one cell, as the layers have it, or a cell each, as if there
            were no differential couplers (`oscillator_graph.pairs_graph`).

        Raises
        ------
        InputError
            If the substrate is another, or the network cannot be drawn (`oscillator_graph.pairs_graph`).
        """
        if not isinstance(self.system, OscillatorPairs):
            raise argument_error("substrate", "be 'oscillator'", repr(self.substrate))
        self._require_plain("auto_zero", "feedback_gain")
        meant = {name: p.detach().cpu() for name, p in self.network.named_parameters()}
        return pairs_graph(self.system, edges, meant)

    def _require_plain(self, *names: str) -> None:
        """Refuse a list of parts that has no part for what is done to the errors that are fed back."""
        parts = {"auto_zero": ("off", "stores"), "feedback_gain": (1.0, "drivers of its own")}
        for name in names:
            plain, missing = parts[name]
            if getattr(self.device, name) != plain:
                must = f"be {plain!r} for a list of parts, which has no {missing}"
                raise argument_error(name, must, repr(getattr(self.device, name)))

    def settling(
        self,
        x: torch.Tensor,
        nudge: Nudge | None = None,
        tolerance: float = SETTLED,
        max_iterations: int | None = None,
    ) -> tuple[float, Equilibrium]:
        """Follow the substrate in time until it settles; return the time, in time constants, and the equilibrium.

        A free phase starts from empty capacitors; a nudged one starts from the free state, and `NotConverged` is
        raised where there is none. The time is that of the slowest example, known to a step: half a time constant
        or less, or a tenth of the time passed (`Equilibrium.time`: each example's). `tolerance` is the residual of
        a settled state. If `max_iterations` steps do not reach it, `Equilibrium.status` tells so.
        """
        options = {"solver": "flow", "tolerance": tolerance, "max_iterations": max_iterations}
        start = None if nudge is None else relax(self.system, x).require().state
        found = relax(self.system, x, nudge, start=start, **options)  # type: ignore[arg-type]
        assert found.time is not None
        return float(found.time.max()), found

    def follow(self, x: torch.Tensor | None = None, examples: int = 8) -> Course:
        """Follow free phases in time from rest, and hold their ends against the states of the default solver, whose
        stability is certified. Where the default solver is 'flow' itself, they are held against algebra's. Examples
        for which the default solver finds no state have the certificates of those that algebra finds.

        Parameters
        ----------
        x : Tensor (B, ...), optional
            Default: the calibration inputs.
        examples : int
            Only the first so many are followed, each for a thousand steps in time at most.

        Returns
        -------
        Course
            It is kept, and stands in `fidelity`.
        """
        system = copy.deepcopy(self.system).double()  # of which a state has its digits
        x = (self._inputs() if x is None else x)[:examples].to(system.device, system.dtype)
        algebra = "sweep" if system.shared else "newton"
        solver = algebra if system.default_solver == "flow" else system.default_solver
        end = relax(system, x, solver="flow", tolerance=SETTLED, max_iterations=1000)
        exact = relax(system, x, solver=solver)  # to the last digits: what a residual leaves widens a radius
        there, state = exact.residual <= SETTLED, exact.state
        if solver != algebra and not bool(there.all()):
            state = keep(there, state, relax(system, x, solver=algebra).state)
        both = end.converged & there
        assert end.time is not None
        units = zip(system.amplifiers_h, system.full_scales[1:], end.state, exact.state, strict=False)
        gaps = [float((u.response(p) - u.response(q))[both].abs().max()) / s for u, s, p, q in units if both.any()]
        times = end.time[end.converged]
        certificate = certify(system, state, x)
        known = [n for n, why in enumerate(certificate.reason) if why not in ("no state", "dynamics")]
        worst = max(known, key=lambda n: float(certificate.eigenvalue[n].real), default=None)
        self.course = Course(
            settles="yes" if bool(end.converged.all()) else "no",
            followed=len(x),
            settled=int(end.converged.sum()),
            tolerance=SETTLED,
            seconds=float(times.max()) * system.tau if len(times) else math.nan,
            nudged_seconds=self._nudged_seconds(system, x, end),
            solver=exact.solver,
            found=int(there.sum()),
            gap=greatest(gaps, default=math.nan),
            unsettled=tuple((~end.converged).nonzero().flatten().tolist()),
            verdicts=certificate.verdict,
            growth=math.nan if worst is None else float(certificate.eigenvalue[worst].real),
            radius=math.nan if worst is None else float(certificate.radius[worst]),
        )
        return self.course

    def _inputs(self) -> torch.Tensor:
        """The calibration inputs; random ones in [0, 1) where there are none."""
        if self._calibration is not None:
            return self._calibration
        return torch.rand((4, *self.network.shapes[0]), generator=stream(0, "fidelity"))

    @staticmethod
    def _nudged_seconds(system: PairedCircuit, x: torch.Tensor, free: Equilibrium) -> float:
        """Seconds that a phase takes that is nudged from the free states, by the substrate's own dynamics; NaN
        where an example settles in none of both. The targets are class k mod n of example k."""
        if not bool(free.converged.all()):
            return math.nan
        cost, labels = SquaredError(), torch.arange(len(x), device=x.device) % system.sizes[-1]
        nudge = Nudge(cost, cost.encode(labels, system.sizes[-1], x.dtype), NUDGE)
        options = {"solver": "flow", "tolerance": SETTLED, "max_iterations": 1000}
        found = relax(system, x, nudge, start=free.state, **options)  # type: ignore[arg-type]
        if not bool(found.converged.all()):
            return math.nan
        assert found.time is not None
        return float(found.time.max()) * system.tau

    @property
    def fidelity(self) -> Fidelity:
        """Report of how well the substrate, with its cells as they are now, holds the network: a `Fidelity` has the
        error of the outputs, the errors of each array, settling times and power. Both are run on the calibration
        inputs, or on four random examples with entries in [0, 1) where there are none."""
        system = self.system
        x = self._inputs()
        with torch.no_grad():
            wanted = self.network(x.to(self.network.device, self.network.dtype)).to(system.device, system.dtype)
            free = relax(system, x := x.to(wanted))
            off, size = (float(v.abs().max()) for v in (self.decode(free.state) - wanted, wanted))
            settled = bool(free.converged.all())
            activities = [a.response(p) for a, p in zip(system.amplifiers_h, free.state, strict=False)]
            errors = system.fed_errors(free.state) if settled else None
            layers = array_rows(
                system, x, activities if settled else system.run(x).states, system.describe(free, x), errors
            )
            residual = float(free.residual.max())
            if system.shared and settled:
                # The forward pass by construction, of which nothing was left to compare: its units are driven anew.
                drives = system.phase(system.prepare(x)).drives("h", activities)
                residual = greatest(float(relative(a, p).max()) for a, p in zip(drives, free.state, strict=False))
            formula = system.settling_seconds(free, x) if settled else (math.nan, math.nan)
            measured = (self.course.seconds, self.course.nudged_seconds)
            origins = self.course.times_from if settled else ("formula", "formula")
            settling, nudged = (
                m if origin == "measured" else f for m, f, origin in zip(measured, formula, origins, strict=True)
            )
        takes = Takes(
            system.device_model,
            sum(layer.power for layer in layers),
            settling,
            nudged,
            sum(layer.cells for layer in layers),
            count_parts(system),
        )
        return Fidelity(
            substrate=self.substrate,
            exactness=system.exactness,
            held=held(system),
            free_state_error=math.nan if not settled else off / size if size > 0 else off,
            free_residual=residual,
            free_converged=settled,
            settling_time=settling,
            nudged_settling_time=nudged,
            formula_time=formula[0],
            nudged_formula_time=formula[1],
            takes=takes,
            time_constant=system.tau,
            time_from=system.time_from,
            layers=layers,
            free_share=float(free.converged.double().mean()),
            solver=free.solver,
            copies=self.device.copies,
            writings=system.writings,
            missed=system.missed,
            unread=self.unread,
            course=self.course,
        )


def held(system: PredictiveCodingNetwork) -> str:
    """What latches hold in nudged phases, in words.

    Routes are those of the forward pass, for h and u: where copies differ, a free phase does not choose them anew.
    """
    names = []
    gated = {layer.activation_name for layer in system.stack if layer.activation.gated}
    if system.gates == "held" and gated:
        names.append("gates of " + ("ReLUs" if gated == {"relu"} else "clipped units"))
    if system.routed:
        names.append("routes of max poolings (in all phases)")
    return " and ".join(names) if names else "nothing"


SUBSTRATES: dict[str, type[PairedCircuit] | str] = {
    "hopfield": "hardware_models.mapping.hopfield:HopfieldPairs",
    "resistive": "hardware_models.mapping.resistive:ResistivePairs",
    "oscillator": "hardware_models.mapping.oscillator:OscillatorPairs",
}
"""Substrates by name: subclasses of `PairedCircuit`, or "module:class", imported when asked for. A package of yours
adds its own as entry points `physics_ep.substrates`, a script by `SUBSTRATES["mine"] = Mine`."""


def substrate_class(name: str) -> type[PairedCircuit]:
    """The class of a substrate.

    Raises
    ------
    InputError
        If there is no such name; the message has the nearest right one.
    """
    known = {**SUBSTRATES, **substrates()}
    if name not in known:
        raise unknown_name("substrate", name, known)
    found = known[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        return getattr(importlib.import_module(module), attribute)
    return load(found) if isinstance(found, EntryPoint) else found


def device_of(substrate: str, device: DeviceModel | None) -> DeviceModel:
    """A device of the class that a substrate has.

    Parameters
    ----------
    substrate : str
    device : DeviceModel or None
        None: the ideal one. A device without the substrate's own fields gets their defaults.

    Raises
    ------
    InputError
        If the substrate is not known, or the device is none.
    """
    kind = substrate_class(substrate).device_class
    if device is None:
        return kind()
    if not isinstance(device, DeviceModel):
        raise argument_error("device", f"be a {kind.__name__}", type(device).__name__)
    return kind(**asdict(device)) if issubclass(kind, type(device)) and kind is not type(device) else device


def check_fields(substrate: str, fields: Mapping[str, Any], kind: type[DeviceModel] = DeviceModel) -> None:
    """Whether a substrate reads fields of a device.

    Parameters
    ----------
    substrate : str
    fields : mapping of str to Any
        Names, and the values for the message.
    kind : class of devices

    Raises
    ------
    InputError
        If the substrate does not read a field; the message names the substrates that do.
    """
    effects = substrate_class(substrate).effects
    for name, value in fields.items():
        if not reads(name, effects, kind):
            reason = substrate_class(substrate).no_slots
            if name == "transpose" and value == "slots" and reason:
                raise NotRealisable(substrate, 1, reason)
            others = [other for other in (*SUBSTRATES, *substrates()) if name in substrate_class(other).effects]
            raise unread_field(substrate, name, value, others)


def as_read(substrate: str, device: DeviceModel) -> tuple[DeviceModel, tuple[str, ...]]:
    """A device as a substrate reads it, and the names of the fields of a preset that it does not read.

    Whoever sets a field expects something of it, so that a field which differs from its default and is not read is
    refused. A preset is no such choice: it describes a technology, wherever it is used. Fields that stand as in the
    preset of the same `source` take their defaults in the device that is returned; `Fidelity.unread` tells them.

    Raises
    ------
    InputError
        If the device has a field, set on purpose, that the substrate does not read.
    """
    unread = device.unread(substrate_class(substrate).effects)
    check_fields(substrate, {name: getattr(device, name) for name in undescribed(device, unread)}, type(device))
    defaults = defaults_of(type(device))
    return device.replace(**{name: defaults[name] for name in unread}) if unread else device, unread


def fitted_voltage(system: PairedCircuit, device: DeviceModel) -> float:
    """The voltage of a full scale, V, with which no cell of a mapped network sees more than the device's limit.

    Parameters
    ----------
    system : PairedCircuit
        The network on the same device without a limit.
    device : DeviceModel
        The device, with a `cell_voltage_limit`.

    Raises
    ------
    NotRealisable
        If voltages would have to be scaled, and a unit's response has a voltage scale of its own.
    """
    limit = device.cell_voltage_limit
    assert limit is not None
    ratio = max(system.cell_voltage(k) for k in range(system.depth)) / limit
    if ratio <= 1:
        return device.voltage
    for k, layer in enumerate(system.stack[:-1], 1):
        real = layer.activation_name in ("relu", "diode") and device.diode_current is not None
        if not (layer.activation.piecewise_linear or real):
            reason = f"its {layer.activation_name} units have a scale of voltage of their own; set voltage instead"
            told = f"cells see {ratio:.3g} times their limit, and {reason}"
            raise NotRealisable(system.substrate, k, told)
    return device.voltage / ratio


def with_arrays(net: PredictiveCodingNetwork) -> PredictiveCodingNetwork:
    """The network whose every link has weights that an array can hold: residual sums, concatenations and averages
    over windows become arrays of one cell pair a channel or a place of a window, which nobody trains."""
    if all(name is not None for wires in net.wires for _, _, name in wires):
        return net
    net = copy.deepcopy(net)
    like = torch.empty(0, dtype=net.dtype, device=net.device)
    for layer in net.stack:
        layer.give_weights(like)
    return net


def check_rails(rails: str, device: DeviceModel) -> None:
    """Whether the argument `rails` of `map_pcn` is one of its words, and the device has a voltage to fit it to.

    Raises
    ------
    InputError
        If `rails` is another word, or 'fit' with a device that has no cell_voltage_limit.
    """
    if rails not in ("refuse", "fit"):
        raise argument_error("rails", "be 'refuse' or 'fit'", repr(rails))
    if rails == "fit" and device.cell_voltage_limit is None:
        raise argument_error("rails", "be 'refuse' where the device has no cell_voltage_limit", "'fit'")


def map_pcn(
    net: PredictiveCodingNetwork,
    substrate: str = "hopfield",
    device: DeviceModel | None = None,
    seed: int = 0,
    *,
    calibration: torch.Tensor | None = None,
    full_scales: Sequence[float] | None = None,
    copies: str | None = None,
    transpose: str | None = None,
    gates: str = "held",
    rails: str = "refuse",
) -> Mapped:
    """Map a predictive coding network to a substrate, by paired units (docs/physics.md, Paired units).

    Parameters
    ----------
    net : PredictiveCodingNetwork
        Dense, convolutional, pooled and skip layers; it is left as it is.
    substrate : str
        'hopfield', 'resistive', 'oscillator', or one of your own: see `SUBSTRATES`.
    device : DeviceModel, optional
        Ideal by default. Fields that the substrate does not read must have their defaults, but for those that a
        preset has set (`Fidelity.unread`), that tell how cells learn, or that describe what the device takes.
    seed : int
        Seed of the device instance: the same devices for the same seed.
    calibration : Tensor (B, ...), optional
        Inputs whose largest activities are the full scales of the layers, to which noises, offsets and converter
        ranges are relative. Without them a full scale is one unit of activity.
    full_scales : sequence of float, optional
        Largest |activity| of the input and each layer, L + 1, in place of those that the calibration finds:
        those of a machine that was built for another network.
    copies : {'independent', 'trimmed', 'shared'}, optional
        In place of the device's: what the physical cells of one weight have in common (`DeviceModel`).
    transpose : {'slots', 'array'}, optional
        In place of the device's: how arrays of a Hopfield circuit are read the other way.
    gates : {'held', 'live'}
        Whether latches hold the gates of ReLUs in nudged phases. Routes of max poolings always are.
    rails : {'refuse', 'fit'}
        What becomes of a network whose cells see more than the device's cell_voltage_limit: it is refused, or
        `voltage`, and with it every voltage, is made so much smaller that the largest is at the limit. Units that
        are scale free (ideal diodes, linear and clipped units) stay what they are; real diodes rectify less
        (`LayerFidelity.blocked`); others are refused.

    Returns
    -------
    Mapped

    Raises
    ------
    NotRealisable
        With the layer and the reason.
    InputError
        If an argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import SquaredError
    >>> from physics_ep.predictive_coding import mlp
    >>> mapped = map_pcn(mlp([4, 8, 3], activation="tanh"), "hopfield", DeviceModel(levels=256))
    >>> sorted(mapped.gradient(torch.rand(2, 4), torch.zeros(2, 3), SquaredError(), beta=0.01))[:2]
    ['layers.0.bias', 'layers.0.weight']
    """
    if not isinstance(net, PredictiveCodingNetwork):
        must = "be a PredictiveCodingNetwork, such as mlp([4, 8, 3]) or from_module(model, x, form='layers')"
        raise argument_error("net", must, type(net).__name__)
    require_physics(net, PredictiveCodingNetwork, "net")
    built = substrate_class(substrate)
    if net.compute_dtype is not None:
        raise argument_error("net", "work in the dtype of its parameters", f"one that works in {net.compute_dtype}")
    chosen = {name: v for name, v in (("copies", copies), ("transpose", transpose)) if v is not None}
    device = device_of(substrate, device).replace(**chosen)
    own, unread = as_read(substrate, device)
    check_idle(own)
    check_plain(net, "net", "to be mapped, since each array has cells of its own", ties=False)
    stray = [f"layers.{k}.{n}" for k, layer in enumerate(net.stack) for n, _ in layer.named_children()]
    if stray:
        raise argument_error("net", "have layers without modules of their own", f"one with {stray[0]!r}")
    broken = [name for name, p in net.named_parameters() if not all_finite(p)]
    if broken:
        raise argument_error("net", "have finite weights", f"one with others in {broken[0]}")
    net = with_arrays(net)
    scales = None
    if calibration is not None:
        try:
            net.check_input(calibration)
        except InputError as error:
            raise InputError(str(error).replace("Argument x ", "Argument calibration ", 1)) from None
        with torch.no_grad():
            scales = [float(s.abs().max()) for s in (calibration, *net.run(calibration).states)]
        scales = [s if s > 0 else 1.0 for s in scales]
    if full_scales is not None:
        try:
            scales = [float(s) for s in full_scales]
        except (TypeError, ValueError, OverflowError):
            scales = []
        if len(scales) != net.depth + 1 or not all(0 < s < math.inf for s in scales):
            must = f"be {net.depth + 1} positive numbers, of the input and each layer"
            raise argument_error("full_scales", must, repr(full_scales))
    check_rails(rails, own)
    if rails == "fit":
        fitted = fitted_voltage(built(net, own.replace(cell_voltage_limit=None), seed, scales, gates), own)
        own, device = own.replace(voltage=fitted), device.replace(voltage=fitted)
    for bits, span, found in (("dac", own.dac_range, scales), ("adc", own.adc_range, calibration)):
        if getattr(own, f"{bits}_bits") is not None and span is None and found is None:
            must = f"be given for converters without {bits}_range: it sets their range, and not what is converted"
            raise argument_error("calibration", must, "none")
    system = built(net, own, seed, scales, gates)
    return Mapped(net, system, device, seed, substrate, calibration, unread)
