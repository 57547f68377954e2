"""Random circuits of mixed elements for tests of netlists and of ngspice."""

from __future__ import annotations

import numpy as np

from hardware_models.netlists.parts import GROUND, Part, Parts


def mixed_circuit(n_nodes: int, seed: int, *, active: bool = True) -> Parts:
    """A connected circuit of passive parts and sources, and of amplifiers and controlled sources where `active`.

    Every node has a resistive path to ground. Two voltage sources of up to a volt and a few milliampere of current
    sources drive it; conductances are 10 to 1000 microsiemens. Amplifiers and controlled sources drive nodes of
    their own, loaded by resistors into the rest, with small gains, so that the operating point is unique.
    """
    rng = np.random.default_rng(seed)
    parts: list[Part] = []

    def g() -> float:
        return float(10 ** rng.uniform(-5, -3))

    def add(kind: str, letter: str, nodes: tuple[str, ...], *values: float, control: str = "") -> str:
        name = f"{letter}{len(parts)}"
        parts.append(Part(name, kind, nodes, tuple(float(v) for v in values), control))
        return name

    driven = [f"in{k}" for k in range(2)]
    sources = [add("voltage_source", "V", (n, GROUND), rng.uniform(-1, 1)) for n in driven]
    nodes = [*driven]
    for k in range(n_nodes - 2):
        node = f"n{k}"
        add("resistor", "R", (node, nodes[rng.integers(len(nodes))]), g())
        nodes.append(node)

    def two() -> tuple[str, str]:
        a, b = rng.choice(len(nodes), 2, replace=False)
        return nodes[a], nodes[b]

    for _ in range(n_nodes):
        add("resistor", "R", two(), g())
    for _ in range(max(1, n_nodes // 4)):
        add("diode", "D", two(), 10 ** rng.uniform(-15, -7), rng.uniform(1, 2))
        add("memristor", "B", two(), g(), rng.uniform(0.2, 1))
        add("piecewise_diode", "B", two(), g(), rng.uniform(0.0, 0.5), 1e-9)
    for _ in range(max(1, n_nodes // 10)):
        add("resistor", "R", (nodes[rng.integers(len(nodes))], GROUND), g())
        add("current_source", "I", two(), 1e-4 * rng.uniform(-1, 1))
    if active:
        for k in range(max(1, n_nodes // 20)):
            a, b = two()
            fresh = [f"e{k}", f"f{k}", f"a{k}", f"q{k}"]
            add("vcvs", "E", (fresh[0], GROUND, a, b), rng.uniform(-0.5, 0.5))
            add("rectifier", "B", (fresh[1], GROUND, *two()), rng.uniform(0.1, 0.5))
            add("amplifier", "X", (nodes[rng.integers(len(nodes))], fresh[2]), rng.uniform(1.5, 4))
            add("vccs", "G", (fresh[3], GROUND, *two()), 1e-5 * rng.uniform(-1, 1))
            add("cccs", "F", (nodes[rng.integers(len(nodes))], GROUND), 0.02, control=sources[k % 2])
            for node in fresh:
                add("resistor", "R", (node, nodes[rng.integers(len(nodes))]), 0.1 * g())
                add("resistor", "R", (node, GROUND), g())
    return Parts.collect(parts)
