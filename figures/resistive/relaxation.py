"""Resistive networks: how they settle, and how far EP's gradient is from the exact one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from hardware_models.netlists.parts import Group, Parts
from hardware_models.nodal.courses import CircuitTrajectory
from hardware_models.nodal.transients import transient
from hardware_models.resistive.network import ResistiveNetwork, as_parts
from physics_ep.equilibrium import Equilibrium
from physics_ep.errors import argument_error
from physics_ep.nudging import Nudge, centered
from physics_ep.progress import SILENT, Progress, task
from physics_ep.relaxation.loop import relax
from validation.oracles import implicit_gradient

from ..gradients.errors import (
    ErrorCurve,
    ErrorCurves,
    draw_errors,
    estimate_error,
    estimator_error,
    stability_limit,
)
from ..hopfield.transients import CircuitTransients, Transient, draw_transients
from ..requests import BATCH, Drawn, Request
from ..subjects import Subject, fresh_resistive, given

CLASSES = {
    "inputs": "from inputs",
    "nudge": "from the nudge",
    "resistors": "heat, conductances",
    "diodes": "heat, diodes",
    "capacitors": "into capacitors",
}
KINDS = {
    "inputs": ("voltage_source", "current_source", "amplifier"),
    "nudge": ("nudge",),
    "resistors": ("resistor",),
    "diodes": ("diode",),
    "capacitors": ("capacitor",),
}
"""Kinds of parts in each class; amplifiers and the currents count as inputs. Ideal diodes take no power."""
STEP_ERROR = 1e-8
"""Relative; also makes steps short enough to be drawn as straight lines."""
TOLERANCE = 1e-12
"""Largest residual of the equilibria in which the phases must end, dimensionless."""


def resistive_relaxation(subject: Subject, *, share: float = 0.5, duration: float = 30.0) -> CircuitTransients:
    """Follow a resistive network, a capacitance at each node, on the subject's first example.

    Parameters
    ----------
    subject : Subject
        Its system is a `ResistiveNetwork`.
    share : float
        Nudging strength over the conductance of an output node.
    duration : float
        Duration of each phase, in units of the capacitance over the smallest of the layers' mean conductances.

    Returns
    -------
    CircuitTransients
        With the equilibria by `relax` in which the phases must end.

    Raises
    ------
    InputError
        If the system is another one.
    NotConverged
        If an equilibrium cannot be certified.
    """
    system = subject.system
    if not isinstance(system, ResistiveNetwork):
        raise argument_error("run", "hold a resistive network for this figure", type(system).__name__)
    network = system if system.dtype == torch.float64 else subject.to(torch.float64).system
    assert isinstance(network, ResistiveNetwork)
    x, y = subject.x[:1].double().cpu(), subject.y[:1].double().cpu()
    parts, layers = _with_capacitors(network)
    beta = share * network.nudge_scale
    slowest = network.capacitance / min(float(load.detach().mean()) for load in network.loads())
    names = [parts.nodes[k] for k in layers[-1]]
    found: list[Transient] = []
    rest: Equilibrium | None = None
    volts: Any = "zero"
    for strength in (0.0, beta):
        nudge = Nudge(subject.cost, y, strength) if strength else None
        rest = relax(
            network, x, nudge=nudge, start=None if rest is None else rest.state, tolerance=TOLERANCE
        ).require()
        course = transient(
            parts,
            duration * slowest,
            inputs=network.circuit_inputs(x).numpy(),
            start=volts,
            nudge=(names, y.numpy(), strength) if strength else None,
            rtol=STEP_ERROR,
        )
        volts = course.state[0][-1].numpy()
        found.append(_transient(course, layers, strength, rest))
    hidden = [f"layer {k}" for k in range(1, len(layers))]
    return CircuitTransients(
        subject.label,
        (found[0], found[1]),
        (*hidden, "outputs"),
        CLASSES,
        ("inputs", "nudge"),
        decades=7,
        log_time=True,
    )


def _with_capacitors(network: ResistiveNetwork) -> tuple[Parts, list[np.ndarray]]:
    """The network's parts with a capacitor at each node of its layers, and the numbers of these nodes by layer."""
    parts = as_parts(network)
    last = len(network.sizes) - 1
    prefixes = ["y" if k == last else f"h{k}_" for k in range(1, last + 1)]
    number = {name: k for k, name in enumerate(parts.nodes)}
    layers = [
        np.array([number[f"{prefix}{i}"] for i in range(1, n + 1)])
        for prefix, n in zip(prefixes, network.sizes[1:], strict=True)
    ]
    nodes = np.concatenate(layers)
    group = Group(
        tuple(f"C{parts.nodes[k]}" for k in nodes),
        np.stack([nodes, np.zeros_like(nodes)], 1),
        np.full((len(nodes), 1), network.capacitance),
    )
    return Parts(parts.nodes, {**parts.groups, "capacitor": group}), layers


def _transient(course: CircuitTrajectory, layers: list[np.ndarray], beta: float, rest: Equilibrium) -> Transient:
    volts = course.state[0][:, 0].numpy()
    meter = course.power
    assert meter is not None
    power, energies = {}, {}
    for name, kinds in KINDS.items():
        columns = [k for k, kind in enumerate(meter.kinds) if kind in kinds]
        if columns:
            sign = -1.0 if name in ("inputs", "nudge") else 1.0
            power[name] = sign * meter.power[:, 0, columns].sum(-1).numpy()
            energies[name] = sign * float(meter.energy[-1, 0, columns].sum())
    return Transient(
        beta=beta,
        time=course.time.numpy(),
        volts=tuple(volts[:, layer] for layer in layers),
        energy=course.energy[:, 0].numpy(),
        current=course.residual[:, 0].numpy(),
        settling_time=float(course.settling_time[0]),
        power=power,
        energies=energies,
        rest=tuple(s[0].numpy() for s in rest.state),
        residual=float(rest.residual_si[0]),
    )


def resistive_error(
    subjects: Sequence[Subject],
    betas: np.ndarray | None = None,
    *,
    seed: int = 0,
    progress: Progress | bool = SILENT,
) -> ErrorCurves:
    """Error of every real scheme in float64, and of the centered one in float32, a panel a subject.

    Parameters
    ----------
    subjects : sequence of Subject
        Their parameters are rounded to float32 first, so that all curves of a panel share one exact gradient.
    betas : ndarray (n,), optional
        Nudging conductances over the mean conductance of an output node.
    seed : int
        Seed of the random signs.
    progress : Progress

    Returns
    -------
    ErrorCurves
        With the stability limits.

    Raises
    ------
    NotConverged, OracleError
        If a phase or the oracle cannot be certified.
    """
    wide = [subject.to(torch.float32).to(torch.float64) for subject in subjects]
    data = estimator_error(wide, betas, seed=seed, progress=progress)
    panels = []
    with task(progress, "figure: float32", len(wide)) as advance:
        for subject, panel in zip(wide, data.panels, strict=True):
            narrow, unit = subject.to(torch.float32), subject.system.nudge_scale
            exact = implicit_gradient(subject.system, subject.x, subject.y, subject.cost)
            strengths = panel.floor_beta
            errors = [estimate_error(narrow, exact, centered(), float(b * unit)) for b in strengths]
            curve = ErrorCurve("centered, float32", strengths, np.array(errors))
            limit = stability_limit(subject) / unit
            short = [replace(c, label="random (r.m.s.)") if "random" in c.label else c for c in panel.curves]
            panels.append(replace(panel, curves=(*short, curve), limit=limit))
            advance(1)
    return replace(data, panels=tuple(panels), strength="$\\beta$ over an output's conductance (S/S)")


def make_resistive_relaxation(request: Request) -> Drawn:
    """Figure 'resistive_relaxation' of the catalogue."""
    # Circuits are simulated in float64 on the CPU, wherever their networks were. Conductances of some microsiemens.
    small: dict[str, Any] = {"scale": 1e-4, "saturation": 1e-9, "input_gain": 8.0}
    subject = (
        fresh_resistive("resistive network", [12, 8], "shockley", examples=1, seed=request.seed, **small)
        if request.run is None
        else given(request, examples=1)
    )
    with request.progress.task("figure: resistive relaxation", 1) as advance:
        data = resistive_relaxation(subject)
        advance(1)
    return Drawn(draw_transients(data), asdict(data))


def make_resistive_error(request: Request) -> Drawn:
    """Figure 'resistive_error' of the catalogue."""
    subjects = _by_diode(request) if request.run is None else [given(request, examples=BATCH, **request.place())]
    data = resistive_error(subjects, seed=request.seed, progress=request.progress)
    return Drawn(draw_errors(data), asdict(data))


def _by_diode(request: Request) -> list[Subject]:
    """Networks of two hidden layers without diodes, with Shockley's and with ideal ones."""
    names = {"none": "no diodes", "shockley": "Shockley diodes", "ideal": "ideal diodes"}
    few: dict[str, Any] = {"examples": 16, "seed": request.seed, **request.place()}
    return [
        fresh_resistive(name, [32, 32], diode, input_gain=16.0, saturation=1e-7, **few)
        for diode, name in names.items()
    ]
