"""Circuits with transistors for the tests."""

from __future__ import annotations

import numpy as np

from hardware_models.netlists.parts import GROUND, Part, Parts
from tests.support.circuits import V

NMOS = (5e-5, 0.7, 0.02, 1e-5, 1e-6, 0.4, 0.65)
PMOS = (2e-5, -0.8, 0.03, 2e-5, 1e-6, 0.5, 0.7)


def transistor_circuit(seed: int, transistors: int = 8) -> Parts:
    """A mesh of resistors with transistors between any of its nodes, also as gates and bulks; sources up to 5 V."""
    rng = np.random.default_rng(seed)
    names = [GROUND, "s0", "s1", *(f"n{k}" for k in range(6))]
    parts = [V("s0", rng.uniform(1, 5)), V("s1", rng.uniform(-3, 3))]
    for k, here in enumerate(names[3:]):
        for m, there in enumerate(rng.choice(names[: 3 + k], 2, replace=False)):
            parts.append(Part(f"R{k}_{m}", "resistor", (here, str(there)), (10 ** rng.uniform(-6, -3),)))
    parts += [V("sub", -3.0), V("well", 5.0)]
    for k in range(transistors):
        kind = str(rng.choice(["nmos", "pmos", "nmos_resistor", "pmos_resistor"]))
        n_channel = kind.startswith("n")
        law = tuple(v * rng.uniform(0.5, 1.5) for v in (NMOS if n_channel else PMOS))
        drain, gate, source = (str(n) for n in rng.choice(names, 3, replace=False))
        bulk = "sub" if n_channel else "well"
        nodes = (drain, gate, source, bulk)
        if kind.endswith("resistor"):
            nodes, law = (drain, source, bulk), (rng.uniform(-3, 4), *law)
        parts.append(Part(f"M{k}", kind, nodes, law))
        for end in (drain, source):
            parts.append(Part(f"D{k}_{end}", "diode", (bulk, end) if n_channel else (end, bulk), (1e-14, 1.0)))
    return Parts.collect(parts)
