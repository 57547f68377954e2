"""Circuits for the tests, and their currents counted from the parts list alone."""

from __future__ import annotations

import numpy as np

from hardware_models import Circuit
from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.netlists.parts import GROUND, Part, Parts


def R(a: str, b: str, ohms: float) -> Part:  # noqa: N802 (as in a netlist)
    """Resistor."""
    return Part(f"R_{a}_{b}_{ohms!r}", "resistor", (a, b), (1 / ohms if ohms else float("inf"),))


def V(node: str, volts: float, name: str = "") -> Part:  # noqa: N802
    """Voltage source from ground."""
    return Part(name or f"V_{node}", "voltage_source", (node, GROUND), (volts,))


def solved(*parts: Part, **options: object) -> dict[str, float]:
    """Node voltages at the operating point of these parts."""
    circuit = Circuit(Parts.collect(parts), **options)
    return circuit.node_voltages(circuit.operating_point().require())


def mixed_circuit(seed: int, nodes: int) -> Parts:
    """Resistors, diodes of both kinds, memristors, current sources; sources at s0 and s1, and one from a to b."""
    rng = np.random.default_rng(seed)
    names = [GROUND, "s0", "s1", "a", "b", *(f"n{k}" for k in range(nodes))]
    parts = [V("s0", rng.uniform(-2, 2)), V("s1", rng.uniform(-2, 2))]
    parts.append(Part("V2", "voltage_source", ("a", "b"), (rng.uniform(-1, 1),)))
    for here in names[3:]:
        for k, there in enumerate(rng.choice([n for n in names if n != here], 3, replace=False)):
            parts.append(Part(f"R{here}{k}", "resistor", (here, str(there)), (10 ** rng.uniform(-5, -2),)))

    def add(name: str, kind: str, values: tuple[float, ...]) -> None:
        pair = tuple(str(n) for n in rng.choice(names, 2, replace=False))
        if not {GROUND, "s0", "s1"}.issuperset(pair):
            parts.append(Part(name, kind, pair, values))

    for k in range(nodes // 2):
        add(f"D{k}", "diode", (10 ** rng.uniform(-14, -9), rng.uniform(1, 2)))
        add(f"M{k}", "memristor", (10 ** rng.uniform(-5, -3), rng.uniform(0.1, 0.5)))
        add(f"P{k}", "piecewise_diode", (10 ** rng.uniform(-4, -2), rng.uniform(0, 0.5), 1e-9))
        add(f"I{k}", "current_source", (rng.uniform(-1e-3, 1e-3),))
    return Parts.collect(parts)


def hard_circuit(seed: int) -> Parts:
    """A tree of resistors with other elements between its nodes, each behind a resistor; up to 300 V."""
    rng = np.random.default_rng(seed)
    amplitude = 10 ** rng.uniform(-1, 2.5)
    names = [GROUND, "s0", "s1", *(f"n{k}" for k in range(int(rng.integers(3, 40))))]
    parts = [V(name, rng.uniform(-amplitude, amplitude)) for name in names[1:3]]
    for k, here in enumerate(names[3:]):
        up = names[int(rng.integers(0, 3 + k))]
        parts.append(Part(f"R{k}", "resistor", (here, up), (10 ** rng.uniform(-8, -1),)))
        for m in range(int(rng.integers(1, 4))):
            there, between = names[int(rng.integers(0, 3 + k))], f"m{k}_{m}"
            parts.append(Part(f"R{between}", "resistor", (here, between), (10 ** rng.uniform(-6, 0),)))
            pair = (between, there) if rng.random() < 0.5 else (there, between)
            kind = rng.choice(["diode", "diode", "piecewise_diode", "memristor"])
            values = {
                "diode": (10 ** rng.uniform(-18, -6), rng.uniform(0.8, 3)),
                "piecewise_diode": (10 ** rng.uniform(-6, 0), rng.uniform(0, 1), 1e-9 * rng.integers(0, 2)),
                "memristor": (10 ** rng.uniform(-9, -2), 10 ** rng.uniform(-1.3, 1)),
            }[kind]
            parts.append(Part(f"E{between}", str(kind), pair, values))
    return Parts.collect(parts)


LAWS = {
    "resistor": lambda u, g: g * u,
    "memristor": lambda u, g, v0: g * v0 * np.sinh(u / v0),
    "diode": lambda u, saturation, n: saturation * (np.exp(u / (n * THERMAL_VOLTAGE)) - 1),
    "piecewise_diode": lambda u, g, threshold, leak: leak * u + g * np.maximum(u - threshold, 0),
    "current_source": lambda u, current: current + 0 * u,
}


def branch_currents(parts: Parts, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (m, 2) and currents (m,) of all parts but voltage sources, at node voltages v."""
    ends, flow = [], []
    for kind, law in LAWS.items():
        group = parts.group(kind)
        across = v[group.nodes[:, 0]] - v[group.nodes[:, 1]]
        ends.append(group.nodes)
        flow.append(law(across, *group.values.T))
    return np.concatenate(ends), np.concatenate(flow)


def node_currents(parts: Parts, v: np.ndarray) -> np.ndarray:
    """Current that leaves each node through these parts, (n_nodes,)."""
    ends, flow = branch_currents(parts, v)
    leaving = np.zeros(len(v))
    np.add.at(leaving, ends[:, 0], flow)
    np.add.at(leaving, ends[:, 1], -flow)
    return leaving
