"""Circuits with active parts: their states, their gradients and their stability."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hardware_models import Circuit
from hardware_models.netlists.parts import GROUND, Part, Parts
from physics_ep import EquilibriumPropagation, SquaredError, relax
from physics_ep.estimators.methods import UnstableFreeState
from tests.support.circuits import R, V
from validation import implicit_gradient


def mixed() -> list[Part]:
    """All four controlled sources and a diode, in one loop after another."""
    return [
        V("in", 1.0, "V"),
        R("in", "a", 1e3),
        R("a", GROUND, 1e3),
        Part("G", "vccs", ("b", GROUND, "a", GROUND), (2e-3,)),
        R("b", GROUND, 1e3),
        R("b", "a", 2e3),
        Part("D", "diode", ("a", "b"), (1e-12, 1.0)),
        Part("E", "vcvs", ("c", GROUND, "b", "a"), (3.0,)),
        R("c", "d", 1e3),
        R("d", GROUND, 1e3),
        Part("H", "ccvs", ("e", GROUND), (100.0,), control="V"),
        R("e", "d", 1e3),
        Part("F", "cccs", ("d", GROUND), (0.2,), control="V"),
    ]


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def output(parts: list[Part], changed: str = "", by: float = 0.0) -> float:
    """Voltage of node d where one part's value is another."""
    moved = [
        Part(p.name, p.kind, p.nodes, (p.values[0] + by, *p.values[1:]), p.control) if p.name == changed else p
        for p in parts
    ]
    circuit = Circuit(Parts.collect(moved))
    return float(circuit.node_voltages(circuit.operating_point(tolerance=1e-16))["d"])


def test_exact_gradients_of_all_controlled_sources() -> None:
    """Breaks if the force of a controlled source, its control or its parameter's place is wrong, or J^T is J.

    Asymmetric EP and implicit differentiation against differences of the operating point, which modified nodal
    analysis finds without either.
    """
    parts = mixed()
    circuit = Circuit(Parts.collect(parts), outputs=["d"])
    x, y = column(1.0), column(0.3)
    exact = implicit_gradient(circuit, x, y, SquaredError())
    step = EquilibriumPropagation(SquaredError(), beta=1e-7).backward(circuit, x, y)
    assert step.method == "asymmetric"
    names = {
        "conductance": circuit.parts.group("resistor").names,
        "vccs_transconductance": ("G",),
        "vcvs_gain": ("E",),
        "ccvs_transresistance": ("H",),
        "cccs_gain": ("F",),
    }
    missing = float(circuit.outputs(step.equilibria[0].state)) - 0.3
    for name, of in names.items():
        values = circuit.get_parameter(name).detach().numpy()
        for k, part in enumerate(of):
            h = 1e-5 * values[k]
            difference = (output(parts, part, h) - output(parts, part, -h)) / (2 * h)
            assert float(exact[name][k]) == pytest.approx(missing * difference, rel=1e-7)
        np.testing.assert_allclose(circuit.get_parameter(name).grad, exact[name], rtol=1e-6)


def test_instability_is_named() -> None:
    """Breaks if a latch is trained between its levels, where the circuit never is; with and without capacitors."""
    parts = [
        V("in", 0.1),
        R("in", "p", 1e3),
        R("p", "out", 1e3),
        Part("E", "vcvs", ("o", GROUND, "p", GROUND), (4.0,)),
        R("o", "out", 1e3),
        R("out", GROUND, 1e6),
    ]
    # At p, C dv/dt = (in - v) / 1k + (4 v - v) / 2k, less what the load draws.
    for capacitors, rate in (([Part("C", "capacitor", ("p", GROUND), (1e-6,))], 0.5e3), ([], 0.5e9)):
        circuit = Circuit(Parts.collect([*parts, *capacitors]), outputs=["out"])
        x = column(0.1)
        found = circuit.eigenvalue(relax(circuit, x).require().state, x)
        assert complex(found[0]).imag == 0
        if capacitors:
            assert complex(found[0]).real == pytest.approx(rate, rel=1e-2)
        with pytest.raises(
            UnstableFreeState, match=r"1 of 1 states that are unstable.*eigenvalue.* per s, and must be"
        ):
            EquilibriumPropagation(SquaredError(), beta=1e-6).backward(circuit, x, x)
