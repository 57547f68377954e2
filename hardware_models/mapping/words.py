"""What a mapped network takes and how it behaves, in words: the lines of `physics-ep map`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..quantities import quantity

if TYPE_CHECKING:
    from ..devices.model import DeviceModel
    from .budget import Budget
    from .fidelity import Course, Fidelity, LayerFidelity
    from .gates import NudgedGates

FOLLOWED = 500
"""Units up to which `map` follows a substrate in time: some seconds of processor time."""


def settling(found: Fidelity) -> str:
    """Times of both phases, and what energies are for, in words."""
    pairs = (
        ("free", found.settling_time, found.formula_time, found.settling_from[0]),
        ("nudged", found.nudged_settling_time, found.nudged_formula_time, found.settling_from[1]),
    )
    told = []
    for name, used, formula, origin in pairs:
        if origin == "measured":
            told.append(f"{name} {quantity(used, 's')} measured ({quantity(formula, 's')} by formula)")
        else:
            told.append(f"{name} {quantity(used, 's')} by formula, an estimate")
    return ", ".join(told) + " (to rest: 1e-6); energies are for the first of each"


def course(course: Course) -> str:
    """What came of following a substrate in time, in words."""
    if course.settles == "not tried":
        return f"not tried (more than {FOLLOWED:,} units); states are by algebra, and nothing says that they settle"
    told = f"settles: {course.settles}, {course.settled} of {course.followed} examples by flow"
    if course.settled:
        told += f" within {quantity(course.seconds, 's')} (to {course.tolerance:g}), measured"
    gap = "no state in both" if math.isnan(course.gap) else f"{course.gap:.1e} full scales at most"
    return f"{told}; {course.solver} and flow differ by {gap}"


def gates(found: NudgedGates) -> str:
    """What nudged phases do with one mode of gates, in words."""
    takes = "no latch"
    if found.latches:
        energy, area = quantity(found.latch_energy, "J"), f"{found.latch_area:.3g} m^2"
        takes = f"{found.latches:,} latches: {energy} a step and example, {area}"
    told = f"{found.gates}: {found.settled} of {found.examples} examples settle, {takes}"
    if math.isnan(found.gap):
        return f"{told}; no gradient"
    gap = f"{max(found.gap, 0.0):.1e} at beta {found.beta:.2g}"
    return f"{told}; worst weights' 1 - cosine to backprop of the arrays {gap}"


def time_constant(found: Fidelity, alike: bool) -> str:
    """The time constant of nodes, the capacitance that it takes, and whether h and u have the same, in words."""
    words = {
        "the device": "given by the device",
        "capacitance": "capacitance over conductance",
        "assumed": "assumed",
    }
    farads = [row.capacitance for row in found.layers if not math.isnan(row.capacitance)]
    nodes = ""
    if farads:
        low, high = (quantity(c, "F") for c in (min(farads), max(farads)))
        nodes = f": nodes of {low}" + (f" to {high}" if high != low else "")
        nodes += ", h and u alike" if alike else " at h, others at u"
    return f"{quantity(found.time_constant, 's')}, {words.get(found.time_from, found.time_from)}{nodes}"


def stability(course: Course) -> str:
    """What the certificate says of the states that a solver has found, in words."""
    from .stability import VERDICTS

    if not course.verdicts:
        return "not certified"
    told = ", ".join(f"{course.verdicts.count(v)} {v}" for v in VERDICTS)
    told = f"{told} of {len(course.verdicts)} free states by {course.solver}"
    if course.found < len(course.verdicts):
        told += f", which finds {course.found}: of the others algebra's"
    if not math.isnan(course.growth):
        told += f"; rightmost eigenvalue {course.growth:.2g} +- {course.radius:.1g} a time constant"
    return told


def volts(device: DeviceModel, found: Fidelity) -> str:
    """Voltages at the cells, and what is left of rectification, in words."""
    row = max(found.layers, key=lambda layer: layer.line_voltage)
    limit = device.cell_voltage_limit
    borne = "their limit is not given" if limit is None else f"their limit {quantity(limit, 'V')}"
    said = (
        f"{quantity(device.voltage, 'V')} a full scale; at cells at most {quantity(row.line_voltage, 'V')}, {borne}"
    )
    worst = max((layer.blocked for layer in found.layers if layer.blocked > 0), default=0.0)
    return said + (f"; rectifiers let through up to {worst:.2g} of what they should block" if worst > 0 else "")


def budget(found: Budget) -> str:
    """A budget in one line: total, rows, and what is not counted."""
    unit = found.unit
    rows = ", ".join(f"{row} {found[row]:.3g}" for row in found if row in found.counted)
    left = f"; not counted: {', '.join(found.not_counted)}" if found.not_counted else ""
    return f"{found.total:.3g} {unit} ({rows}{left})"


def copies(found: Fidelity) -> str:
    """What the physical cells of one weight have in common, in words."""
    words = {
        "independent": "independent: each physical cell has errors of its own",
        "trimmed": f"trimmed: {found.writings:,} writings, {found.missed:,} cells beyond the tolerance",
        "shared": "shared: the cells of one weight err alike, an ideal that separate parts do not have",
    }
    return f"{words[found.copies]}; {found.cells / max(found.weights, 1):.3g} cells a weight"


def columns(layers: Sequence[LayerFidelity]) -> list[tuple[str, Callable[[LayerFidelity], str]]]:
    """What only some substrates have to tell of an array: heading, and how it is shown."""
    found: list[tuple[str, Callable[[LayerFidelity], str]]] = []
    if any(row.gain != 1 for row in layers):
        found += [
            ("rail gain", lambda row: f"{row.gain:.3g}"),
            ("node G", lambda row: quantity(row.total_conductance, "S") if row.total_conductance > 0 else ""),
            ("passive leak", lambda row: quantity(row.negative_conductance, "S")),
        ]
    if any(row.threshold_units for row in layers):
        found.append(("at threshold", lambda row: f"{len(row.threshold_units):,}"))
    return found
