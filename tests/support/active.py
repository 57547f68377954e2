"""Circuits with active parts for the tests."""

from __future__ import annotations

import numpy as np

from hardware_models.netlists.op_amps import op_amp
from hardware_models.netlists.parts import GROUND, Part, Parts


def active_circuit(seed: int, nodes: int = 20) -> Parts:
    """A ladder of resistors with diodes, one-way parts of all four kinds, and two op amps as inverters.

    Two sources drive it. Loads are large and gains modest, so that the operating point is unique; op amps sit in
    feedback of their own.
    """
    rng = np.random.default_rng(seed)
    parts: list[Part] = []

    def g(low: float = -4.5, high: float = -3.0) -> float:
        return float(10 ** rng.uniform(low, high))

    def add(kind: str, letter: str, ends: tuple[str, ...], *values: float, control: str = "") -> None:
        parts.append(Part(f"{letter}{len(parts)}", kind, ends, tuple(map(float, values)), control))

    parts += [Part(f"V{k}", "voltage_source", (f"in{k}", GROUND), (float(rng.uniform(-1, 1)),)) for k in range(2)]
    names = ["in0", "in1"]
    for k in range(nodes - 2):
        names.append(f"n{k}")
        add("resistor", "R", (names[-1], names[rng.integers(len(names) - 1)]), g())
        add("resistor", "R", (names[-1], GROUND), g())
    free = names[2:]

    def pick(count: int) -> list[str]:
        return [str(n) for n in rng.choice(free, count, replace=False)]

    for _ in range(nodes // 4):
        a, b, c, d = pick(4)
        add("diode", "D", (a, b), 10 ** rng.uniform(-14, -9), rng.uniform(1, 2))
        add("resistor", "R", (c, d), g())
        a, b, c, d = pick(4)
        add("vccs", "G", (a, b, c, d), rng.uniform(-1, 1) * 2e-4)
    for k in range(2):
        a, b, c, d = pick(4)
        add("vcvs", "E", (f"e{k}", GROUND, a, b), rng.uniform(-2, 2))
        add("resistor", "R", (f"e{k}", c), g())
        add("ccvs", "H", (f"h{k}", GROUND), rng.uniform(-500, 500), control=f"V{k}")
        add("resistor", "R", (f"h{k}", d), g())
        add("cccs", "F", (a, GROUND), rng.uniform(-0.3, 0.3), control=f"V{k}")
        minus, out = f"m{k}", f"o{k}"
        parts += op_amp(f"U{k}", GROUND, minus, out, gain=1e4, gain_bandwidth=1e6, output_resistance=50.0)
        add("resistor", "R", (b, minus), g(-4.5, -4))
        add("resistor", "R", (minus, out), g(-4.5, -4))
        add("resistor", "R", (out, c), g())
    return Parts.collect(parts)
